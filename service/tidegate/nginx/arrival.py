"""What the gateway would say to a handshake as nginx passes it on: its own rules for Host, path, upgrade and Origin."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tidegate.auth.hosts import Hosts, split_host
from tidegate.auth.origins import Origins
from tidegate.config.endpoints import UNIX
from tidegate.config.settings import Config
from tidegate.core.errors import Refused
from tidegate.nginx.finding import Finding, breaks, harden
from tidegate.nginx.passing import Member, Passed, canonical
from tidegate.process.addresses import bracketed, names

QUERY = "client=check&token=check"  # what handshakes here ask with; both must arrive
_OURS = re.compile(r"(127\.|\[::1\])")


class Gateway:
    """The service as its settings describe it: where it is, and what it lets in."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.path = config.server.path
        self.names = [split_host(name)[0] for name in names(config.server.hosts, config.server.address)]
        self._hosts = Hosts(self.names)
        self._origins = Origins(config.origins, config.internal.cors_origins)
        address, port = config.server.address, config.server.port
        self._is_anywhere = address in ("0.0.0.0", "::")
        self._port = port
        own = [canonical(f"{bracketed(address)}:{port}", 80)]
        own += [f"{UNIX}{config.server.socket}"] if config.server.socket else []
        self.nodes = [canonical(upstream, 80) for upstream in config.edge.upstreams]
        self._addresses = {*own, *self.nodes}

    def is_at(self, address: str) -> bool | None:
        """Whether the gateway is at ``address``. None: that is not known, as with any name but localhost."""
        if address in self._addresses:
            return True
        if address.startswith(UNIX):
            return False
        host, _, port = address.rpartition(":")
        if not _OURS.match(host):
            return None
        if self._port == 0 or (self._is_anywhere and port == str(self._port)):
            return None if self._port == 0 else True
        return False

    def takes(self, host: str) -> bool:
        try:
            self._hosts.check(host)
        except Refused:
            return False
        return True

    def takes_page(self, origin: str, host: str | None) -> bool:
        try:
            self._origins.check(origin, host)
        except Refused:
            return False
        return True

    def where(self) -> str:
        return ", ".join(sorted({*self.config.edge.upstreams}))


def refusals(gateway: Gateway, one: Passed, member: Member) -> Iterator[Finding]:
    """Why no client at all gets in by ``one``. That of the upgrade itself is ``upgrade``'s."""
    if one.scheme == "https" and gateway.is_at(member.address):
        yield breaks(
            "scheme",
            one.by,
            "`proxy_pass https://` speaks TLS to the gateway, which speaks plain HTTP: clients get 502; make it http://",
            75,
        )
    yield from _host(gateway, one)
    path, _, query = (one.target or "").partition("?")
    if one.target is not None and path != gateway.path:
        yield breaks(
            "uri",
            one.by,
            f"the gateway is asked for {path[:200]} and knows {gateway.path} only (server.path): clients get 404; let "
            "`proxy_pass` have no path behind the address, and no `rewrite` before it, or set server.path",
            70,
        )
    if one.target is not None and not set(QUERY.split("&")) <= set(query.split("&")):
        text = "the query does not reach the gateway"
        cure = "put `$is_args$args` behind the path, or leave the path out of `proxy_pass`"
        if gateway.config.auth.mode == "none":
            yield breaks("query", one.by, f"{text}, which asks for client=…: clients get 400; {cure}", 65)
        else:
            yield harden("query", one.by, f"{text}: no token, groups or cursor in it counts; {cure}", 85)
    if one.method != "GET":
        yield breaks("method", one.at.one("proxy_method") or one.at, "`proxy_method` makes it no GET: 405; take it out")
    if body := one.at.one("proxy_set_body"):
        yield breaks("body", body, "`proxy_set_body` gives the handshake a body: clients get 400; take it out")
    for name in ("sec-websocket-key", "sec-websocket-version"):
        if one.headers.get(name, "") == "":
            at = one.set_by.get(name) or one.at.one("proxy_pass_request_headers") or one.at
            yield breaks("upgrade", at, f"the client's {name} does not reach the gateway: 400 or 426; let it pass")
    origin = one.headers.get("origin")
    if "origin" in one.set_by and origin and not gateway.takes_page(origin, one.headers.get("host")):
        yield breaks(
            "origin",
            one.set_by["origin"],
            f"`proxy_set_header Origin` says {origin[:100]} of every page and program, which the gateway refuses: 403; "
            "take it out",
            60,
        )


def _host(gateway: Gateway, one: Passed) -> Iterator[Finding]:
    host = one.headers.get("host")
    if host is None or gateway.takes(host):
        return
    name = re.sub(r":[0-9]*\Z", "", host)
    if "host" not in one.set_by:
        yield breaks(
            "host",
            one.by,
            f"without `proxy_set_header Host` the gateway is asked as {host[:100] or 'nobody'}, which server.hosts "
            "does not list: clients get 403; set `proxy_set_header Host $http_host`",
            74,
        )
    else:
        yield breaks(
            "host",
            one.set_by["host"],
            f"the gateway is asked as {name[:100] or 'nobody'}, which server.hosts does not list "
            f"({', '.join(gateway.config.server.hosts)}): clients get 403; add it there, or, where it is not what "
            "clients ask for, set `proxy_set_header Host $http_host`",
            74,
        )


def upgrade(one: Passed, *, is_last: bool) -> Iterator[Finding]:
    """Why no upgrade passes this hop. The gateway wants Connection, too; nginx in between does not look at it."""
    if one.version != "1.1":
        yield breaks(
            "upgrade",
            one.at.one("proxy_http_version") or one.by,
            "an upgrade needs HTTP/1.1, and nginx before 1.29.7 asks upstreams in 1.0 unless it is told otherwise: "
            "clients get 426; set `proxy_http_version 1.1`",
            80,
        )
    if (value := one.headers.get("upgrade", "")) is not None and "websocket" not in _words(value):
        yield breaks(
            "upgrade",
            one.set_by.get("upgrade") or one.by,
            f"the upgrade is not passed on (Upgrade is {value[:60] or 'not sent'}): clients get 426; set "
            "`proxy_set_header Upgrade $http_upgrade` where `proxy_pass` is",
            79,
        )
    value = one.headers.get("connection", "")
    if is_last and value is not None and "upgrade" not in _words(value):
        by = one.set_by.get("connection")
        yield breaks(
            "upgrade",
            by or one.by,
            f"Connection is {value[:60] or 'not sent'}{f', by `{by.arg(1)}`' if by and '$' in by.arg(1) else ''}, and "
            'must be upgrade: clients get 426; set `proxy_set_header Connection "upgrade"`',
            78,
        )
    for block in one.at.effective("proxy_hide_header"):
        if block.arg(0).lower() in ("upgrade", "sec-websocket-accept"):
            yield breaks("upgrade", block, "clients do not see that the upgrade was agreed to; take it out")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.lower().split(",")]
