"""How this gateway is, for those who look for a fault: this node's settings, all nodes, and the server behind them.

Nothing of it is a secret, and no client, group or stream is named. Source: docs/protocol.md, HTTP API.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from tidegate import __version__
from tidegate.config.load import effective
from tidegate.core.errors import Refused
from tidegate.http.handler import ApiHandler, Response

_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


async def health(handler: ApiHandler) -> Response:
    """Answers also while the broker is down: then ``trouble`` says why, and nodes are not known."""
    gateway, config, readiness = handler.api.gateway, handler.api.config, handler.api.readiness
    trouble: str | None = None if readiness.ready else readiness.reason
    nodes: list[Any] = []
    server = None
    try:
        nodes = sorted(await gateway.nodes(), key=lambda info: info.node)
        server = await gateway.condition()
    except Refused as exc:
        trouble = exc.message
    answer = {
        "node": gateway.node,
        "version": __version__,
        "time_ms": int(time.time() * 1000),
        "trouble": trouble,
        "ports": _ports(),
        "settings": effective(config),
        "nodes": nodes,
        "broker": config.broker.kind,
        "server": server,
    }
    return Response(200, msgspec.json.encode(answer), {"Cache-Control": "no-store"})


def _ports() -> int | None:
    """How many connections this machine can have to one port of another address; None where it does not say."""
    try:
        first, last = _PORTS.read_text().split()
        return int(last) - int(first) + 1
    except (OSError, ValueError):
        return None
