"""A client's handshake from where nginx listens to where it ends: at the gateway, elsewhere, or in nginx itself.

A trip has a hop for each server that passes it on, of http {} and of stream {}. Each name of a server, on each port, is
an *entry*; the first trip of an entry is a program's, which sends no Origin. Browsers are asked for where that matters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from tidegate.config.endpoints import UNIX
from tidegate.nginx.arrival import QUERY, Gateway, refusals, upgrade
from tidegate.nginx.blocks import Block
from tidegate.nginx.finding import Finding, breaks, harden
from tidegate.nginx.model import Listen, Model, Socket, names
from tidegate.nginx.passing import Member, Passed, members, needs_resolver, passed, stream_members
from tidegate.nginx.request import Request
from tidegate.nginx.routes import Answered, Outcome, Proxied, Scripted, walk
from tidegate.nginx.values import seconds

_HOPS = 5
_VISITS = 200  # of one trip, to servers of this nginx
# What browsers send. Firefox keeps the connection alive, in words.
_HANDSHAKE = {
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": "x3JJHMbDL1EzLkh9GBhXDw==",
    "sec-websocket-version": "13",
}


class Trip(msgspec.Struct):
    """``reached``: whether its end is the gateway; None: it is passed on to somebody who may be it. ``hops``: what
    holds where it was passed on, the client's first."""

    reached: bool | None
    findings: list[Finding]
    hops: list[Block]
    end: Answered | Member | None = None
    host: str | None = None  # as the gateway is asked
    asked: frozenset[str] = frozenset()  # the variables that mattered
    nodes: frozenset[str] = frozenset()  # the gateway's addresses that it may end at

    @property
    def works(self) -> bool:
        return self.reached is not False and all(finding.level != "breaks" for finding in self.findings)


class Entry(msgspec.Struct, frozen=True):
    """A server on a port, and one of the names by which it is asked."""

    server: Block
    socket: Socket
    listen: Listen
    host: str

    def request(self, model: Model, target: str, **headers: str) -> Request:
        usual = self.listen.port in (0, 443 if self.socket.ssl else 80)
        host = self.host if usual else f"{self.host}:{self.listen.port}"
        return Request(
            model,
            self.socket,
            port=self.listen.port,
            ssl=self.socket.ssl,
            headers={"host": host, **_HANDSHAKE, **headers},
            target=f"{target}?{QUERY}",
        )

    @property
    def origin(self) -> str:
        """Of a page that this server itself might have."""
        scheme, usual = ("https", 443) if self.socket.ssl else ("http", 80)
        return f"{scheme}://{self.host}" + ("" if self.listen.port in (0, usual) else f":{self.listen.port}")


def entries(model: Model, gateway: Gateway) -> Iterator[Entry]:
    """Those by which clients come: the names of each server that it is heard by, or, where it has none, those that the
    gateway takes and no other server does. IPv4 and IPv6 are one."""
    seen: set[tuple[int, int, bool, str]] = set()
    for socket in model.sockets.values():
        takers = {name: socket.choose(name) for name in gateway.names}
        for listen, server in socket.listens:
            for host in _asked_as(socket, server, takers):
                key = (id(server), listen.port or id(socket), socket.ssl, host)
                if key not in seen:
                    seen.add(key)
                    yield Entry(server, socket, listen, host)


def _asked_as(socket: Socket, server: Block, takers: dict[str, Block]) -> Iterator[str]:
    own = [name for name in names(server) if re.fullmatch(r"[a-z0-9_-][a-z0-9_.-]*", name) and name != "_"]
    own = [name for name in own if not name.endswith(".") and socket.choose(name) is server]
    if own:
        yield from own
        return
    covered = [name for name, taker in takers.items() if taker is server]
    if covered:
        yield covered[0]
        return
    for name in names(server):  # *.example.com
        if re.fullmatch(r"\*?\.[a-z0-9.-]+", name) and socket.choose(host := f"any{name.removeprefix('*')}") is server:
            yield host
            return


