"""Reads an nginx configuration and names what does not go together with the gateway's settings.

It may be anybody's configuration, not only ours: a file with its includes, or what ``nginx -T`` printed of a live
server. Each rule is a generator of findings over the effective directives of a place, which are those of the innermost
block that has any. ``nginx_files`` reads them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeAlias

import msgspec

from tidegate.config.endpoints import UNIX, is_named
from tidegate.config.settings import NEXT_HEADER, Config
from tidegate.nginx import files as nginx_files
from tidegate.nginx.files import Block

LINE_BYTES = 8192  # request lines that must pass: docs/protocol.md, Limits
INGRESS_TIMEOUT_S = 300
DEFAULT_NOFILE = 1024  # what most systems give a process that does not ask

Rule: TypeAlias = Callable[[Block, Config], Iterator["Finding"]]

_TIME_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "M": 2_592_000, "y": 31_536_000}
_SIZE = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
# Variables of a log format that hold the query, or a header with a token.
_TELLTALE = re.compile(
    r"\$\{?(request|request_uri|args|query_string|arg_token|http_authorization|http_sec_websocket_protocol)\b"
)


class Finding(msgspec.Struct, frozen=True):
    """``error``: it will go wrong. ``advice``: it may, or another place must be looked at."""

    level: Literal["error", "advice"]
    rule: str
    where: str  # file:line, or the file where a directive is missing
    message: str

    def __str__(self) -> str:
        return f"{self.level}: {self.where}: {self.rule}: {self.message}"


def check_file(path: str, config: Config) -> list[Finding]:
    """What is wrong with the configuration whose top is ``path``. Raises NginxError."""
    return check(nginx_files.read(path), config)


def check_dump(text: str, config: Config) -> list[Finding]:
    """The same for what ``nginx -T`` printed. Raises NginxError."""
    return check(nginx_files.read_dump(text), config)


def check(top: Block, config: Config) -> list[Finding]:
    findings = [finding for rule in _TOP_RULES for finding in _apply(rule, top, config)]
    locations = list(_websockets(top, config.server.path))
    if not locations:
        findings.append(_error("path", top, f"no location serves {config.server.path}; add one, or change server.path"))
    for location in locations:
        rules = () if _is_behind(location) else _LOCATION_RULES
        rules += _PROXY_RULES if location.all("proxy_pass") else ()
        findings += [finding for rule in rules for finding in _apply(rule, location, config)]
    return sorted(set(findings), key=lambda finding: (finding.level != "error", finding.where, finding.rule))


def _apply(rule: Rule, at: Block, config: Config) -> list[Finding]:
    try:
        return list(rule(at, config))
    except (ValueError, IndexError, RecursionError):  # nginx would not start with this: `nginx -t` says why
        return [_error("syntax", at, f"not understood, while {rule.__name__.strip('_')} was looked at; try nginx -t")]


def _websockets(top: Block, path: str) -> Iterator[Block]:
    """The location of each server that takes requests for ``path``, where it relays them."""
    for server in top.everywhere("server"):
        if not server.within("http"):
            continue
        locations = [block for block in server.all("location") if block.args]
        exact = [block for block in locations if block.args == ["=", path]]
        prefixes = [
            block for block in locations if block.args[0] not in ("=", "~", "~*") and path.startswith(block.args[-1])
        ]
        prefixes.sort(key=lambda block: len(block.args[-1]))
        for location in (exact or prefixes)[-1:]:
            if any(
                child.name == "proxy_pass" or child.name.startswith("content_by_lua") for child in location.children
            ):
                yield location


def _is_behind(location: Block) -> bool:
    """Whether it stands behind a filter of stream{}: what clients may do has been settled in front."""
    server = location.parent
    while server is not None and server.name != "server":
        server = server.parent
    return server is not None and any(server is found for found in _behind_filters(location.top))


def _behind_filters(top: Block) -> Iterator[Block]:
    """The servers of http{} that servers of stream{} proxy to, over a Unix socket."""
    for target in top.everywhere("proxy_pass"):
        if target.args and target.within("stream") and (server := _listening(top, target.args[0], "http")):
            yield server


def _listening(top: Block, address: str, context: str) -> Block | None:
    """The server that listens on ``address``, if that is a Unix socket."""
    for server in top.everywhere("server") if address.startswith(UNIX) else ():
        if server.within(context) and any(listen.args[:1] == [address] for listen in server.all("listen")):
            return server
    return None


def _error(rule: str, at: Block, message: str) -> Finding:
    return Finding("error", rule, at.where, message)


def _advice(rule: str, at: Block, message: str) -> Finding:
    return Finding("advice", rule, at.where, message)


# Values


def seconds(text: str) -> float:
    """What nginx means by a time: 90, 90s, 1m30s, 500ms."""
    parts = re.findall(r"(\d+)(ms|[smhdwMy]?)", text)
    return float(sum(int(number) * _TIME_S[unit or "s"] for number, unit in parts))


def size(text: str) -> int:
    """What nginx means by a size: 1024, 8k, 1m."""
    found = re.fullmatch(r"(\d+)([kmg]?)", text.lower())
    return int(found[1]) * _SIZE[found[2]] if found else 0


def _time(block: Block, name: str, default_s: float) -> tuple[float, Block]:
    """The seconds that hold at ``block``, and where that is said."""
    found = block.one(name)
    return (seconds(found.args[0]), found) if found else (default_s, block)


# Rules for the whole


def _workers(top: Block, config: Config) -> Iterator[Finding]:
    processes = top.one("worker_processes")
    # `auto` is the cores of a machine that is not known here.
    workers = int(processes.args[0]) if processes and processes.args[0].isdigit() else 1
    found = next(top.everywhere("worker_connections"), None)
    connections = int(found.args[0]) if found else 512
    # Two for each server that it passes through.
    cost = 2 + 2 * any(top.everywhere("js_filter")) + 2 * any(_behind_filters(top))
    if workers * connections // cost < config.limits.connections:
        yield _error(
            "worker_connections",
            found or top,
            f"{workers} x {connections} connections are {workers * connections // cost} WebSockets, of {cost} each, "
            f"and limits.connections is {config.limits.connections}; set worker_connections to "
            f"{-(-config.limits.connections * cost // workers)} or more, or use more workers",
        )
    nofile = top.one("worker_rlimit_nofile")
    if (int(nofile.args[0]) if nofile else DEFAULT_NOFILE) < connections:
        yield _error(
            "nofile",
            nofile or found or top,
            f"{connections} connections need as many open files; set worker_rlimit_nofile above that",
        )


def _shutdown(top: Block, config: Config) -> Iterator[Finding]:
    found = top.one("worker_shutdown_timeout")
    if found is None:
        yield _error(
            "shutdown",
            top,
            "after a reload, old workers stay as long as their WebSockets do; set worker_shutdown_timeout to "
            f"{config.edge.shutdown_timeout_s}s",
        )
    elif seconds(found.args[0]) < config.server.drain_s:
        yield _error(
            "shutdown",
            found,
            f"old workers cut their WebSockets before a drain of {config.server.drain_s} s (server.drain_s) ends; "
            f"set worker_shutdown_timeout to {config.edge.shutdown_timeout_s}s",
        )


def _internal(top: Block, config: Config) -> Iterator[Finding]:
    port = f":{config.internal.port}"
    for block in [*top.everywhere("proxy_pass"), *_servers_of_upstreams(top)]:
        if re.search(rf"{port}(?![0-9])", block.args[0]):
            yield _error("internal_port", block, "the internal port is never reached through an edge: take this out")


def _servers_of_upstreams(top: Block) -> Iterator[Block]:
    for upstream in top.everywhere("upstream"):
        yield from upstream.all("server")


def _ingress(top: Block, config: Config) -> Iterator[Finding]:
    found = next(top.everywhere("set_real_ip_from"), None)
    if found:
        yield _advice(
            "ingress",
            found,
            f"a proxy stands in front: set its read and send timeouts to {INGRESS_TIMEOUT_S} s or more (ingress-nginx: "
            "nginx.ingress.kubernetes.io/proxy-read-timeout and proxy-send-timeout)",
        )


def _hops(top: Block, config: Config) -> Iterator[Finding]:
    for server in top.everywhere("server"):
        if server.within("stream") and server.all("proxy_pass"):
            time_s, found = _time(server, "proxy_timeout", 600)
            if time_s <= config.heartbeat.websocket_ping_timeout:
                yield _error("read_timeout", found, _too_short("proxy_timeout", time_s, config))


# Rules for the location of a WebSocket


def _limits(location: Block, config: Config) -> Iterator[Finding]:
    for name, what in (("limit_conn", "connections"), ("limit_req", "handshakes per second")):
        if not location.effective(name):
            yield _error("limits", location, f"no {name}: one address may have any number of {what}; add one")


def _client_side(location: Block, config: Config) -> Iterator[Finding]:
    time_s, found = _time(location, "send_timeout", 60)
    if time_s < config.heartbeat.write_timeout_s:
        yield _error("send_timeout", found, _cuts_first("send_timeout", time_s, config))
    time_s, found = _time(location, "client_header_timeout", 60)
    if time_s > config.server.header_timeout_s:
        yield _error(
            "header_timeout",
            found,
            f"client_header_timeout is {time_s:g} s, and server.header_timeout_s {config.server.header_timeout_s}: "
            "slow headers hold connections for longer than the service would; lower it",
        )
    found_size = location.one("client_max_body_size")
    if (size(found_size.args[0]) if found_size else 1024**2) > config.edge.body_bytes or (
        found_size and size(found_size.args[0]) == 0
    ):
        yield _error(
            "body_size",
            found_size or location,
            f"a handshake has no body; set client_max_body_size to {config.edge.body_bytes}",
        )
    buffers = location.one("large_client_header_buffers")
    if (size(buffers.args[1]) if buffers else 8192) <= LINE_BYTES:
        yield _error(
            "header_size",
            buffers or location,
            f"a request line of {LINE_BYTES} bytes (a cursor, a token) gets 414; set large_client_header_buffers to "
            f"4 {config.edge.header_bytes}",
        )


def _log(location: Block, config: Config) -> Iterator[Finding]:
    formats = {block.args[0]: block for http in location.effective("http") for block in http.all("log_format")}
    logs = location.effective("access_log")
    if not logs:
        yield _error(
            "log", location, "the default access log holds queries, and so tokens; set an access_log without them"
        )
    for found in logs:
        if found.args[0] == "off":
            continue
        name = found.args[1] if len(found.args) > 1 and "=" not in found.args[1] else "combined"
        text = " ".join(formats[name].args[1:]) if name in formats else "$request"
        if telltale := _TELLTALE.search(text):
            yield _error("log", found, f"{telltale[0]} may hold a token; log $uri instead")


def _tls(location: Block, config: Config) -> Iterator[Finding]:
    found = location.one("ssl_protocols")
    if found and (old := {"SSLv2", "SSLv3", "TLSv1", "TLSv1.1"} & set(found.args)):
        yield _error("tls", found, f"{', '.join(sorted(old))} is broken; set ssl_protocols to TLSv1.2 TLSv1.3")


# Rules for a location in which nginx proxies


def _read_timeout(location: Block, config: Config) -> Iterator[Finding]:
    time_s, found = _time(location, "proxy_read_timeout", 60)
    if time_s <= config.heartbeat.websocket_ping_interval or time_s <= config.heartbeat.websocket_ping_timeout:
        yield _error("read_timeout", found, _too_short("proxy_read_timeout", time_s, config))


def _too_short(name: str, time_s: float, config: Config) -> str:
    heartbeat, right_s = config.heartbeat, config.edge.read_timeout_s
    if time_s <= heartbeat.websocket_ping_interval:
        what = f"quiet connections are cut before the next ping, after {heartbeat.websocket_ping_interval} s"
    else:
        what = f"the edge cuts a silent peer before the service closes it, after {heartbeat.websocket_ping_timeout} s"
    return f"{name} is {time_s:g} s: {what}; set it to {right_s}s"


def _cuts_first(name: str, time_s: float, config: Config) -> str:
    return (
        f"{name} is {time_s:g} s: the edge cuts a slow peer before the service does, after "
        f"{config.heartbeat.write_timeout_s} s (heartbeat.write_timeout_s); set it to {config.edge.send_timeout_s}s"
    )


def _send_timeout(location: Block, config: Config) -> Iterator[Finding]:
    time_s, found = _time(location, "proxy_send_timeout", 60)
    if time_s < config.heartbeat.write_timeout_s:
        yield _error("send_timeout", found, _cuts_first("proxy_send_timeout", time_s, config))


def _buffering(location: Block, config: Config) -> Iterator[Finding]:
    found = location.one("proxy_buffering")
    if found is None or found.args != ["off"]:
        yield _error("buffering", found or location, "answers are buffered; set proxy_buffering off")


def _upgrade(location: Block, config: Config) -> Iterator[Finding]:
    version = location.one("proxy_http_version")
    if version is None or version.args != ["1.1"]:
        yield _error("upgrade", version or location, "an upgrade needs HTTP/1.1; set proxy_http_version 1.1")
    headers = _headers(location)
    for name, value in (("upgrade", "Upgrade $http_upgrade"), ("connection", "Connection $connection_upgrade")):
        found = headers.get(name)
        if found is None or not re.search(r"upgrade", found.args[1], re.IGNORECASE):
            yield _error("upgrade", found or location, f"no WebSocket gets through; add proxy_set_header {value}")


def _headers(location: Block) -> dict[str, Block]:
    return {block.args[0].lower(): block for block in location.effective("proxy_set_header")}


def _names(location: Block, config: Config) -> Iterator[Finding]:
    headers = _headers(location)
    host = headers.get("host")
    if host is None or host.args[1] == "$proxy_host":
        yield _error("host", host or location, "the service sees another Host; set proxy_set_header Host $http_host")
    elif host.args[1] == "$host":
        yield _advice(
            "host", host, "$host has no port, so pages on ports other than 80 and 443 are refused: $http_host has"
        )
    if origin := headers.get("origin"):
        yield _error("origin", origin, "the service checks Origin, and sees another one; leave it as it is")


def _next_upstream(location: Block, config: Config) -> Iterator[Finding]:
    edge = config.edge
    if len(edge.upstreams) < 2 and (edge.resolver is None or not is_named(edge.upstreams[0])):
        return
    found = location.one("proxy_next_upstream")
    passed_on = "http_404" if NEXT_HEADER.lower() in _headers(location) else "http_503"  # render_nodes has the first
    if found is None or passed_on not in found.args:
        yield _error(
            "next_upstream",
            found or location,
            "a draining node's 503 reaches clients; set proxy_next_upstream error timeout http_503",
        )


def _upstreams(location: Block, config: Config) -> Iterator[Finding]:
    (target,) = location.all("proxy_pass")
    if "$" in target.args[0]:
        return  # only a running nginx knows
    found = set(_nodes(location.top, _bare(target), "http"))
    if found != set(config.edge.upstreams):
        yield _error(
            "upstreams",
            target,
            f"goes to {', '.join(sorted(found))}, and edge.upstreams is {', '.join(config.edge.upstreams)}; "
            "make them the same",
        )


def _bare(target: Block) -> str:
    """To whom a ``proxy_pass`` goes, without scheme and path. After a Unix socket a colon begins the path."""
    name = re.sub(r"^https?://", "", target.args[0])
    if name.startswith(UNIX):
        return UNIX + name.removeprefix(UNIX).partition(":")[0]
    return name.partition("/")[0]


def _nodes(top: Block, name: str, context: str) -> Iterator[str]:
    """The addresses behind ``name``: through an ``upstream``, and through servers that listen on a Unix socket."""
    for upstream in top.everywhere("upstream"):
        if upstream.args == [name] and upstream.within(context):
            for peer in upstream.all("server"):
                yield from _nodes(top, peer.args[0], context)
            return
    for behind in ("stream", "http"):
        if server := _listening(top, name, behind):
            for target in server.everywhere("proxy_pass"):
                yield from _nodes(top, _bare(target), behind)
            return
    yield name


_TOP_RULES: Sequence[Rule] = (_workers, _shutdown, _internal, _ingress, _hops)
_LOCATION_RULES: tuple[Rule, ...] = (_limits, _client_side, _log, _tls)
_PROXY_RULES: tuple[Rule, ...] = (
    _read_timeout,
    _send_timeout,
    _buffering,
    _upgrade,
    _names,
    _next_upstream,
    _upstreams,
)
