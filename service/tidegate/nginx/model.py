"""What a configuration listens on, by which names, and to whom it can pass on: its servers, upstreams and maps.

The rules are nginx's: ``listen`` and ``default_server`` (ngx_http_core_module), the order of names (server_names), and
which of two servers of one name is heard. Nothing is looked up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property

from tidegate.config.endpoints import UNIX, is_ipv6
from tidegate.nginx.blocks import Block
from tidegate.nginx.values import regex

_GROUP = re.compile(r"\(\?P?[<']([A-Za-z_][A-Za-z0-9_]*)[>']")
_DEFINES = re.compile(r"map|geo|split_clients|js_var|set(_.*)?|.*_set")
_WILDCARDS = ("*", "0.0.0.0", "[::]")


class Listen:
    """One ``listen`` of a server: ``*:80`` for all addresses, ``unix:/path`` for a socket."""

    __slots__ = ("address", "block", "http2", "is_default", "port", "proxy_protocol", "ssl")

    def __init__(self, address: str, port: int, block: Block | None, options: list[str], *, ssl: bool) -> None:
        self.address = address
        self.port = port  # 0: a Unix socket
        self.block = block
        self.ssl = ssl or "ssl" in options
        self.http2 = "http2" in options
        self.is_default = "default_server" in options or "default" in options
        self.proxy_protocol = "proxy_protocol" in options

    @property
    def key(self) -> str:
        return f"{self.address}:{self.port}" if self.port else self.address


def listens(server: Block, default_port: int = 80) -> Iterator[Listen]:
    """Where ``server`` listens. Ports from a range are each one."""
    own = server.all("listen")
    ssl = any(block.args == ["on"] for block in server.all("ssl"))
    if not own and default_port:
        yield Listen("*", default_port, None, [], ssl=ssl)
    for block in own:
        text = block.arg(0)
        if text.startswith(UNIX):
            yield Listen(text, 0, block, block.args[1:], ssl=ssl)
            continue
        found = re.fullmatch(r"(?:(.*):)?([0-9]{1,5})(?:-([0-9]{1,5}))?", text)
        if found is None or (text.startswith("[") and text.endswith("]")):
            yield Listen(canonical_host(text), default_port, block, block.args[1:], ssl=ssl)
            continue
        first, last = int(found[2]), int(found[3] or found[2])
        for port in range(first, min(last, first + 1000) + 1):
            yield Listen(canonical_host(found[1] or "*"), port, block, block.args[1:], ssl=ssl)


def canonical_host(host: str) -> str:
    """One spelling for each address of this machine that has several."""
    host = host.lower()
    if host == "localhost":
        return "127.0.0.1"
    if host in _WILDCARDS:
        return "[::]" if host == "[::]" else "*"
    return f"[{host}]" if is_ipv6(host) else host


class Socket:
    """The servers that listen on one address and port, and which of them takes a host."""

    def __init__(self) -> None:
        self.listens: list[tuple[Listen, Block]] = []
        # One option of a ``listen`` counts for all servers of its socket.
        self.ssl = False
        self.http2: Listen | None = None
        self._default: Block | None = None
        self._names: dict[str, Block] = {}
        self._heads: dict[str, Block] = {}
        self._tails: dict[str, Block] = {}
        self._patterns: list[tuple[re.Pattern[str], Block]] = []

    def add(self, listen: Listen, server: Block) -> None:
        self.listens.append((listen, server))
        self.ssl = self.ssl or listen.ssl
        self.http2 = self.http2 or (listen if listen.http2 else None)
        if listen.is_default and self._default is None:
            self._default = server
        for name in names(server) or [""]:
            self._add_name(name, server)

    def _add_name(self, name: str, server: Block) -> None:
        """The first server of a name keeps it; nginx warns of the others."""
        if name.startswith("~"):
            if (pattern := regex(name[1:], ignore_case=True)) is not None:
                self._patterns.append((pattern, server))
        elif name.startswith("*."):
            self._heads.setdefault(name[2:], server)
        elif name.startswith("."):
            self._names.setdefault(name[1:], server)
            self._heads.setdefault(name[1:], server)
        elif name.endswith(".*"):
            self._tails.setdefault(name[:-2], server)
        else:
            self._names.setdefault(name, server)

    @property
    def default(self) -> Block:
        return self._default or self.listens[0][1]

    def choose(self, host: str) -> Block:
        """The server that takes requests which name ``host``, in lower case and without a port."""
        if (found := self._names.get(host)) is not None:
            return found
        labels = host.split(".")
        for number in range(1, len(labels)):
            if (found := self._heads.get(".".join(labels[number:]))) is not None:
                return found
        for number in range(len(labels) - 1, 0, -1):
            if (found := self._tails.get(".".join(labels[:number]))) is not None:
                return found
        return next((server for pattern, server in self._patterns if pattern.search(host)), self.default)


def names(server: Block) -> list[str]:
    """The words of its ``server_name``, in lower case but for expressions."""
    words = [word for block in server.all("server_name") for word in block.args]
    return [word if word.startswith("~") else word.lower() for word in words]


def kind_of(location: Block) -> tuple[str, str]:
    """Its modifier, empty for a plain prefix, and the rest; "@" for a named one."""
    if len(location.args) > 1:
        return location.args[0], location.args[1]
    text = location.arg(0)
    if text.startswith("@"):
        return "@", text
    for modifier in ("^~", "~*", "=", "~"):  # nginx takes them without a blank behind, too
        if text.startswith(modifier):
            return modifier, text[len(modifier) :]
    return "", text


class Locations:
    """Those of one block, by the ways in which nginx looks for them."""

    def __init__(self, within: Block) -> None:
        self.exact: dict[str, Block] = {}
        self.expressions: list[tuple[Block, str, bool]] = []  # with the pattern, and whether case is ignored
        self._prefixes: dict[str, Block] = {}
        for location in within.all("location"):
            kind, text = kind_of(location)
            if kind == "=":
                self.exact.setdefault(text, location)
            elif kind in ("~", "~*"):
                self.expressions.append((location, text, kind == "~*"))
            elif kind != "@":
                self._prefixes.setdefault(text, location)
        self._lengths = sorted({len(text) for text in self._prefixes}, reverse=True)

    def longest_prefix(self, uri: str) -> Block | None:
        for length in self._lengths:
            if length <= len(uri) and (found := self._prefixes.get(uri[:length])) is not None:
                return found
        return None


class Model:
    """Made of the tree's top, of a file that is a whole configuration or a part of one."""

    def __init__(self, top: Block) -> None:
        self.top = top
        self.https = top.all("http") or [top]  # a part is as if it stood in http {}
        self.is_part = not top.all("http") and not top.all("stream")
        self.servers = [server for http in self.https for server in http.all("server")]
        self.streams = [server for stream in top.all("stream") for server in stream.all("server")]
        self.sockets: dict[str, Socket] = {}
        self._locations: dict[int, Locations] = {}
        for server in self.servers:
            for listen in listens(server):
                self.sockets.setdefault(listen.key, Socket()).add(listen, server)
        self.stream_sockets = {
            listen.key: server
            for server in self.streams
            for listen in listens(server, 0)
            if listen.block is not None and "udp" not in listen.block.args
        }
        self.upstreams = {block.arg(0).lower(): block for http in self.https for block in http.all("upstream")}
        self.stream_upstreams = {
            block.arg(0).lower(): block for stream in top.all("stream") for block in stream.all("upstream")
        }
        self.maps = {block.arg(1).lower(): block for http in self.https for block in http.all("map")}
        self.stream_maps = {block.arg(1).lower(): block for stream in top.all("stream") for block in stream.all("map")}

    @cached_property
    def fixed_targets(self) -> set[str]:
        """The authorities of every ``proxy_pass`` without variables: nginx knows their addresses from its start."""
        found = (re.match(r"https?://([^/$]+)(/|\Z)", block.arg(0)) for block in self.top.everywhere("proxy_pass"))
        return {each[1].lower() for each in found if each}

    @cached_property
    def defined(self) -> set[str]:
        """The variables that the configuration itself defines, as ``$name``."""
        words = set()
        for block in _everything(self.top):
            if _DEFINES.fullmatch(block.name):
                words |= {word.lower() for word in block.args if word.startswith("$")}
            words |= {
                f"${name.lower()}"
                for word in (block.name, *block.args)
                if "(?" in word
                for name in _GROUP.findall(word)
            }
        return words

    def locations(self, within: Block) -> Locations:
        found = self._locations.get(id(within))
        if found is None:
            found = self._locations[id(within)] = Locations(within)
        return found

    def listener(self, address: str) -> Socket | None:
        """The servers of http {} that answer on ``address``, ``host:port`` in its one spelling or ``unix:/path``."""
        return self.sockets.get(address) or self.sockets.get(self._everywhere(address))

    def stream_listener(self, address: str) -> Block | None:
        return self.stream_sockets.get(address) or self.stream_sockets.get(self._everywhere(address))

    @staticmethod
    def _everywhere(address: str) -> str:
        host, _, port = address.rpartition(":")
        return {"127.0.0.1": f"*:{port}", "[::1]": f"[::]:{port}"}.get(host, "")


def _everything(block: Block) -> Iterator[Block]:
    for child in block.children:
        yield child
        yield from _everything(child)
