"""Whether WebSockets get through a configuration to the gateway: the findings that break, and what only browsers feel.

Judged are the servers that hand ``server.path`` to the gateway. Others, their ports and their streams are left alone,
unless they take a name that the gateway is meant to be asked by (``server.hosts``) and do not hand it on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import msgspec

from tidegate.config.endpoints import UNIX
from tidegate.nginx.arrival import Gateway
from tidegate.nginx.blocks import Block
from tidegate.nginx.finding import Finding, breaks, harden
from tidegate.nginx.model import Model, kind_of, names
from tidegate.nginx.passing import Member
from tidegate.nginx.routes import Answered
from tidegate.nginx.trips import Entry, Follower, Trip, entries

_OTHERS = ("localhost", "127.0.0.1", "[::1]")
_SHOWN = 3  # of places where nothing is passed on
_TRIES = 300  # of other paths
_FIREFOX = {"connection": "keep-alive, Upgrade"}


class Verdict(msgspec.Struct):
    """``ways`` are the trips that end at the gateway, as far as that is known; what hardens is looked for on them."""

    findings: list[Finding]
    ways: list[Trip]


Way: TypeAlias = tuple[Entry, Trip]


def judge(model: Model, gateway: Gateway) -> Verdict:
    follower = Follower(model, gateway)
    trips = _without_inner(
        [(entry, _trip(gateway, follower, entry, gateway.path)) for entry in entries(model, gateway)]
    )
    streams = _streams(model, follower, trips)
    ways = [way for way in trips if way[1].reached]
    path, findings = gateway.path, list[Finding]()
    if _may_be_elsewhere(ways) and (found := _elsewhere(gateway, follower, trips)):
        path, at = found
        text = f"clients reach the gateway as {path} here, not as {gateway.path}; let them ask for that"
        findings.append(harden("path", at, text, 90))
        others = [(entry, _trip(gateway, follower, entry, path)) for entry, _ in trips]
        ways = [way for way in others if way[1].reached]
    if not ways and not streams:
        unknown = [way for way in trips if way[1].reached is None]
        meant = [way for way in unknown if not any(finding.rule == "upgrade" for finding in way[1].findings)]
        ways = [way for way in unknown if way[1].works] or meant or unknown
        findings += _strangers(gateway, ways)
    if not ways and not streams:
        return Verdict([*_unserved(model, gateway, [trip for _, trip in trips])], [])
    findings += _names(gateway, trips, ways)
    for entry, trip in ways:
        if trip.works:
            findings += trip.findings
            findings += _browsers(gateway, follower, (entry, trip), path)
        if entry.listen.proxy_protocol and entry.listen.block is not None:
            text = "`proxy_protocol`: only what comes through a proxy that speaks it is understood; keep one in front"
            findings.append(harden("ingress", entry.listen.block, text, 95))
    for trip in streams:
        findings += trip.findings
    return Verdict(findings + _undefined(model, ways), [*(trip for _, trip in ways), *streams])


def _trip(gateway: Gateway, follower: Follower, entry: Entry, path: str) -> Trip:
    """A program's, or a page's where only those get in."""
    trip = follower.trip(entry, path)
    if trip.works or "http_origin" not in trip.asked:
        return trip
    page = _page_trip(gateway, follower, entry, path)
    if not page.works:
        return trip
    at = trip.end.at if isinstance(trip.end, Answered) else entry.server
    text = "programs, which send no Origin, get no WebSocket here, pages do; let a handshake without Origin pass"
    page.findings.append(harden("origin", at, text, 97))
    return page


def _page_trip(gateway: Gateway, follower: Follower, entry: Entry, path: str) -> Trip:
    """Of a page of the server itself, or of one of ``origins`` where only that gets in."""
    own = follower.trip(entry, path, origin=entry.origin)
    if own.works:
        return own
    others = (follower.trip(entry, path, origin=origin) for origin in gateway.config.origins)
    return next((page for page in others if page.works), own)


def _without_inner(trips: Sequence[Way]) -> list[Way]:
    """Without those that begin where another one goes through: clients do not come there."""
    inner = {id(hop) for _, trip in trips for hop in trip.hops[1:] if hop is not trip.hops[0]}
    return [(entry, trip) for entry, trip in trips if not trip.hops or id(trip.hops[0]) not in inner]


def _streams(model: Model, follower: Follower, trips: Sequence[Way]) -> list[Trip]:
    """Those that begin in stream {} and end at the gateway. What http {} passes on to stream {} begins there."""
    behind = {id(hop) for _, trip in trips for hop in trip.hops}
    servers = {id(server): server for key, server in model.stream_sockets.items() if not key.startswith(UNIX)}
    found = [follower.stream_trip(server) for number, server in servers.items() if number not in behind]
    return [trip for trip in found if trip.reached]


def _may_be_elsewhere(ways: Sequence[Way]) -> bool:
    """Whether the gateway's own path leads nowhere, or to it by another name."""
    return not any(trip.works for _, trip in ways) and all(
        any(finding.rule == "uri" for finding in trip.findings) for _, trip in ways
    )


