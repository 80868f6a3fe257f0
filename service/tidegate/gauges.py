"""What is measured when it is asked for: numbers that the parts of a node have anyway."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from functools import lru_cache
from types import MappingProxyType

import tidegate
from tidegate import log
from tidegate.auth.callback import Callback
from tidegate.brokers.contract import Broker
from tidegate.config.departures import departures
from tidegate.config.settings import Config
from tidegate.core.hub import Hub
from tidegate.core.model import NodeHealth
from tidegate.gateway.gateway import Gateway
from tidegate.gateway.readiness import Readiness
from tidegate.gateway.rechecks import Rechecks
from tidegate.metrics import Metrics
from tidegate.process import open_files, usage
from tidegate.slots import Slots
from tidegate.trunk.server import TrunkServer
from tidegate.websocket.admission import Admission
from tidegate.websocket.unsent import Unsent

FILES_S = 15.0


def register(
    metrics: Metrics,
    config: Config,
    *,
    node: str,
    started_ms: int,
    capacity: int,
    hub: Hub,
    gateway: Gateway,
    readiness: Readiness,
    admission: Admission,
    unsent: Unsent,
    trunks: TrunkServer,
    calls: Slots,
    callback: Callback | None,
    rechecks: Rechecks | None,
) -> None:
    """``capacity``: connections that it may have. ``callback`` and ``rechecks``: where the application says who a
    client is."""
    _process(metrics, started_ms)
    metrics.facts(
        "tidegate_build_info",
        "1; what runs here: the node has another id at each start.",
        ("version", "python", "node", "broker"),
        MappingProxyType({(tidegate.__version__, platform.python_version(), node, config.broker.kind): 1}),
    )
    metrics.facts(
        "tidegate_limit",
        "A number among the settings, by its key.",
        ("key",),
        {(key,): value for key, value in _numbers(config)},
    )
    metrics.gauge(
        "tidegate_connections_limit",
        "Connections that this node may have: limits.connections, or less where it may not open so many files.",
        lambda: capacity,
    )
    metrics.gauge("tidegate_connections", "Connections on this node.", lambda: metrics.open_connections)
    metrics.gauge("tidegate_handshakes_waiting", "Handshakes that wait to be let in.", lambda: admission.waiting)
    metrics.count("tidegate_handshakes_begun", "Handshakes that had their turn.", lambda: admission.begun)
    metrics.gauge("tidegate_open_files", "Open files of the process.", open_files.count)
    metrics.gauge("tidegate_open_files_limit", "Files that the process may have open.", open_files.limit)
    metrics.count("tidegate_log_dropped_lines", "Lines of the log that could not be written.", log.dropped)
    metrics.gauge("tidegate_streams", "Streams followed on this node.", lambda: len(hub.audiences))
    metrics.gauge(
        "tidegate_outbox_bytes",
        "Unsent bytes of all connections.",
        lambda: sum(session.wire.size for session in hub.sessions()),
    )
    metrics.gauge(
        "tidegate_unsent_bytes",
        "Unsent bytes of all connections and trunks in this node's memory, a message to many once.",
        lambda: unsent.bytes,
    )
    metrics.gauge("tidegate_calls_waiting", "Calls that wait for a connection.", lambda: calls.waiting)
    if callback is not None and rechecks is not None:
        metrics.gauge("tidegate_auth_waiting", "Handshakes that wait to be asked for.", lambda: callback.slots.waiting)
        metrics.gauge("tidegate_auth_overdue", "Connections that should be asked for again.", lambda: rechecks.waiting)
    _broker(metrics, readiness)
    metrics.gauge("tidegate_draining", "1 while this node stops.", lambda: float(gateway.draining))
    metrics.gauge("tidegate_trunks", "Trunks of edges' workers.", lambda: len(trunks.workers))
    metrics.gauge("tidegate_trunk_connections", "Connections on trunks.", lambda: trunks.sessions)
    metrics.count("tidegate_trunk_messages", "Messages that crossed a trunk.", lambda: trunks.heard)
    metrics.count("tidegate_reading_paused", "Peers with too many commands.", lambda: gateway.paused)
    metrics.count("tidegate_deliveries", "Messages queued for a connection.", lambda: hub.deliveries)
    metrics.count("tidegate_delivered_bytes", "Bytes queued for a connection.", lambda: hub.delivered_bytes)


def _process(metrics: Metrics, started_ms: int) -> None:
    """By the names that all of Prometheus' clients have for them."""
    metrics.count("process_cpu_seconds", "Processor time of the process, the user's and the system's.", usage.cpu_s)
    metrics.gauge("process_resident_memory_bytes", "Memory of the process.", usage.resident_bytes)
    metrics.gauge("process_virtual_memory_bytes", "Address space of the process.", usage.virtual_bytes)
    metrics.gauge("process_start_time_seconds", "Unix time at which the node began.", lambda: started_ms / 1000)
    metrics.gauge("process_open_fds", "As tidegate_open_files.", open_files.count)
    metrics.gauge("process_max_fds", "As tidegate_open_files_limit.", open_files.limit)


def _broker(metrics: Metrics, readiness: Readiness) -> None:
    metrics.gauge("tidegate_ready", "1 while a canary passes through the broker.", lambda: float(readiness.ready))
    metrics.gauge("tidegate_not_ready_seconds", "For how long none has; 0 while ready.", lambda: readiness.not_ready_s)
    metrics.gauge(
        "tidegate_canary_seconds", "What the newest canary took; NaN: it did not pass.", lambda: readiness.canary_s
    )
    metrics.count("tidegate_broker_losses", "Times that canaries stopped to pass.", lambda: readiness.losses)


def _numbers(config: Config) -> Iterator[tuple[str, float]]:
    """The settings that say how much may be: limits, and when a heartbeat is late."""
    for section in ("limits", "heartbeat"):
        of = getattr(config, section)
        for name in of.__struct_fields__:
            if isinstance(value := getattr(of, name), (int, float)):
                yield f"{section}.{name}", value


def health(config: Config, files: open_files.FileShares, broker: Broker) -> NodeHealth:
    """What a node says of itself on the roster, for `GET /api/health`."""
    return NodeHealth(
        departures=departures(config),
        connections_limit=files.connections,
        open_files=_open_files(int(time.monotonic() / FILES_S)),
        open_files_limit=files.limit,
        clock_off_ms=broker.clock_off_ms,
    )


@lru_cache(maxsize=1)
def _open_files(when: int) -> int:
    """Counted no more than once each ``FILES_S``: where the kernel does not say, all are listed."""
    return open_files.count()
