"""Redis, by what it says of itself to the node that is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tidegate.doctor.report import Finding, number, ok, size, unknown, weak, wrong

NEAR = 0.8
LATENCY_MS = 20.0
STANDS_S = 10.0  # an entry of the ingress that nobody has taken since


def examine(health: Mapping[str, Any]) -> Iterator[Finding]:
    """``health``: what ``GET /api/health`` answers."""
    server = health["server"]
    if health["broker"] == "memory":
        yield ok("broker", "the embedded one: one node, lost at a restart")
        return
    if server is None:
        yield unknown("Redis", "it does not answer", "see that it runs and is reached: broker.url")
        return
    yield _role(server)
    yield _persistence(server)
    yield _eviction(server)
    yield _latency(server)
    yield _memory(server)
    yield _clients(server)
    yield _ingress(server, health["settings"]["broker"]["prefix"])
    yield _rejected(server, health["settings"]["broker"]["prefix"])


def _role(server: Mapping[str, Any]) -> Finding:
    how = f"{server['version']}, {server['role']} with {server['replicas']} replicas"
    if server["role"] != "master":
        return wrong("Redis role", how, "broker.url names a replica: name the master, or Sentinels")
    return ok("Redis role", how)


def _persistence(server: Mapping[str, Any]) -> Finding:
    do = "appendonly yes in redis.conf (CONFIG SET appendonly yes, CONFIG REWRITE)"
    if not server["writes_to_disk"]:
        return wrong(
            "Redis persistence", "the last write to its disk has failed", "see its log, and the room on its disk"
        )
    if server["appendonly"]:
        return ok("Redis persistence", f"appendonly, fsync {server['appendfsync'] or 'unknown'}")
    if server["appendonly"] is None or server["snapshots"] is None:
        return unknown("Redis persistence", "this user may not ask for it", "CONFIG GET for the gateway's user")
    if server["snapshots"]:
        return weak(
            "Redis persistence",
            "snapshots only: a crash loses what came since the last, and every position is reset",
            do,
        )
    return weak("Redis persistence", "none: a restart loses all messages, and every position is reset", do)


def _eviction(server: Mapping[str, Any]) -> Finding:
    if server["eviction"] == "noeviction":
        return ok("Redis eviction", "noeviction")
    return wrong(
        "Redis eviction",
        f"maxmemory-policy {server['eviction']} throws journals away when memory is short, and nodes do not start",
        "maxmemory-policy noeviction in redis.conf",
    )


def _latency(server: Mapping[str, Any]) -> Finding:
    how = f"answers the node within {number(server['latency_ms'], 'ms')}"
    if server["latency_ms"] > LATENCY_MS:
        return weak("Redis latency", how, "each push waits for it: see SLOWLOG GET, its CPU, its disk, and the network")
    return ok("Redis latency", how)


def _memory(server: Mapping[str, Any]) -> Finding:
    used, most = server["used_bytes"], server["most_bytes"] or server["machine_bytes"]
    whose = "maxmemory" if server["most_bytes"] else "the machine's memory, without maxmemory"
    how = f"{size(used)} of {size(most)} ({whose})"
    if most and used > NEAR * most:
        do = "give it more, or keep less: history.messages, history.age_s. Where it is full pushes are refused"
        return weak("Redis memory", how, do)
    return ok("Redis memory", how)


def _clients(server: Mapping[str, Any]) -> Finding:
    if server["most_clients"] is None:
        return ok("Redis clients", str(server["clients"]))
    how = f"{server['clients']} of {server['most_clients']}"
    if server["clients"] > NEAR * server["most_clients"]:
        return weak("Redis clients", how, "raise maxclients, and see who has so many (CLIENT LIST)")
    return ok("Redis clients", how)


def _ingress(server: Mapping[str, Any], prefix: str) -> Finding:
    waiting, oldest_s = server["waiting"], server["oldest_s"]
    if waiting and oldest_s > STANDS_S:
        reader = (
            f"{server['reader']} has the lease and does not get on" if server["reader"] else "no node has the lease"
        )
        do = f"see the nodes' logs for ingress.stopped; a lease ({prefix}:push:lease) without an end is deleted by hand"
        return wrong("pushes through Redis", f"{waiting} wait, the oldest for {number(oldest_s, 's')}: {reader}", do)
    return ok("pushes through Redis", f"{waiting} wait")


def _rejected(server: Mapping[str, Any], prefix: str) -> Finding:
    if not server["rejected"]:
        return ok("rejected pushes", "none are kept")
    do = f"XREVRANGE {prefix}:push:rejected + - COUNT 5 says why; DEL it when that is mended"
    return weak("rejected pushes", f"{server['rejected']} are kept", do)