def _elsewhere(gateway: Gateway, follower: Follower, trips: Sequence[Way]) -> tuple[str, Block] | None:
    """Another path that nginx turns into the gateway's, and the location that does: it is the location's own path or,
    where the gateway's own path does not lead to that location, the gateway's below it."""
    taken = {id(hop) for _, trip in trips for hop in trip.hops}
    tried = 0
    for entry, _ in trips:
        for location, prefix in _locations(entry.server):
            paths = [prefix] if prefix.endswith("/") else [prefix, f"{prefix}/"]
            if id(location) not in taken:
                paths.append(prefix.rstrip("/") + gateway.path)
            for path in paths:
                tried += 1
                if tried > _TRIES:
                    return None
                trip = follower.trip(entry, path) if path != gateway.path else None
                if trip is not None and trip.reached and trip.works and location in trip.hops:
                    return path, location
    return None


def _locations(server: Block) -> Iterator[tuple[Block, str]]:
    """Those that pass something on, with what a path begins with that they take."""
    for location in server.everywhere("location"):
        kind, text = kind_of(location)
        begin = re.match(r"\^?(/[A-Za-z0-9_/-]*)", text) if kind.startswith("~") else re.match(r"(/.*)", text)
        if begin and any(location.everywhere("proxy_pass")):
            yield location, begin[1]


def _strangers(gateway: Gateway, ways: Sequence[tuple[Entry, Trip]]) -> Iterator[Finding]:
    for _, trip in ways:
        if isinstance(trip.end, Member):
            yield harden(
                "upstreams",
                trip.end.by,
                f"goes to {trip.end.address[:200]}, and edge.upstreams is {gateway.where()}: whether that is the "
                "gateway is not known; list it there",
                88,
            )


def _unserved(model: Model, gateway: Gateway, trips: Sequence[Trip]) -> Iterator[Finding]:
    """Why nothing goes to the gateway."""
    for trip in trips:
        if isinstance(trip.end, Member):
            text = f"goes to {trip.end.address}, and the gateway is at {gateway.where()} (edge.upstreams)"
            cure = "clients get 502, or somebody else's answer; make them the same"
            yield breaks("upstreams", trip.end.by, f"{text}: {cure}", 90)
            yield from trip.findings
            return
    ends = list(dict.fromkeys(trip.end for trip in trips if isinstance(trip.end, Answered)))
    text = f"{gateway.path} is not passed on to the gateway"
    if ends:
        text += f": nginx {ends[0].why}" + "".join(f"; at {end.at.where} it {end.why}" for end in ends[1:_SHOWN])
    cure = f"add a `location = {gateway.path}` with proxy_pass, or change server.path"
    if ends and all(_comes_first(end.at) for end in ends):
        cure = f"that comes before all locations: put it into a `location /`, and {cure}"
    yield breaks("path", ends[0].at if ends else model.top, f"{text}; {cure}", 95)


