"""What the service counts, and its Prometheus text.

A count is a plain integer, or a dictionary of them, and a histogram a list of them; they become metrics when somebody
scrapes. What is told apart by labels is there from the start, at 0: a first error would else be no increase for
Prometheus, but a series that begins.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate, product
from typing import Any, NamedTuple, get_args

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from tidegate.core import errors
from tidegate.core.errors import CloseCode, Refused
from tidegate.core.model import GapReason, History, Message, kind_of
from tidegate.core.pace import What
from tidegate.core.protocol import TYPES

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series per counter that nobody asks for

_FAST = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Labels = tuple[str, ...]
Reading = tuple[str, str, Callable[[], float]]  # name, help, value now
Tally = Counter[Labels]  # how often, by the values of the labels


def each(values: Iterable[str]) -> Iterator[Labels]:
    """Those of a single label."""
    return ((value,) for value in values)


def codes(*kinds: type[Refused]) -> list[str]:
    """The codes of these ways to say no."""
    return [kind.code for kind in kinds]


def _all_codes(kind: type[Refused] = Refused) -> set[str]:
    return {kind.code}.union(*map(_all_codes, kind.__subclasses__()))


# What a handshake may be answered with, by the node's HTTP server too.
_HANDSHAKES = codes(
    errors.BadRequest,
    errors.Unauthorized,
    errors.NotAllowed,
    errors.OriginNotAllowed,
    errors.HostNotAllowed,
    errors.NotFound,
    errors.MethodNotAllowed,
    errors.TooManyGroups,
    errors.TooSlow,
    errors.TooLarge,
    errors.UpgradeRequired,
    errors.TooManyConnections,
    errors.TooFast,
    errors.HeadersTooLarge,
    errors.InternalError,
    errors.Unavailable,
    errors.BrokerDown,
    errors.AuthUnavailable,
    errors.Full,
    errors.Busy,
    errors.Draining,
)
_PUSHES = ["accepted", "rejected", *codes(errors.KeyReused, errors.InternalError, errors.BrokerDown, errors.NotTried)]
_CALLS = ["reply", *codes(errors.CallTimeout, errors.CallUnavailable, errors.CallBadAnswer, errors.TooManyCalls)]
_LOGINS = ["allowed", *codes(errors.Unauthorized, errors.NotAllowed, errors.AuthUnavailable)]


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


class Ages:
    """How old the messages of a turn are when they are written. ``note`` hears each that the node hears. ``turns`` gets
    the time (Unix ms) of each turn that had any."""

    def __init__(self, seconds: Durations) -> None:
        self._seconds = seconds
        self._journalled_ms: defaultdict[int, int] = defaultdict(int)  # of how many messages of this turn
        self.turns: deque[Any] = deque(maxlen=0)

    def note(self, message: Message) -> None:
        self._journalled_ms[message.time_ms] += 1

    def written(self) -> None:
        """The turn has been written."""
        if self._journalled_ms:
            now_ms = time.time() * 1000
            for time_ms, messages in self._journalled_ms.items():
                self._seconds.observe(max(0.0, now_ms - time_ms) / 1000, messages)
            self._journalled_ms.clear()
            self.turns.append(now_ms)


class Metrics(Collector):
    """One per process; ``gauge`` and ``count`` register values that others keep."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._gauges: list[Reading] = []
        self._facts: list[tuple[str, str, Labels, Mapping[Labels, float]]] = []
        self._counts: list[Reading] = []
        self._tallies: list[tuple[str, str, Labels, Tally]] = []
        self._durations: list[tuple[str, str, Labels, Mapping[Labels, Durations]]] = []
        self._known: dict[str, set[Labels]] = {}
        self.open_connections = 0
        self.gaps = 0
        self.broker_gaps = 0
        self.holes = 0
        self.skipped = 0
        self.moving = 0
        self.missed = 0
        self.handshakes = self.tally(
            "tidegate_handshakes", "Handshakes by result.", "result", known=each(["accepted", *_HANDSHAKES])
        )
        self.moves = self.tally(
            "tidegate_moves",
            "Connections on trunks that were taken up, lost or handed over.",
            "what",
            known=each(["in", "lost", "resumed", "handed over"]),
        )
        self.closes = self.tally(
            "tidegate_closes",
            "Closed connections by close code.",
            "code",
            known=each([*(str(int(code)) for code in CloseCode), "other"]),
        )
        self.pushes = self.tally(
            "tidegate_pushes",
            "Pushes by address kind and result.",
            "kind",
            "result",
            known=[*product(["client", "group", "all"], _PUSHES), ("group", "published"), ("unknown", "rejected")],
        )
        self.recoveries = self.tally(
            "tidegate_recoveries",
            "Streams continued from a position, by result.",
            "result",
            known=each(["recovered", *get_args(GapReason)]),
        )
        self.commands = self.tally("tidegate_commands", "Commands by type.", "type", known=each(TYPES))
        self.refusals = self.tally(
            "tidegate_refusals", "Limits and refusals met, by code.", "code", known=each(sorted(_all_codes()))
        )
        self.shares_used = self.tally(
            "tidegate_shares_used",
            "Turns in which a connection had more to do than its share, by what it was.",
            "what",
            known=each(["frames", "commands", "answers"]),
        )
        self.new_streams = self.tally(
            "tidegate_new_streams",
            "Streams that clients began, by joining or by publishing.",
            "by",
            known=each(["join", "publish"]),
        )
        self.unsent_ended = self.tally(
            "tidegate_unsent_ended",
            "Connections and trunks ended because too much of all waited to be sent.",
            "what",
            known=each(["connection", "trunk"]),
        )
        self.paced = self.tally(
            "tidegate_paced",
            "Times that a connection was not read for a while: it had sent more messages or bytes than it may.",
            "what",
            known=each(get_args(What)),
        )
        self.fell_back = self.tally(
            "tidegate_slow_streams",
            "Streams that a slow connection fell back in, by its group's policy.",
            "policy",
            known=each(["latest", "replay"]),
        )
        self.call_seconds = self.durations("tidegate_call_seconds", "Calls by outcome.", "outcome", known=each(_CALLS))
        self.auth_seconds = self.durations(
            "tidegate_auth_seconds",
            "Questions to the application who a client is, by reason and outcome.",
            "why",
            "outcome",
            known=product(["handshake", "move", "recheck"], _LOGINS),
        )
        self.push_to_write = self.durations(
            "tidegate_push_to_write_seconds", "From journalling to the write on this node."
        )[()]
        self.ages = Ages(self.push_to_write)
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

    def facts(self, name: str, text: str, labels: Labels, values: Mapping[Labels, float]) -> None:
        """Gauges that others keep, by the values of the labels."""
        self._facts.append((name, text, labels, values))

    def tally(self, name: str, text: str, *labels: str, known: Iterable[Labels]) -> Tally:
        """Add to it: ``tally["accepted",] += 1``. ``known``: all that it will ever tell apart."""
        tally: Tally = Counter(dict.fromkeys(known, 0))
        self.tallied(name, text, labels, tally)
        return tally

    def tallied(self, name: str, text: str, labels: Labels, tally: Tally) -> None:
        """A tally that others keep."""
        self._tallies.append((name, text, labels, tally))
        self._known[name] = set(tally)

    def durations(
        self, name: str, text: str, *labels: str, known: Iterable[Labels] = ((),)
    ) -> defaultdict[Labels, Durations]:
        """Observe by the values of the labels: ``durations["reply",].observe(0.1)``; ``known`` as for ``tally``."""
        durations: defaultdict[Labels, Durations] = defaultdict(Durations)
        for values in known:
            durations[values]
        self.lasted(name, text, labels, durations)
        return durations

    def lasted(self, name: str, text: str, labels: Labels, durations: Mapping[Labels, Durations]) -> None:
        """Durations that others keep."""
        self._durations.append((name, text, labels, durations))
        self._known[name] = set(durations)

    def unforeseen(self) -> dict[str, set[Labels]]:
        """What was counted and could not be seen before it was: an omission in this module. By the metric's name."""
        kept: list[tuple[str, set[Labels]]] = [(name, set(tally)) for name, _, _, tally in self._tallies]
        kept += [(name, set(durations)) for name, _, _, durations in self._durations]
        return {name: values - self._known[name] for name, values in kept if values - self._known[name]}

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
        for name, text, labels, values in self._facts:
            gauges = GaugeMetricFamily(name, text, labels=labels)
            for of, number in values.items():
                gauges.add_metric(of, number)
            yield gauges
        for name, text, value in self._counts:
            yield CounterMetricFamily(name, text, value=value())
        for name, text, labels, tally in self._tallies:
            family = CounterMetricFamily(name, text, labels=labels)
            for of, count in tally.items():
                family.add_metric(of, count)
            yield family
        ends = [*map(str, _FAST), "+Inf"]
        for name, text, labels, durations in self._durations:
            histogram = HistogramMetricFamily(name, text, labels=labels)
            for of, found in durations.items():
                buckets = list(zip(ends, accumulate(found.counts), strict=True))
                histogram.add_metric(of, buckets, found.total_s)
            yield histogram

    def described(self) -> list[Described]:
        """All that is registered here, by name."""
        found = [Described(name, "gauge", (), text) for name, text, _ in self._gauges]
        found += [Described(name, "gauge", labels, text) for name, text, labels, _ in self._facts]
        found += [Described(f"{name}_total", "counter", (), text) for name, text, _ in self._counts]
        found += [Described(f"{name}_total", "counter", labels, text) for name, text, labels, _ in self._tallies]
        found += [Described(name, "histogram", labels, text) for name, text, labels, _ in self._durations]
        return sorted(found)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        return iter(())  # what is registered later need not be known when this collector registers

    def text(self) -> bytes:
        return generate_latest(self.registry)
