"""How nginx reaches a node: which it chooses, for how long it waits, and what it does when one refuses. Part of
``render``."""

from __future__ import annotations

from service.settings import Edge

TRIES = 3  # of one handshake, each on another node
BACKLOG = 4096  # connections that wait to be taken; nginx by itself has 511, too few for all who come back at once
DOWN_S = 2  # for how long a node that failed, or said 503, is not asked again


def is_resolving(edge: Edge) -> bool:
    """Whether this nginx looks names up again: since 1.27.3, and nothing before it can."""
    return edge.resolver is not None and edge.nginx == "image"


def upstream(edge: Edge) -> str:
    """``upstream tidegate``: the node with the least connections."""
    resolve = is_resolving(edge)
    resolver = f"    resolver {edge.resolver} valid={DOWN_S}s;\n" if resolve else ""
    servers = "".join(
        server(address + (" resolve" if resolve and not address.startswith("unix:") else ""))
        for address in edge.upstreams
    )
    return f"upstream tidegate {{\n    zone tidegate 256k;\n    least_conn;\n{resolver}{servers}}}"


def server(address: str) -> str:
    """A line of an ``upstream``."""
    return f"    server {address} max_fails=1 fail_timeout={DOWN_S}s;\n"


def relay(edge: Edge) -> str:
    """For a ``location``: passes a handshake on, and the WebSocket after it."""
    return f"""
proxy_http_version 1.1;
proxy_set_header Upgrade $tidegate_upgrade;
proxy_set_header Connection $connection_upgrade;
proxy_set_header Host $http_host;

proxy_buffering off;
proxy_connect_timeout {edge.connect_timeout_s}s;
# Traffic in either direction counts, so the service's pings keep a quiet WebSocket open.
proxy_read_timeout {edge.read_timeout_s}s;
proxy_send_timeout {edge.send_timeout_s}s;

# What a client still sends after the service's close frame is read, or the kernel would cut it off from that frame.
lingering_close always;
lingering_time 5s;
lingering_timeout 2s;

# A node that is dead, full or draining (503) passes the handshake on to another. The last one's answer counts.
proxy_next_upstream error timeout http_503;
proxy_next_upstream_tries {TRIES};
proxy_next_upstream_timeout {TRIES * edge.connect_timeout_s}s;
"""


def location_ws(edge: Edge) -> str:
    """For the ``location`` that clients reach."""
    hide = "\nproxy_hide_header X-Tidegate-Upstream;\nproxy_hide_header X-Tidegate-Upstream-Status;\n"
    return f"""{relay(edge)}
# Who asks. Nobody outside may say who a call is from.
proxy_set_header X-Forwarded-For $remote_addr;
proxy_set_header X-Forwarded-Proto $scheme;
proxy_set_header X-Request-Id $request_id;
proxy_set_header X-Client-Id "";
proxy_set_header X-Connection-Id "";
proxy_set_header X-Tidegate-Via "";
# No compression: the service speaks none, and an edge that reads frames could not.
proxy_set_header Sec-WebSocket-Extensions "";
{hide if is_resolving(edge) else ""}"""


def log_proxy(edge: Edge) -> str:
    """For ``http``: what the access log says of a WebSocket that nginx proxies."""
    return f"""
# What the log says of a proxied WebSocket. Behind a retry there are several values: the last is the one that counts.
map $upstream_bytes_sent $tidegate_bytes_in {{
    default 0;
    "~(?<tidegate_last>[0-9]+)$" $tidegate_last;
}}
map $upstream_http_tidegate_client $tidegate_client {{
    default $upstream_http_tidegate_client;
}}
map $upstream_http_tidegate_connection $tidegate_connection {{
    default $upstream_http_tidegate_connection;
}}
{_seen(edge, "upstream", "$upstream_addr")}
{_seen(edge, "upstream_status", "$upstream_status")}
map "" $tidegate_close_code {{
    default null;
}}
"""


def _seen(edge: Edge, name: str, own: str) -> str:
    """Which node it was: as this server saw it, or as the one says that has chosen it (``render_njs.hops``)."""
    if not is_resolving(edge):
        return f"map {own} $tidegate_{name} {{\n    default {own};\n}}"
    said = f"$upstream_http_x_tidegate_{name}"
    return f'map {said} $tidegate_{name} {{\n    default {said};\n    "" {own};\n}}'
