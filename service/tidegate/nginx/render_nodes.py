"""How nginx reaches a node: which it chooses, for how long it waits, and what it does when one refuses. Part of
``render``."""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.config.edge import EdgeSettings
from tidegate.config.endpoints import is_named
from tidegate.config.settings import NEXT_HEADER, PROBE_PATH, Config
from tidegate.core.errors import NotFound

TRIES = 3  # of one handshake, each on another node
BACKLOG = 4096  # connections that wait to be taken; nginx by itself has 511, too few for all who come back at once
DOWN_S = 1  # for how long a node that failed is passed over; nginx counts whole seconds, and makes it up to 2
RESOLVE_S = 2  # for how long the addresses of a name are good
KEPT = 32  # connections of a worker to nodes, over which a probe went and its handshake goes next
WEIGHT = 10000  # of the first node; see ``servers``


def can_resolve(edge: EdgeSettings) -> bool:
    """Whether this nginx looks names up again: since 1.29.6."""
    return edge.resolver is not None and edge.nginx == "image"


def is_resolving(edge: EdgeSettings) -> bool:
    """Whether nodes come and go behind a name, so that nobody knows them beforehand, and a handshake has to be bound to
    its probe."""
    return can_resolve(edge) and any(map(is_named, edge.upstreams))


def upstream(config: Config) -> str:
    """``upstream tidegate``: the node with the least connections. The connection of a probe is kept for the handshake
    after it, but not until the service would end it."""
    edge = config.edge
    keep = f"""
    keepalive {KEPT};
    keepalive_timeout {min(4000, int(config.server.header_timeout_s * 500))}ms;"""
    if not is_resolving(edge):
        return choice("tidegate", edge.upstreams, keep)
    addresses = [f"{address} resolve" if is_named(address) else address for address in edge.upstreams]
    # A probe and the handshake after it are bound by their request's id.
    more = f"""
    sticky learn create=$request_id lookup=$request_id zone=tidegate_probed:4m timeout=10s header;{keep}
    resolver {edge.resolver} valid={RESOLVE_S}s;"""
    return choice("tidegate", addresses, more)


def choice(name: str, addresses: Sequence[str], more: str = "") -> str:
    """An ``upstream`` of nodes, or of what leads to them.

    Each is there twice. As itself it is passed over for a while after it has failed; as a backup it is asked where all
    are passed over, so that no handshake is refused for what happened to others.

    A handshake must go where its probe went. Both go to the node with the fewest connections, and among equals nginx
    would take turns; so no two weigh the same, by a difference that matters among equals only.
    """
    servers = "".join(
        f"    server {address} weight={WEIGHT - number} max_fails=1 fail_timeout={DOWN_S}s;\n"
        f"    server {address} backup max_fails=0;\n"
        for number, address in enumerate(addresses)
    )
    return f"upstream {name} {{\n    zone {name} 512k;\n    least_conn;{more}\n{servers}}}"


def relay(edge: EdgeSettings) -> str:
    """For a ``location``: passes a handshake on, and the WebSocket after it."""
    return f"""
proxy_http_version 1.1;
proxy_set_header Upgrade $tidegate_upgrade;
proxy_set_header Connection $connection_upgrade;
proxy_set_header Host $http_host;

proxy_buffering off;
# What is passed on at once. Of 4 KiB, nginx' default, a page of history is 64 reads and writes.
proxy_buffer_size 16k;
proxy_busy_buffers_size 16k;
proxy_connect_timeout {edge.connect_timeout_s}s;
# Traffic in either direction counts, so the service's pings keep a quiet WebSocket open.
proxy_read_timeout {edge.read_timeout_s}s;
proxy_send_timeout {edge.send_timeout_s}s;

# What a client still sends after the service's close frame is read, or the kernel would cut it off from that frame.
lingering_close always;
lingering_time 5s;
lingering_timeout 2s;

# A node that is dead passes the handshake on to another; so does one that takes none (404, with its words), which nginx
# does not count as a failure. What it says to this client alone (any other answer) the client hears as it is.
proxy_next_upstream error timeout http_404;
proxy_next_upstream_tries {TRIES};
proxy_next_upstream_timeout {TRIES * edge.connect_timeout_s}s;
proxy_set_header {NEXT_HEADER} 404;
"""


