"""What is measured when it is asked for: numbers that the parts of a node have anyway."""

from __future__ import annotations

from tidegate import log
from tidegate.auth.callback import Callback
from tidegate.core.hub import Hub
from tidegate.gateway.gateway import Gateway
from tidegate.gateway.rechecks import Rechecks
from tidegate.metrics import Metrics
from tidegate.process import open_files
from tidegate.slots import Slots
from tidegate.trunk.server import TrunkServer
from tidegate.websocket.admission import Admission
from tidegate.websocket.unsent import Unsent


def register(
    metrics: Metrics,
    *,
    hub: Hub,
    gateway: Gateway,
    admission: Admission,
    unsent: Unsent,
    trunks: TrunkServer,
    calls: Slots,
    callback: Callback | None,
    rechecks: Rechecks | None,
) -> None:
    """``callback`` and ``rechecks``: where the application says who a client is."""
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
    metrics.gauge("tidegate_ready", "1 while a canary passes through the broker.", lambda: float(gateway.ready))
    metrics.gauge("tidegate_trunks", "Trunks of edges' workers.", lambda: len(trunks.workers))
    metrics.gauge("tidegate_trunk_connections", "Connections on trunks.", lambda: trunks.sessions)
    metrics.count("tidegate_trunk_messages", "Messages that crossed a trunk.", lambda: trunks.heard)
    metrics.count("tidegate_reading_paused", "Peers with too many commands.", lambda: gateway.paused)
    metrics.count("tidegate_deliveries", "Messages queued for a connection.", lambda: hub.deliveries)
    metrics.count("tidegate_delivered_bytes", "Bytes queued for a connection.", lambda: hub.delivered_bytes)
