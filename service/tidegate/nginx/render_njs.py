"""What only the njs edge has: hops, which put a filter between nginx's http part and the nodes, and what its code needs
to know. Part of ``render``.

Where the nodes are listed, each has a hop, and the http part chooses among the hops as it would among the nodes. Where
names are looked up again, nobody knows the nodes beforehand: then there is one hop, and behind the filter a second http
server that chooses. It costs a WebSocket two connections more. docs/decisions/0021 has the reasons.
"""

from __future__ import annotations

import json

from tidegate.config.edge import EdgeSettings
from tidegate.config.settings import PROBE_PATH, Config
from tidegate.core.errors import Unusable
from tidegate.nginx.render_nodes import BACKLOG, choice, is_resolving, probe, relay, upstream

PING_LATE_S = 5  # for which a ping of the service may be late
WORD_BYTES = 4000  # nginx reads words of less than 4 KiB, quotes included


def hops(config: Config) -> str:
    """For ``http``: the hops, and where there is one for all nodes, what is behind it."""
    edge = config.edge
    if not is_resolving(edge):
        return choice("tidegate_hops", [_hop(edge, number) for number in range(len(edge.upstreams))])
    return f"""
upstream tidegate_hops {{
    server {_hop(edge, 0)};
}}

{upstream(config)}

# Behind the filter: takes a handshake as it comes, and chooses the node.
server {{
    listen {_behind(edge)} backlog={BACKLOG};
    access_log off;
    include errors.inc;

{_indented(probe(edge, "tidegate", kept=True), 4)}

    location = {config.server.path} {{
        auth_request {PROBE_PATH};
{_indented(relay(edge), 8)}

        # For the log of the server in front, which hides them from clients.
        add_header X-Tidegate-Upstream $upstream_addr always;
        add_header X-Tidegate-Upstream-Status $upstream_status always;
        proxy_pass http://tidegate;
    }}
}}
"""


def front_probe(edge: EdgeSettings) -> str:
    """For the ``server`` in front of the hops."""
    if is_resolving(edge):
        return f"""
# Asked behind the filter, where the node is chosen.
location = {PROBE_PATH} {{
    internal;
    return 204;
}}
"""
    return probe(edge, "tidegate_hops", kept=False)  # a hop is for one request


def nodes(edge: EdgeSettings) -> str:
    """For ``stream``, around which the filter is set: what listens on the hops."""
    behind = [_behind(edge)] if is_resolving(edge) else edge.upstreams
    return "".join(
        f"""
server {{
    listen {_hop(edge, number)} backlog={BACKLOG};
    proxy_connect_timeout {edge.connect_timeout_s}s;
    proxy_timeout {edge.read_timeout_s}s;
    # The end of what the service says is passed on while the client still speaks, as with lingering_close in front.
    proxy_half_close on;
    proxy_pass {node};
}}
"""
        for number, node in enumerate(behind)
    )


def _hop(edge: EdgeSettings, number: int) -> str:
    return f"unix:{edge.run_dir}/node-{number}.sock"


def _behind(edge: EdgeSettings) -> str:
    return f"unix:{edge.run_dir}/behind.sock"


def _indented(text: str, by: int) -> str:
    return "\n".join(" " * by + line if line else "" for line in text.strip("\n").split("\n"))


def settings(config: Config, frame_bytes: int) -> str:
    """For ``stream``: what the code needs to know, as JSON. Raises Unusable."""
    values = {
        "calls_url": f"http://127.0.0.1:{config.edge.calls_port}",
        "calls_allow": config.calls.allow,
        "calls_timeout_s": config.calls.timeout_s,
        "calls_in_flight": config.limits.calls_in_flight,
        "answer_bytes": config.calls.answer_bytes,
        "data_bytes": config.limits.data_bytes,
        "message_bytes": config.limits.message_bytes,
        "json_depth": config.limits.json_depth,
        "frame_bytes": frame_bytes,
        "session_bytes": config.edge.session_bytes,
        "session_calls": config.edge.session_calls,
        # After so long without a word of it a node may be gone, and then it is. Source: docs/protocol.md, Heartbeat.
        "node_silence_s": config.heartbeat.websocket_ping_interval + PING_LATE_S,
        "node_timeout_s": config.heartbeat.websocket_ping_timeout,
    }
    text = json.dumps(values, separators=(",", ":"))
    if len(text) > WORD_BYTES:
        raise Unusable(
            "calls.allow",
            f"is {len(text) - WORD_BYTES} bytes too long for the njs edge, which gets it as one word of nginx's; allow "
            "fewer methods, or shorter ones",
        )
    return f"js_var $tidegate_settings '{text}';"


def counters(edge: EdgeSettings) -> dict[str, str]:
    """Only the image's njs has shared dictionaries. Those of stream{} are there alone, and http{} asks for them over a
    socket."""
    if edge.nginx != "image":
        return {}
    sock = f"unix:{edge.run_dir}/counters.sock"
    return {
        "njs_counters_stream.inc": f"""
js_shared_dict_zone zone=tidegate_counters:64k type=number;
server {{
    listen {sock};
    js_preread metrics.hear;
    return $tidegate_counters;
}}
""",
        "njs_counters_log.inc": """
js_shared_dict_zone zone=tidegate_responses:64k type=number;
js_set $tidegate_counted metrics.counted;
log_format tidegate_counted $tidegate_counted;
access_log /dev/null tidegate_counted if=$tidegate_counted;
""",
        # Buffered, an answer that ends with the connection would be an [error] for each scrape.
        "njs_counters_http.inc": f"""
set $tidegate_counters /.counters;
set $tidegate_http_servers {2 if is_resolving(edge) else 1};
location = /.counters {{
    internal;
    proxy_buffering off;
    proxy_pass http://{sock};
}}
""",
    }