def probe(edge: EdgeSettings, upstream: str, *, kept: bool) -> str:
    """For a ``server``: asks the node that would be next whether it takes handshakes, and others where it does not.
    ``auth_request`` goes on with 204; 403: no node answers. ``kept``: the handshake can go over the same connection.

    nginx forgives a node when a request to it *ends*, which a WebSocket does not: this one does. And it has a timeout
    of its own, which a WebSocket could not have.
    """
    asked = _asked(edge, upstream, kept=kept)
    if not is_resolving(edge):
        return f"""
location = {PROBE_PATH} {{
    internal;
    error_page 400 403 404 405 429 500 502 503 504 = /.probed;
{asked}}}
{_probed()}"""
    return f"""
location = {PROBE_PATH} {{
    internal;
    error_page 400 403 404 405 429 500 503 504 = /.probed;
    error_page 502 = /.probed/again;
{asked}}}

# Where a name got other addresses while nginx waited for one of them, it goes on with none: ask anew.
location = /.probed/again {{
    internal;
    error_page 400 403 404 405 429 500 502 503 504 = /.probed;
{asked}}}
{_probed()}"""


def _asked(edge: EdgeSettings, upstream: str, *, kept: bool) -> str:
    return f"""
    proxy_http_version 1.1;
    proxy_set_header Connection {'""' if kept else "close"};
    proxy_pass_request_headers off;
    proxy_pass_request_body off;
    # Of a client's body nothing may be announced, or the node would wait for it, and seem to hang.
    proxy_set_header Content-Length "";
    proxy_set_header Transfer-Encoding "";
    proxy_connect_timeout {edge.connect_timeout_s}s;
    proxy_read_timeout {edge.probe_timeout_s}s;
    proxy_next_upstream error timeout http_503;
    proxy_next_upstream_tries 0;
    proxy_next_upstream_timeout {TRIES * max(edge.probe_timeout_s, edge.connect_timeout_s)}s;
    proxy_intercept_errors on;
    proxy_pass http://{upstream}{PROBE_PATH};
"""


def _probed() -> str:
    return f"""
# No node has said yes. All say no, or are dead, or don't know the question: the handshake itself hears why. One keeps
# silent: there is nothing to wait for.
location = /.probed {{
    internal;
    default_type application/json;
    if ($upstream_status = "") {{  # a client that asks for the probe itself
        return 404 '{NotFound("nothing here").body.decode()}';
    }}
    if ($upstream_status ~ 504) {{
        return 403;
    }}
    return 204;
}}
"""


def location_ws(edge: EdgeSettings) -> str:
    """For the ``location`` that clients reach."""
    hide = "\nproxy_hide_header X-Tidegate-Upstream;\nproxy_hide_header X-Tidegate-Upstream-Status;\n"
    return f"""{relay(edge)}
# The client that asks. Nobody outside may say from whom a call is.
proxy_set_header X-Forwarded-For $remote_addr;
proxy_set_header X-Forwarded-Proto $scheme;
proxy_set_header X-Request-Id $request_id;
proxy_set_header X-Client-Id "";
proxy_set_header X-Connection-Id "";
proxy_set_header X-Tidegate-Via "";
# No compression: the service speaks none, and an edge that reads frames could not.
proxy_set_header Sec-WebSocket-Extensions "";
{hide if is_resolving(edge) else ""}"""


def log_proxy(edge: EdgeSettings) -> str:
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


def _seen(edge: EdgeSettings, name: str, own: str) -> str:
    """Which node it was: as this server saw it, or as the one says that has chosen it (``render_njs.hops``)."""
    if not is_resolving(edge):
        return f"map {own} $tidegate_{name} {{\n    default {own};\n}}"
    said = f"$upstream_http_x_tidegate_{name}"
    return f'map {said} $tidegate_{name} {{\n    default {said};\n    "" {own};\n}}'
