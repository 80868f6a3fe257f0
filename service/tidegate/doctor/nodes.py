"""The nodes, by what each says of itself: whether they agree, and how near they are to their limits."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tidegate.doctor.report import Finding, ok, unknown, weak, wrong

NEAR = 0.8  # of a limit
LAG_MS = 500.0
YOUNG_MS = 10_000  # until then a node may not have told the others how it is
CLOCK_MS = 2000.0
EDGE_S = 2.0

# What may differ: where a node listens, by which names it is asked and where it finds others; and what concerns nginx.
_OWN = frozenset(
    (
        "server.node",
        "server.address",
        "server.port",
        "server.socket",
        "server.socket_mode",
        "server.socket_group",
        "server.unsent_bytes",
        "internal.address",
        "internal.port",
        "internal.hosts",
        "trunk.socket",
        "trunk.address",
        "trunk.port",
        "trunk.key_file",
        "broker.url",
        "calls.url",
        "auth.key_file",
        "auth.jwks_file",
        "auth.callback_url",
        # What a machine can bear.
        "limits.connections",
        "limits.journal_bytes",
        "limits.all_outbox_bytes",
        "limits.handshakes_per_second",
    )
)
_OWN_SECTIONS = ("log.", "edge.", "events.")
_EDGES_OF_NODES = frozenset(("edge.hold_s", "edge.header_bytes"))  # which a node obeys too


def examine(health: Mapping[str, Any]) -> Iterator[Finding]:
    """``health``: what ``GET /api/health`` answers."""
    nodes = health["nodes"]
    yield _ready(health)
    if not nodes:
        return
    yield _versions(nodes)
    yield _settings(nodes)
    yield _lag(nodes, health["time_ms"])
    if health["broker"] != "memory":
        yield _clocks(nodes)
    yield from _room(nodes)
    yield _ports(health)


def _ready(health: Mapping[str, Any]) -> Finding:
    if health["trouble"] is not None:
        return wrong(
            "readiness",
            f"{health['node']} is not ready: {health['trouble']}",
            "see that the broker runs and is reached; /readyz tells the reason too",
        )
    draining = sorted(node["node"] for node in health["nodes"] if node["draining"])
    if draining:
        return weak("readiness", f"{', '.join(draining)} is stopping", "wait until it has gone, and examine again")
    return ok("readiness", _count(health["nodes"]) + " ready")


def _count(nodes: Sequence[Any]) -> str:
    return "one node" if len(nodes) == 1 else f"{len(nodes)} nodes"


def _versions(nodes: Sequence[Mapping[str, Any]]) -> Finding:
    versions = sorted({node["version"] for node in nodes})
    if len(versions) == 1:
        return ok("versions", f"{versions[0]} on {_count(nodes)}")
    each = ", ".join(f"{node['node']} {node['version']}" for node in nodes)
    return weak("versions", each, "end the upgrade; two versions at once are for as long as it takes")


def _settings(nodes: Sequence[Mapping[str, Any]]) -> Finding:
    """By what each says to be no default. Only what changes a promise by which node one is on counts."""
    known = {node["node"]: node["health"]["departures"] for node in nodes if node.get("health")}
    keys = sorted({key for departures in known.values() for key in departures if _must_agree(key)})
    differing = [key for key in keys if len({repr(departures.get(key)) for departures in known.values()}) > 1]
    silent = [f"{node['node']} ({node['version']})" for node in nodes if not node.get("health")]
    if silent and not differing:
        return unknown("settings", f"{', '.join(silent)} does not tell its own", "upgrade it")
    if not differing:
        return ok("settings", f"are the same on {_count(nodes)}")
    shown = []
    for key in differing[:5]:
        values = (f"{name} {_value(departures.get(key))}" for name, departures in known.items())
        shown.append(f"{key} is " + ", ".join(values))
    more = f"; and {len(differing) - 5} more" if len(differing) > 5 else ""
    return wrong("settings", "; ".join(shown) + more, "give all nodes the same, and restart those that have not")


def _must_agree(key: str) -> bool:
    return key in _EDGES_OF_NODES or (key not in _OWN and not key.startswith(_OWN_SECTIONS))


def _value(value: object) -> str:
    return "the default" if value is None else str(value)[:80]


def _lag(nodes: Sequence[Mapping[str, Any]], now_ms: int) -> Finding:
    slow = [f"{node['node']} {node['lag_ms']:.0f} ms" for node in nodes if (node["lag_ms"] or 0) > LAG_MS]
    quiet = [node for node in nodes if node["lag_ms"] is None and not node["draining"]]
    lost = [node["node"] for node in quiet if now_ms - node["started_ms"] > YOUNG_MS]
    if lost:
        return wrong(
            "broker through each node",
            f"{', '.join(lost)} does not get a message through",
            "see its log: broker.lost says why",
        )
    if slow:
        return weak(
            "broker through each node",
            f"a message takes long: {', '.join(slow)}",
            "see the node's and Redis' CPU, and the network between them",
        )
    longest = max((node["lag_ms"] or 0 for node in nodes), default=0)
    return ok("broker through each node", f"a message takes {longest:.1f} ms at most")


def _clocks(nodes: Sequence[Mapping[str, Any]]) -> Finding:
    known = {node["node"]: node["health"]["clock_off_ms"] for node in nodes if node.get("health")}
    off = {name: value for name, value in known.items() if value is not None}
    if not off:
        return unknown("clocks", "no node has told yet", "examine again in a few seconds")
    wrongly = [f"{name} {value / 1000:+.1f} s" for name, value in off.items() if abs(value) > CLOCK_MS]
    if wrongly:
        return wrong(
            "clocks",
            f"against Redis': {', '.join(wrongly)}",
            "set them by NTP: tokens end too early or too late by that",
        )
    return ok("clocks", f"within {max(abs(value) for value in off.values()):.0f} ms of Redis'")


def _room(nodes: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    known = {node["node"]: (node["connections"], node["health"]) for node in nodes if node.get("health")}
    if known:
        of_clients = {name: (count, health["connections_limit"]) for name, (count, health) in known.items()}
        of_files = {name: (health["open_files"], health["open_files_limit"]) for name, (_, health) in known.items()}
        yield _share("connections", of_clients, "raise limits.connections, or add a node")
        yield _share("descriptors", of_files, "raise LimitNOFILE (ulimit -Hn) of the node")


def _share(what: str, used: Mapping[str, tuple[int, int]], do: str) -> Finding:
    """``used``: of each node, and of how many."""
    near = [f"{name} has {count} of {most}" for name, (count, most) in used.items() if count > NEAR * most]
    if near:
        return weak(what, ", ".join(near), do)
    name = max(used, key=lambda name: used[name][0] / used[name][1])
    return ok(what, f"{used[name][0]} of {used[name][1]} at most, on {name}")


def _ports(health: Mapping[str, Any]) -> Finding:
    """Of an edge that reaches a node over TCP. Its machine is taken to be like that of the node that answers."""
    ports, upstreams = health["ports"], health["settings"]["edge"]["upstreams"]
    if not any(not upstream.startswith("unix:") for upstream in upstreams):
        return ok("ports", "the edge reaches the nodes over Unix sockets, which need none")
    if ports is None:
        return unknown("ports", "this system does not say how many there are")
    used = max(node["connections"] - node["trunk_sessions"] for node in health["nodes"])
    if used > NEAR * ports:
        do = "use server.socket, several addresses for a node, or a wider net.ipv4.ip_local_port_range"
        return weak("ports", f"{used} connections to one node over TCP, and an edge has {ports} ports for them", do)
    return ok("ports", f"{used} of {ports} to one node over TCP, if all come through one edge")


def edge(health: Mapping[str, Any], address: str | None) -> list[Finding]:
    """What nginx has left of its connections, and whether it has the trunks that it may have. To be asked for when
    clients have come through it. ``address``: of the edge's internal port; None: as the settings say."""
    settings = health["settings"]["edge"]
    address = address or settings["internal"]
    if address.startswith("unix:"):
        return [unknown("worker_connections", f"the edge's figures are at {address}", "--edge HOST:PORT")]
    try:
        active = int(re.findall(r"Active connections: (\d+)", _get(address, "/stub_status"))[0])
        metrics = _get(address, "/metrics")
    except (OSError, http.client.HTTPException, ValueError, IndexError) as exc:
        return [
            unknown(
                "worker_connections",
                f"the edge's figures are not at {address} ({exc or type(exc).__name__})",
                "--edge HOST:PORT, where the edge's internal port is reached",
            )
        ]
    variant = re.findall(r'variant="(\w+)"', metrics)
    trunks = re.findall(r"^tidegate_edge_trunks (\d+)", metrics, re.MULTILINE)
    limit = re.findall(r"^tidegate_edge_connections_limit (\d{1,12})$", metrics, re.MULTILINE)
    trunked = any(node["trunks"] for node in health["nodes"])
    each = {"njs": 4, "openresty": 1 if trunked else 2}.get(variant[0] if variant else "", 2)
    # With njs nginx counts its connections to itself among the active ones.
    used = active * (2 if each == 4 else each)
    # A node's settings need not be the edge's: it may be another machine. Edges before 0.3 do not say theirs.
    most = int(limit[0]) if limit else settings["workers"] * settings["worker_connections"]
    if used > NEAR * most:
        do = "raise edge.worker_connections and edge.nofile, render, and reload"
        room = weak("worker_connections", f"about {used} of {most} are used", do)
    else:
        room = ok("worker_connections", f"about {used} of {most} are used")
    return [room, *_trunks(health["settings"], int(trunks[0]))] if trunks else [room]


def _trunks(settings: Mapping[str, Any], count: int) -> Iterator[Finding]:
    """Of an edge that could have some: without them it relays, and nothing but its log tells."""
    trunk = settings["trunk"]
    if not settings["edge"]["trunk"] or (trunk["socket"] is None and not trunk["port"]):
        return
    if count:
        yield ok("trunks", f"the edge has {count}")
    else:
        yield weak(
            "trunks",
            "the node offers one and the edge has none: clients are relayed, and cut when their node dies",
            "see 'no trunk to' in nginx' log: its workers must be let into trunk.socket's folder and file",
        )


def _get(address: str, path: str) -> str:
    connection = http.client.HTTPConnection(address, timeout=EDGE_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().read(1_000_000).decode(errors="replace")
    finally:
        connection.close()