def _comes_first(at: Block) -> bool:
    """Whether it answers before nginx looks for a location."""
    return at.name in ("return", "rewrite") and all(block.name != "location" for block in at.around())


def _names(gateway: Gateway, trips: Sequence[Way], ways: Sequence[Way]) -> Iterator[Finding]:
    """What fails, by the names for which it does. Where a server is heard by one of its names and the gateway refuses
    others, those are to be listed; a name that the gateway is to be asked by must be passed on somewhere."""
    heard = {id(entry.server) for entry, trip in ways if trip.works}
    works = {entry.host for entry, trip in ways if trip.works}
    for entry, trip in ways:
        if trip.works:
            continue
        for finding in trip.findings:
            if finding.rule == "host" and id(entry.server) in heard:
                text = (
                    f"server.hosts does not list {entry.host}: who asks for that name gets 403; add it, or take it out"
                )
                yield harden("names", entry.server.one("server_name") or entry.server, text, 86)
            else:
                yield finding
    for entry, trip in trips:
        is_meant = entry.host in gateway.names and entry.host not in _OTHERS and entry.host in names(entry.server)
        if is_meant and entry.host not in works and isinstance(trip.end, Answered):
            works.add(entry.host)
            text = (
                f"{entry.host} is one of server.hosts, and {gateway.path} is not passed on there: nginx {trip.end.why}"
            )
            yield breaks("path", trip.end.at, f"{text}; add the location to this server, or take the name out", 60)


def _undefined(model: Model, ways: Sequence[Way]) -> list[Finding]:
    """What decides about an upgrade and is defined nowhere: nginx does not start. In a part it may be elsewhere."""
    found = []
    for block in {id(hop): hop for _, trip in ways for hop in trip.hops}.values():
        for header in block.effective("proxy_set_header"):
            name = header.arg(1).lower()
            if re.fullmatch(r"\$(connection_upgrade|proxy_connection)", name) and name not in model.defined:
                text = f"`{header.words}`: nothing defines {name}"
                cure = f"put `map $http_upgrade {name} {{ default upgrade; '' close; }}` into http {{}}"
                if model.is_part:
                    found.append(harden("variable", header, f"{text} in this part; {cure}, if it is not there", 92))
                else:
                    found.append(breaks("variable", header, f"{text}, so that nginx does not start; {cure}", 99))
    return found


def _browsers(gateway: Gateway, follower: Follower, way: Way, path: str) -> Iterator[Finding]:
    """What a page of the same host would meet, where a program gets in."""
    entry, trip = way
    origin = entry.origin
    if "http_origin" in trip.asked:
        page = _page_trip(gateway, follower, entry, path)
        if not page.works:
            at = page.end.at if isinstance(page.end, Answered) else (trip.hops or [entry.server])[0]
            yield harden("origin", at, f"pages of {origin} get no WebSocket, programs do; let their Origin pass", 98)
            return
    if "http_connection" in trip.asked:
        page = follower.trip(entry, path, **_FIREFOX)
        if not page.works:
            first = next(iter(page.findings), None)
            text = "a browser that says `Connection: keep-alive, Upgrade`, as Firefox does, gets no WebSocket; set "
            where = first.where if first else trip.hops[0].where
            yield Finding("harden", "upgrade", where, f'{text}`proxy_set_header Connection "upgrade"`', 97)
    if trip.host is not None and trip.hops and not gateway.takes_page(origin, trip.host):
        by = next((block for block in trip.hops[-1].effective("proxy_set_header") if _is_host(block)), None)
        yield harden(
            "host",
            by or trip.hops[-1],
            f"the gateway is asked as {trip.host[:100]}, so that pages of {origin} are foreign to it: browsers get "
            f"403, programs get in; set `proxy_set_header Host $http_host`, or list {origin} in origins",
            99,
        )


def _is_host(block: Block) -> bool:
    return block.arg(0).lower() == "host"
