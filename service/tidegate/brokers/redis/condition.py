"""How Redis is: its role, what it keeps over a restart, how near its limits are, its clock, and what waits in the
ingress. Asked when somebody wants to know; nothing of it is read otherwise."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

from tidegate.brokers.contract import ServerCondition
from tidegate.brokers.redis.membership import ClusterMembership
from tidegate.brokers.redis.server import fields

PINGS = 3
_SECTIONS = ("server", "replication", "persistence", "memory", "clients")
_SETTINGS = ("save", "appendonly", "appendfsync", "maxclients")


async def condition(membership: ClusterMembership) -> ServerCondition:
    """Raises BrokerDown, and InternalError for what this user may not ask."""
    latency_ms = statistics.median([await _ping_ms(membership) for _ in range(PINGS)])
    keys = membership.keys
    asked_s = time.time()
    ((seconds, micros),) = await membership.commands(("TIME",))
    wall_s = (asked_s + time.time()) / 2
    server_s = int(seconds) + int(micros) / 1_000_000
    waiting, oldest, rejected, holder = await membership.commands(
        ("XLEN", keys.push),
        ("XRANGE", keys.push, "-", "+", "COUNT", 1),
        ("XLEN", keys.push_rejected),
        ("GET", keys.push_lease),
    )
    info: dict[str, str] = {}
    for section in await membership.commands(*(("INFO", section) for section in _SECTIONS)):
        info |= fields(section)
    settings = await _settings(membership)
    return ServerCondition(
        version=info.get("redis_version", "0"),
        role=info.get("role", ""),
        replicas=int(info.get("connected_slaves", 0)),
        appendonly=info["aof_enabled"] == "1" if "aof_enabled" in info else None,
        appendfsync=settings.get("appendfsync"),
        snapshots=settings["save"] != "" if "save" in settings else None,
        writes_to_disk="err" not in (info.get("rdb_last_bgsave_status"), info.get("aof_last_write_status")),
        eviction=info.get("maxmemory_policy", ""),
        used_bytes=int(info.get("used_memory", 0)),
        most_bytes=int(info.get("maxmemory", 0)),
        machine_bytes=int(info.get("total_system_memory", 0)),
        clients=int(info.get("connected_clients", 0)),
        most_clients=int(settings["maxclients"]) if "maxclients" in settings else None,
        latency_ms=round(latency_ms, 3),
        clock_off_ms=round((wall_s - server_s) * 1000, 1),
        waiting=waiting,
        oldest_s=round(max(0.0, server_s - int(oldest[0][0].partition(b"-")[0]) / 1000), 1) if oldest else 0.0,
        rejected=rejected,
        reader=holder.decode(errors="replace").partition(":")[0] if holder else None,
    )


async def _ping_ms(membership: ClusterMembership) -> float:
    begun_s = time.monotonic()
    await membership.commands(("PING",))
    return (time.monotonic() - begun_s) * 1000


async def _settings(membership: ClusterMembership) -> Mapping[str, Any]:
    if not membership.may_ask:
        return {}
    (answer,) = await membership.commands(("CONFIG", "GET", *_SETTINGS))
    texts = [text.decode(errors="replace") for text in answer]
    return dict(zip(texts[::2], texts[1::2], strict=True))
