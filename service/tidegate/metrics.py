"""What the service counts, and its Prometheus text.

A count is a plain integer, or a dictionary of them, and a histogram a list of them; they become metrics when somebody
scrapes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from tidegate.core.errors import CloseCode
from tidegate.core.model import History, kind_of

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series per counter that nobody asks for

_FAST = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Reading = tuple[str, str, Callable[[], float]]  # name, help, value now
Tally = Counter[tuple[str, ...]]  # how often, by the values of the labels


class Described(NamedTuple):
    """A metric as a reader of ``/metrics`` finds it; ``kind`` is Prometheus' type."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


class Durations:
    """A histogram: how often something took how long, in seconds."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(_FAST) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        self.counts[bisect_left(_FAST, seconds)] += times
        self.total_s += seconds * times


class Metrics(Collector):
    """One per process; ``gauge`` and ``count`` register values that others keep."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._gauges: list[Reading] = []
        self._counts: list[Reading] = []
        self._tallies: list[tuple[str, str, tuple[str, ...], Tally]] = []
        self._durations: list[tuple[str, str, tuple[str, ...], dict[tuple[str, ...], Durations]]] = []
        self.open_connections = 0
        self.gaps = 0
        self.broker_gaps = 0
        self.holes = 0
        self.skipped = 0
        self.moving = 0
        self.missed = 0
        self.handshakes = self.tally("tidegate_handshakes", "Handshakes by result.", "result")
        self.moves = self.tally(
            "tidegate_moves", "Connections on trunks that were taken up, lost or handed over.", "what"
        )
        self.closes = self.tally("tidegate_closes", "Closed connections by close code.", "code")
        self.pushes = self.tally("tidegate_pushes", "Pushes by address kind and result.", "kind", "result")
        self.recoveries = self.tally("tidegate_recoveries", "Streams continued from a position, by result.", "result")
        self.commands = self.tally("tidegate_commands", "Commands by type.", "type")
        self.refusals = self.tally("tidegate_refusals", "Limits and refusals met, by code.", "code")
        self.shares_used = self.tally(
            "tidegate_shares_used", "Turns in which a connection had more to do than its share, by what it was.", "what"
        )
        self.new_streams = self.tally(
            "tidegate_new_streams", "Streams that clients began, by joining or by publishing.", "by"
        )
        self.unsent_ended = self.tally(
            "tidegate_unsent_ended", "Connections and trunks ended because too much of all waited to be sent.", "what"
        )
        self.paced = self.tally(
            "tidegate_paced",
            "Times that a connection was not read for a while: it had sent more messages or bytes than it may.",
            "what",
        )
        self.fell_back = self.tally(
            "tidegate_slow_streams", "Streams that a slow connection fell back in, by its group's policy.", "policy"
        )
        self.call_seconds = self.durations("tidegate_call_seconds", "Calls by outcome.", "outcome")
        self.auth_seconds = self.durations(
            "tidegate_auth_seconds",
            "Questions to the application who a client is, by reason and outcome.",
            "why",
            "outcome",
        )
        self.push_to_write = self.durations(
            "tidegate_push_to_write_seconds", "From journalling to the write on this node."
        )[()]
        self.ping_seconds = self.durations("tidegate_heartbeat_seconds", "From a control ping to its pong.")[()]
        self.loop_lag = self.durations(
            "tidegate_loop_lag_seconds", "How late the event loop was, by a timer of 50 ms."
        )[()]
        self.count("tidegate_gaps", "Gaps told to one connection while it caught up.", lambda: self.gaps)
        self.count(
            "tidegate_broker_gaps",
            "Gaps that the broker announced in a stream, told to all of the node who are live in it.",
            lambda: self.broker_gaps,
        )
        self.count(
            "tidegate_holes",
            "Holes that the broker left without a word: a fault, and an ERROR in the log.",
            lambda: self.holes,
        )
        self.count(
            "tidegate_skipped_messages",
            "Messages that a slow connection was not sent, because newer ones stand for them.",
            lambda: self.skipped,
        )
        self.count("tidegate_moving", "Connections told that their node stops.", lambda: self.moving)
        self.count("tidegate_missed_messages", "Messages that followed a given position.", lambda: self.missed)
        self.registry.register(self)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        self._gauges.append((name, text, value))

    def count(self, name: str, text: str, value: Callable[[], float]) -> None:
        self._counts.append((name, text, value))

    def tally(self, name: str, text: str, *labels: str) -> Tally:
        """Add to it: ``tally["accepted",] += 1``."""
        tally: Tally = Counter()
        self._tallies.append((name, text, labels, tally))
        return tally

    def durations(self, name: str, text: str, *labels: str) -> defaultdict[tuple[str, ...], Durations]:
        """Observe by the values of the labels: ``durations["reply",].observe(0.1)``."""
        durations: defaultdict[tuple[str, ...], Durations] = defaultdict(Durations)
        self._durations.append((name, text, labels, durations))
        return durations

    def recovered(self, page: History) -> None:
        """A stream was asked for with a position, and this is its first page."""
        if page.gap is None:
            result = "recovered"
        else:
            result = page.gap.reason
            self.gaps += 1
        self.recoveries[result,] += 1
        self.missed += page.top - page.start.offset

    def reset(self) -> None:
        self.recoveries["reset",] += 1
        self.gaps += 1

    def pushed(self, stream: str, result: str) -> None:
        """One push: ``result`` is accepted, published (by a client), or the code with which it was refused. ``stream``
        is empty where it named none."""
        self.pushes[kind_of(stream) if stream else "unknown", result] += 1

    def opened(self) -> None:
        self.open_connections += 1
        self.handshakes["accepted",] += 1

    def moved_in(self) -> None:
        """A connection was taken up from another node."""
        self.open_connections += 1
        self.moves["in",] += 1

    def moved_out(self, why: str) -> None:
        """A connection may go on at another node."""
        self.open_connections -= 1
        self.moves[why,] += 1

    def closed(self, code: int) -> None:
        """One connection fewer. Peers may choose any code of 3000-4999: they share a label, or the series would
        grow."""
        self.open_connections -= 1
        known = code in CloseCode._value2member_map_
        self.closes[str(int(code)) if known else "other",] += 1

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily]:
        for name, text, value in self._gauges:
            yield GaugeMetricFamily(name, text, value=value())
        for name, text, value in self._counts:
            yield CounterMetricFamily(name, text, value=value())
        for name, text, labels, tally in self._tallies:
            family = CounterMetricFamily(name, text, labels=labels)
            for values, count in tally.items():
                family.add_metric(values, count)
            yield family
        ends = [*map(str, _FAST), "+Inf"]
        for name, text, labels, durations in self._durations:
            histogram = HistogramMetricFamily(name, text, labels=labels)
            for values, found in durations.items():
                buckets = list(zip(ends, accumulate(found.counts), strict=True))
                histogram.add_metric(values, buckets, found.total_s)
            yield histogram

    def described(self) -> list[Described]:
        """All that is registered here, by name."""
        found = [Described(name, "gauge", (), text) for name, text, _ in self._gauges]
        found += [Described(f"{name}_total", "counter", (), text) for name, text, _ in self._counts]
        found += [Described(f"{name}_total", "counter", labels, text) for name, text, labels, _ in self._tallies]
        found += [Described(name, "histogram", labels, text) for name, text, labels, _ in self._durations]
        return sorted(found)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        return iter(())  # what is registered later need not be known when this collector registers

    def text(self) -> bytes:
        return generate_latest(self.registry)
