"""What is to be mended although WebSockets get through: each rule is a generator of findings, by what holds at a place.

A place is where a trip to the gateway was passed on; its effective directives are those of the innermost block that has
any.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from tidegate.config.endpoints import is_named
from tidegate.config.settings import NEXT_HEADER, Config
from tidegate.nginx.arrival import Gateway
from tidegate.nginx.blocks import Block
from tidegate.nginx.finding import Finding, harden
from tidegate.nginx.model import Model
from tidegate.nginx.passing import canonical
from tidegate.nginx.trips import Trip
from tidegate.nginx.values import number, seconds, size

LINE_BYTES = 8192  # request lines that must pass: docs/protocol.md, Limits
INGRESS_TIMEOUT_S = 300
DEFAULT_NOFILE = 1024  # what most systems give a process that does not ask
_LOOKED_AT = 1000  # places; who has more will mend them in one
_CORES = 64  # more than a machine for an edge has

Rule: TypeAlias = Callable[[Block, Config], Iterator[Finding]]

_PLACES = ("location", "if", "limit_except")

# Variables of a log format that hold the query, or a header with a token.
_TELLTALE = re.compile(
    r"\$\{?(request|request_uri|args|query_string|arg_token|http_authorization|http_sec_websocket_protocol)\b"
)


def findings(model: Model, gateway: Gateway, ways: Sequence[Trip]) -> Iterator[Finding]:
    """``ways``: the trips that end at the gateway."""
    config = gateway.config
    if not model.is_part:
        yield from _workers(model.top, config, max((len(way.hops) for way in ways), default=1))
        yield from _shutdown(model.top, config)
    yield from _internal(model.top, gateway)
    seen: set[tuple[int, bool]] = set()
    for way in ways:
        for index, hop in enumerate(way.hops):
            if (id(hop), index == 0) in seen:
                continue
            if len(seen) >= _LOOKED_AT:
                continue
            seen.add((id(hop), index == 0))
            yield from _at(hop, config, is_first=index == 0)
    yield from _nodes(model, gateway, ways)


def _at(hop: Block, config: Config, *, is_first: bool) -> Iterator[Finding]:
    if hop.within("stream"):
        yield from _stream_timeout(hop, config)
        return
    rules = _CLIENT_RULES if is_first else ()
    if any(around.all("proxy_pass") for around in hop.around() if around.name in _PLACES):
        rules = (*rules, *_PROXY_RULES)
    for rule in rules:
        yield from rule(hop, config)


def _time(block: Block, name: str, default_s: float) -> tuple[float, Block]:
    """The seconds that hold at ``block``, and where that is said."""
    found = block.one(name)
    time_s = seconds(found.arg(0)) if found else None
    return (default_s if time_s is None else time_s), found or block


# Rules for the whole


def _workers(top: Block, config: Config, hops: int) -> Iterator[Finding]:
    processes = top.one("worker_processes")
    workers = (number(processes.arg(0)) if processes else 1) or None  # `auto`: the cores of a machine not known here
    found = next(top.everywhere("worker_connections"), None)
    connections = (number(found.arg(0)) if found else 512) or 512
    cost = 2 * hops  # a WebSocket has two connections of each server that it passes through
    wanted = config.limits.connections
    per_worker = connections // cost
    needed = -(-wanted * cost // connections)
    if workers is None and needed > _CORES:
        text = (
            f"{connections} connections are {per_worker} WebSockets of a worker, so that limits.connections ({wanted}) "
        )
        text += f"needs {needed} cores; set worker_connections to {-(-wanted * cost // 4)} or more, for 4"
        yield harden("worker_connections", found or top, text, 50)
    elif workers is not None and workers * connections // cost < wanted:
        yield harden(
            "worker_connections",
            found or top,
            f"{workers} x {connections} connections are {workers * connections // cost} WebSockets, of {cost} each, "
            f"and limits.connections is {wanted}; set worker_connections to {-(-wanted * cost // workers)} or more, or "
            "use more workers",
            50,
        )
    nofile = top.one("worker_rlimit_nofile")
    if ((number(nofile.arg(0)) if nofile else None) or DEFAULT_NOFILE) < connections:
        text = f"{connections} connections need as many open files; set worker_rlimit_nofile above that"
        yield harden("nofile", nofile or found or top, text, 48)


def _shutdown(top: Block, config: Config) -> Iterator[Finding]:
    found = top.one("worker_shutdown_timeout")
    cure = f"set worker_shutdown_timeout to {config.edge.shutdown_timeout_s}s"
    if found is None:
        text = "after a reload, old workers stay as long as their WebSockets do"
        yield harden("shutdown", top, f"{text}; {cure}", 55)
    elif (seconds(found.arg(0)) or 0) < config.server.drain_s:
        text = f"old workers cut their WebSockets before a drain of {config.server.drain_s} s (server.drain_s) ends"
        yield harden("shutdown", found, f"{text}; {cure}", 55)


def _internal(top: Block, gateway: Gateway) -> Iterator[Finding]:
    """The API on the internal port trusts whoever reaches it with a key, or without one."""
    port = f":{gateway.config.internal.port}"
    hosts = {address.rpartition(":")[0] for address in gateway.nodes} | {"127.0.0.1", "[::1]"}
    for block in [*top.everywhere("proxy_pass"), *_servers_of_upstreams(top)]:
        authority = re.sub(r"^https?://", "", block.arg(0)).partition("/")[0]
        address = canonical(authority, 80)
        if address.endswith(port) and address.removesuffix(port) in hosts:
            yield harden(
                "internal_port", block, "the internal port is never reached through an edge: take this out", 100
            )


def _servers_of_upstreams(top: Block) -> Iterator[Block]:
    for upstream in top.everywhere("upstream"):
        yield from upstream.all("server")


def _nodes(model: Model, gateway: Gateway, ways: Sequence[Trip]) -> Iterator[Finding]:
    """Nodes that no way ends at."""
    reached = frozenset[str]().union(*(way.nodes for way in ways))
    missing = [node for node in gateway.nodes if node not in reached]
    if reached and missing and any(way.nodes for way in ways):
        by = next((way.hops[-1] for way in ways if way.hops), model.top)
        text = f"nothing goes to {', '.join(missing)}, which edge.upstreams lists; make them the same"
        yield harden("upstreams", by, text, 69)


# Rules for where clients come in


def _ingress(at: Block, config: Config) -> Iterator[Finding]:
    found = at.one("set_real_ip_from")
    if found:
        yield harden(
            "ingress",
            found,
            f"a proxy stands in front: set its read and send timeouts to {INGRESS_TIMEOUT_S} s or more (ingress-nginx: "
            "nginx.ingress.kubernetes.io/proxy-read-timeout and proxy-send-timeout)",
            5,
        )


def _access(at: Block, config: Config) -> Iterator[Finding]:
    password, certificate = at.one("auth_basic"), at.one("ssl_verify_client")
    if password and password.args != ["off"] and "any" not in [block.arg(0) for block in at.effective("satisfy")]:
        text = (
            "`auth_basic`: who gives no password gets 401, and a page's WebSocket cannot give one by itself; use tokens"
        )
        yield harden("access", password, f"{text} (auth.mode)", 94)
    if certificate and certificate.args == ["on"]:
        yield harden("access", certificate, "`ssl_verify_client`: who has no certificate gets 400; use tokens", 93)


def _limits(at: Block, config: Config) -> Iterator[Finding]:
    for name, what in (("limit_conn", "connections"), ("limit_req", "handshakes per second")):
        if not at.effective(name):
            yield harden("limits", at, f"no {name}: one address may have any number of {what}; add one", 60)


def _client_side(at: Block, config: Config) -> Iterator[Finding]:
    time_s, found = _time(at, "send_timeout", 60)
    if time_s < config.heartbeat.write_timeout_s:
        yield harden("send_timeout", found, _cuts_first("send_timeout", time_s, config), 45)
    time_s, found = _time(at, "client_header_timeout", 60)
    if time_s > config.server.header_timeout_s:
        yield harden(
            "header_timeout",
            found,
            f"client_header_timeout is {time_s:g} s, and server.header_timeout_s {config.server.header_timeout_s}: "
            "slow headers hold connections for longer than the service would; lower it",
            30,
        )
    body = at.one("client_max_body_size")
    bytes_taken = size(body.arg(0)) if body else 1024**2
    if bytes_taken is not None and (bytes_taken == 0 or bytes_taken > config.edge.body_bytes):
        text = f"a handshake has no body; set client_max_body_size to {config.edge.body_bytes}"
        yield harden("body_size", body or at, text, 20)
    buffers = at.one("large_client_header_buffers")
    if ((size(buffers.arg(1)) if buffers else None) or 8192) <= LINE_BYTES:
        yield harden(
            "header_size",
            buffers or at,
            f"a request line of {LINE_BYTES} bytes (a cursor, a token) gets 414; set large_client_header_buffers to "
            f"4 {config.edge.header_bytes}",
            40,
        )


def _log(at: Block, config: Config) -> Iterator[Finding]:
    formats = {block.arg(0): block for http in at.around() for block in http.all("log_format")}
    logs = at.effective("access_log")
    if not logs:
        text = "the default access log holds queries, and so tokens; set an access_log without them"
        yield harden("log", at, text, 80)
    for found in logs:
        if found.arg(0) == "off":
            continue
        name = found.arg(1) if found.arg(1) and "=" not in found.arg(1) else "combined"
        text = " ".join(formats[name].args[1:]) if name in formats else "$request" if name == "combined" else ""
        if telltale := _TELLTALE.search(text):
            yield harden("log", found, f"{telltale[0]} may hold a token; log $uri instead", 80)


def _tls(at: Block, config: Config) -> Iterator[Finding]:
    found = at.one("ssl_protocols")
    if found and (old := {"SSLv2", "SSLv3", "TLSv1", "TLSv1.1"} & set(found.args)):
        text = f"{', '.join(sorted(old))} is broken; set ssl_protocols to TLSv1.2 TLSv1.3"
        yield harden("tls", found, text, 75)


# Rules for where nginx passes on


def _read_timeout(at: Block, config: Config) -> Iterator[Finding]:
    yield from _short("proxy_read_timeout", *_time(at, "proxy_read_timeout", 60), config)


def _stream_timeout(server: Block, config: Config) -> Iterator[Finding]:
    yield from _short("proxy_timeout", *_time(server, "proxy_timeout", 600), config)


def _short(name: str, time_s: float, found: Block, config: Config) -> Iterator[Finding]:
    heartbeat = config.heartbeat
    if heartbeat.websocket_ping_interval < time_s <= heartbeat.websocket_ping_timeout:
        text = f"{name} is {time_s:g} s: the edge cuts a silent peer before the service closes it, after "
        text += f"{heartbeat.websocket_ping_timeout} s; set it to {config.edge.read_timeout_s}s"
        yield harden("read_timeout", found, text, 65)


def _cuts_first(name: str, time_s: float, config: Config) -> str:
    return (
        f"{name} is {time_s:g} s: the edge cuts a slow peer before the service does, after "
        f"{config.heartbeat.write_timeout_s} s (heartbeat.write_timeout_s); set it to {config.edge.send_timeout_s}s"
    )


def _send_timeout(at: Block, config: Config) -> Iterator[Finding]:
    time_s, found = _time(at, "proxy_send_timeout", 60)
    if time_s < config.heartbeat.write_timeout_s:
        yield harden("send_timeout", found, _cuts_first("proxy_send_timeout", time_s, config), 45)


def _origin(at: Block, config: Config) -> Iterator[Finding]:
    for found in at.effective("proxy_set_header"):
        if found.arg(0).lower() == "origin" and found.arg(1) != "$http_origin":
            text = "the service checks Origin against foreign pages, and sees another one, or none; leave it as it is"
            yield harden("origin", found, text, 96)


def _next_upstream(at: Block, config: Config) -> Iterator[Finding]:
    edge = config.edge
    if len(edge.upstreams) < 2 and (edge.resolver is None or not is_named(edge.upstreams[0])):
        return
    found = at.one("proxy_next_upstream")
    headers = {block.arg(0).lower() for block in at.effective("proxy_set_header")}
    passed_on = "http_404" if NEXT_HEADER.lower() in headers else "http_503"  # render_nodes has the first
    if found is None or passed_on not in found.args:
        text = "a draining node's 503 reaches clients; set proxy_next_upstream error timeout http_503"
        yield harden("next_upstream", found or at, text, 52)


_CLIENT_RULES: tuple[Rule, ...] = (_ingress, _access, _limits, _client_side, _log, _tls)
_PROXY_RULES: tuple[Rule, ...] = (_read_timeout, _send_timeout, _origin, _next_upstream)