class Follower:
    """Follows handshakes through one configuration."""

    def __init__(self, model: Model, gateway: Gateway) -> None:
        self._model = model
        self._gateway = gateway
        self._left = _VISITS

    def trip(self, entry: Entry, target: str, **headers: str) -> Trip:
        """``target``: the path that a client asks for, on the public side."""
        self._left = _VISITS
        trip = self._follow(entry.request(self._model, target, **headers), 0)
        old = None if entry.socket.ssl else entry.socket.http2
        if old is not None and old.block is not None and trip.reached is not False:
            trip.findings.append(_no_http1(old.block))
        return trip

    def stream_trip(self, server: Block) -> Trip:
        """From a server of stream {} on. What is behind it in http {} is judged there."""
        self._left = _VISITS
        return self._follow_stream(server, None, 0)

    def _follow(self, request: Request, depth: int) -> Trip:
        first, outcome = walk(request.again)
        trip = self._onward(first, outcome, depth)
        if trip.reached is False and isinstance(outcome, Proxied) and outcome.at.effective("error_page"):
            second, outcome = walk(request.again, outcome.target)  # which may be dead: then error_page has its turn
            fallback = self._onward(second, outcome, depth)
            return fallback if fallback.reached else trip
        return trip

    def _onward(self, request: Request, outcome: Outcome, depth: int) -> Trip:
        if isinstance(outcome, Answered):
            return Trip(False, [], [], end=outcome, asked=frozenset(request.asked))
        if isinstance(outcome, Scripted):
            return Trip(True, [], [outcome.at], asked=frozenset(request.asked))
        one = passed(request, outcome)
        asked = frozenset(request.asked)
        findings = [*self._timeout(one.at, "proxy_read_timeout", 60, one.by)]
        if request.error_status is not None and request.error_page is not None:
            findings.append(_status(request.error_page, request.error_status))
        if needs_resolver(self._model, one):
            text = f"{one.authority} is looked up for each request, as `proxy_pass` has a variable, and there is no "
            findings.append(breaks("resolver", one.by, f"{text}`resolver`: clients get 502; set one", 77))
        trip = self._beyond(one, depth)
        trip.findings = findings + trip.findings
        trip.hops.insert(0, one.at)
        trip.asked = trip.asked | asked
        return trip

    def _beyond(self, one: Passed, depth: int) -> Trip:
        """From the upstreams of ``one`` on: the best of what they come to."""
        found = [(member, self._at(one, member, depth)) for member in members(self._model, one)]
        if not found:
            if one.authority is None:  # known to a running nginx only, and nobody upgrades who is not asked to
                return Trip(None, [*upgrade(one, is_last=True)], [])
            text = "every `server` of this upstream is down: clients get 502; bring one up"
            return Trip(None, [breaks("upstreams", one.by, text, 76)], [])
        order = {True: 0, None: 1, False: 2}
        _, best = min(found, key=lambda each: (not each[1].works, order[each[1].reached]))
        best.nodes = frozenset[str]().union(*(trip.nodes for _, trip in found))
        strangers = [other for other, trip in found if trip.reached is not True and best.reached is True]
        if strangers and best.works:
            best.findings.append(
                harden(
                    "upstreams",
                    strangers[0].by,
                    f"{strangers[0].address} is none of edge.upstreams ({self._gateway.where()}): handshakes may end "
                    "there; take it out, or list it there",
                    70,
                )
            )
        return best

    def _at(self, one: Passed, member: Member, depth: int) -> Trip:
        reached = self._gateway.is_at(member.address)
        if reached is not True and self._may_go_on(depth):
            if (socket := self._model.listener(member.address)) is not None:
                return self._into_http(socket, member, one, depth)
            if (server := self._model.stream_listener(member.address)) is not None:
                return self._follow_stream(server, one, depth + 1)
        return self._arrived(member, one, reached)

    def _may_go_on(self, depth: int) -> bool:
        """Servers may pass on to each other, and to many each."""
        self._left -= 1
        return depth < _HOPS and self._left > 0

    def _arrived(self, member: Member, one: Passed | None, reached: bool | None) -> Trip:
        nodes = frozenset([member.address] if reached else [])
        if one is None:
            return Trip(reached, [], [], end=member, nodes=nodes)
        findings = [*upgrade(one, is_last=True), *refusals(self._gateway, one, member)]
        return Trip(reached, findings, [], end=member, host=one.headers.get("host"), nodes=nodes)

    def _follow_stream(self, server: Block, one: Passed | None, depth: int) -> Trip:
        found: list[Trip] = []
        for member in stream_members(self._model, server):
            reached = self._gateway.is_at(member.address)
            if reached is not True and self._may_go_on(depth):
                if (inner := self._model.stream_listener(member.address)) is not None and inner is not server:
                    found.append(self._follow_stream(inner, one, depth + 1))
                    continue
                if (socket := self._model.listener(member.address)) is not None:
                    found.append(self._into_http(socket, member, one, depth))
                    continue
            found.append(self._arrived(member, one, reached))
        if not found:
            return Trip(None, [], [server])
        order = {True: 0, None: 1, False: 2}
        best = min(found, key=lambda trip: (order[trip.reached], not trip.works))
        best.nodes = frozenset[str]().union(*(trip.nodes for trip in found))
        if best.reached:
            best.findings = [*self._stream_faults(server), *best.findings]
        best.hops.insert(0, server)
        return best

    def _into_http(self, socket: Socket, member: Member, one: Passed | None, depth: int) -> Trip:
        port = 0 if member.address.startswith(UNIX) else int(member.address.rpartition(":")[2])
        if one is None:  # what clients ask for there is judged as an entry of its own
            listen, server = socket.listens[0]
            host = next(_asked_as(socket, server, {}), self._gateway.names[0])
            entry = Entry(server, socket, listen, host)
            trip = self._follow(entry.request(self._model, self._gateway.path), depth + 1)
            trip.findings = []
            return trip
        headers = {name: value for name, value in one.headers.items() if value}
        onward = Request(
            self._model, socket, port=port, ssl=socket.ssl, headers=headers, target=one.target or self._gateway.path
        )
        trip = self._follow(onward, depth + 1)
        if trip.reached is not False:
            trip.findings = [*upgrade(one, is_last=False), *trip.findings]
        return trip

    def _stream_faults(self, server: Block) -> Iterator[Finding]:
        yield from self._timeout(server, "proxy_timeout", 600, server)
        for name, what in (("proxy_protocol", "a line before the handshake"), ("proxy_ssl", "TLS")):
            found = server.one(name)
            if found is not None and found.args == ["on"]:
                yield breaks(
                    name, found, f"`{name}` gives the gateway {what}, which it does not understand; take it out", 75
                )

    def _timeout(self, at: Block, name: str, default_s: float, by: Block) -> Iterator[Finding]:
        found = at.one(name)
        time_s = default_s if found is None else seconds(found.arg(0))
        interval_s = self._gateway.config.heartbeat.websocket_ping_interval
        if time_s is not None and time_s <= interval_s:
            yield breaks(
                "read_timeout",
                found or by,
                f"`{name}` is {time_s:g} s, and the gateway pings every "
                f"{interval_s:g} s (heartbeat.websocket_ping_interval): quiet connections are cut; set it to "
                f"{self._gateway.config.edge.read_timeout_s}s",
                72,
            )


def _status(page: Block, status: int) -> Finding:
    return breaks(
        "error_page",
        page,
        f"the answer that goes this way has the status {status}, and an upgrade is 101; write `error_page … = …`, with "
        "an equals sign, which takes the answer's own",
        71,
    )


def _no_http1(listen: Block) -> Finding:
    return breaks(
        "http2",
        listen,
        "`listen … http2` without ssl speaks nothing but HTTP/2 in nginx before 1.25.1, and a handshake is HTTP/1.1; "
        "take http2 out",
        73,
    )
