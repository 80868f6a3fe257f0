"""What the OpenResty edge's code needs to know, as a table of Lua. Part of ``render``."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from tidegate.auth.api_keys import trunk_key
from tidegate.config.settings import PROBE_PATH, Config


def openresty_settings(config: Config, **more: Any) -> str:
    """The text of an include. ``more`` are settings that ``render`` has chosen itself."""
    edge, heartbeat, url = config.edge, config.heartbeat, urlsplit(config.calls.url)
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    is_tls = url.scheme == "https"
    values = {
        "upstreams": edge.upstreams,
        "resolver": edge.resolver,
        "connect_timeout_s": edge.connect_timeout_s,
        "read_timeout_s": edge.read_timeout_s,
        "send_timeout_s": edge.send_timeout_s,
        # After which nothing is answered in a node's name, and after which it is given up: docs/protocol.md, Heartbeat.
        "node_lives_s": heartbeat.websocket_ping_interval + 5,
        # Where the two are nearly the same, a node that has nothing to say but its pings is none that hangs.
        "node_timeout_s": max(heartbeat.websocket_ping_timeout, 1.5 * heartbeat.websocket_ping_interval),
        "probe_timeout_s": edge.probe_timeout_s,
        "probe_path": PROBE_PATH,
        # Late enough that not all come back at once, early enough that all have gone before nginx cuts.
        # When nginx stops; of those who can move, each is told in the first half and has the other half for it.
        "spread_s": min(10, edge.shutdown_timeout_s / 2),
        "internal": edge.internal,
        "certificate": f"{edge.tls_dir}/fullchain.pem" if edge.tls_port else None,
        "calls_url": {
            "host": host,
            "port": url.port or (443 if is_tls else 80),
            "netloc": url.netloc,
            "path": url.path,
            "tls": is_tls,
        },
        "calls_allow": dict.fromkeys(config.calls.allow, True),
        "calls_timeout_s": config.calls.timeout_s,
        "calls_connections": config.calls.connections,
        "calls_in_flight": config.limits.calls_in_flight,
        "answer_bytes": config.calls.answer_bytes,
        "data_bytes": config.limits.data_bytes,
        "message_bytes": config.limits.message_bytes,
        "json_depth": config.limits.json_depth,
        "outbox_bytes": config.limits.outbox_bytes,
        "all_outbox_bytes": config.limits.all_outbox_bytes,
        "commands_in_flight": config.limits.commands_in_flight,
        "write_timeout_s": heartbeat.write_timeout_s,
        "trunk": edge.trunk,
        "hold_s": edge.hold_s,
        "trunk_key": trunk_key(config.trunk),
        **more,
    }
    tls = """
lua_ssl_trusted_certificate /etc/ssl/certs/ca-certificates.crt;
lua_ssl_verify_depth 4;
"""
    return f"""{tls if is_tls else ""}
init_by_lua_block {{
    require("edge").init({_lua(values)})
}}
"""


def _lua(value: Any) -> str:
    """A value as Lua writes it. Settings have no character that a string of Lua would read in another way."""
    if value is None:
        return "nil"
    if isinstance(value, dict):
        return "{" + ",".join(f"[{json.dumps(name)}]={_lua(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ",".join(map(_lua, value)) + "}"
    return json.dumps(value)
