"""A request on its way through nginx, and the values that variables have for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import ClassVar

from tidegate.nginx.blocks import Block
from tidegate.nginx.model import Model, Socket
from tidegate.nginx.values import regex

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z0-9_]+)\}|([A-Za-z0-9_]+))")
_MAP_OPTIONS = ("hostnames", "volatile")
_DEPTH = 20  # of maps that ask others
# What somebody in front may add, or a client: not known here.
_FROM_ELSEWHERE = re.compile(
    r"http_(x_.*|cf_.*|forwarded|true_client_ip|via|user_agent|accept.*|cookie|authorization|sec_websocket_protocol)"
)
_EMPTY = ("content_length", "content_type", "remote_user", "limit_rate", "proxy_protocol_addr")


@lru_cache(maxsize=16384)
def _parts(text: str) -> tuple[str, ...]:
    """Literal, name, literal, name, …, literal; names in lower case, as nginx takes them."""
    parts = _VARIABLE.split(text)
    pieces = [parts[0]]
    for index in range(1, len(parts), 3):
        pieces += [(parts[index] or parts[index + 1]).lower(), parts[index + 2]]
    return tuple(pieces)


class Request:
    """``headers`` by names in lower case. ``internal``: whether nginx itself asks for ``uri`` by now."""

    def __init__(
        self,
        model: Model,
        socket: Socket,
        *,
        port: int,
        ssl: bool,
        headers: dict[str, str],
        target: str,
        method: str = "GET",
    ) -> None:
        self.model = model
        self.socket = socket
        self.port = port
        self.ssl = ssl
        self.headers = headers
        self.target = target  # as the client wrote it
        self.method = method
        path, _, self.args = target.partition("?")
        self.uri = path
        self.host = re.sub(r":[0-9]*\Z", "", headers.get("host", "")).lower()
        self.server: Block = socket.choose(self.host)
        self.at = self.server  # whose settings hold
        self.is_untouched = True  # whether ``target`` may be passed on as it is
        self.is_at_location = True  # whether ``uri`` begins with the location's own prefix
        self.internal = False
        self.is_inner = False  # a subrequest
        self.error_status: int | None = None  # what the client hears, whatever the answer says
        self.error_pages = 0
        self.error_page: Block | None = None
        self.captures: dict[str, str] = {}
        self.variables: dict[str, str | None] = {}
        self.asked: set[str] = set()

    def again(self, target: str | None = None) -> Request:
        """As it came."""
        return Request(
            self.model,
            self.socket,
            port=self.port,
            ssl=self.ssl,
            headers=self.headers,
            target=self.target if target is None else target,
            method=self.method,
        )

    def within(self, target: str) -> Request:
        """A subrequest of it."""
        request = self.again(target)
        request.internal = request.is_inner = True
        return request

    def value(self, text: str, depth: int = 0) -> str | None:
        """With its variables filled in; None where one of them is not known here."""
        if "$" not in text:
            return text
        parts = _parts(text)
        values = []
        for index, part in enumerate(parts):
            if index % 2 == 0:
                values.append(part)
                continue
            value = self._variable(part, depth)
            if value is None:
                return None
            values.append(value)
        return "".join(values)

    def matches(self, pattern: str, text: str, *, ignore_case: bool = False) -> bool | None:
        """Whether ``pattern`` is found in ``text``, whose groups are variables from then on. None: it is not
        understood."""
        compiled = regex(pattern, ignore_case=ignore_case)
        if compiled is None:
            return None
        found = compiled.search(text)
        if found is None:
            return False
        self.captures = {str(number): found[number] or "" for number in range(len(found.groups()) + 1)}
        self.variables |= {name.lower(): value or "" for name, value in found.groupdict().items()}
        return True

    def _variable(self, name: str, depth: int) -> str | None:
        self.asked.add(name)
        if name.isdigit():
            return self.captures.get(name, "")
        if name in self.variables:
            return self.variables[name]
        if (block := self.model.maps.get(f"${name}")) is not None:
            return self._mapped(block, depth + 1) if depth < _DEPTH else None
        if name in self._simple:
            simple = self._simple[name]
            return simple(self)
        if name.startswith("http_"):
            header = name.removeprefix("http_").replace("_", "-")
            if header in self.headers:
                return self.headers[header]
            return None if _FROM_ELSEWHERE.fullmatch(name) else ""
        if name.startswith("arg_"):
            found = re.search(rf"(?:^|&){re.escape(name[4:])}=([^&]*)", self.args, re.IGNORECASE)
            return found[1] if found else ""
        return "" if name in _EMPTY else None

    def _mapped(self, block: Block, depth: int) -> str | None:
        """What a ``map`` gives: an exact word comes before expressions, and those before the default."""
        source = self.value(block.arg(0), depth)
        if source is None:
            values = {child.arg(0) for child in block.children if child.name not in _MAP_OPTIONS}
            return self.value(values.pop(), depth) if len(values) == 1 else None
        folded = source.lower()
        default = ""
        patterns = []
        for child in block.children:
            if child.name == "default":
                default = child.arg(0)
            elif child.name.startswith("~"):
                patterns.append(child)
            elif child.name.removeprefix("\\").lower() == folded and child.name not in _MAP_OPTIONS:
                return self.value(child.arg(0), depth)
        for child in patterns:
            ignore_case = child.name.startswith("~*")
            if self.matches(child.name[2 if ignore_case else 1 :], source, ignore_case=ignore_case):
                return self.value(child.arg(0), depth)
        if any(child.name == "hostnames" for child in block.children):
            for child in block.children:
                suffix = child.name.removeprefix("*").lower()
                if suffix.startswith(".") and (folded.endswith(suffix) or folded == child.name[1:].lower()):
                    return self.value(child.arg(0), depth)
        return self.value(default, depth)

    def _invalid_referer(self) -> str:
        """A WebSocket's handshake has no Referer."""
        allowed = [word for block in self.at.effective("valid_referers") for word in block.args]
        return "" if not allowed or "none" in allowed else "1"

    _simple: ClassVar[dict[str, Callable[[Request], str]]] = {
        "host": lambda self: self.host or (self.server.one("server_name") or self.server).arg(0),
        "uri": lambda self: self.uri,
        "document_uri": lambda self: self.uri,
        "request_uri": lambda self: self.target,
        "args": lambda self: self.args,
        "query_string": lambda self: self.args,
        "is_args": lambda self: "?" if self.args else "",
        "request_method": lambda self: self.method,
        "scheme": lambda self: "https" if self.ssl else "http",
        "https": lambda self: "on" if self.ssl else "",
        "server_port": lambda self: str(self.port),
        "server_protocol": lambda self: "HTTP/1.1",
        "server_name": lambda self: (self.server.one("server_name") or self.server).arg(0),
        "request_filename": lambda self: f"/nowhere{self.uri}",
        "invalid_referer": _invalid_referer,
    }
