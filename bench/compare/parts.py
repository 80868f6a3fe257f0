"""What ``python -m bench compare`` measures: its parts, and those that are about one connection's work. A plan says how
a part's cells are made; the runner (compare.py) makes them round by round, in one mode after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from bench.compare.modes import VIA
from bench.compare.stand import Stand, cell
from bench.report.comparison import MODES, Case, Cell, Measure, edge_of

OWN_SHARE = 0.99  # of the calls, which the mode's own caller must have made
MANY = 50  # handshakes under way

P50, P99 = Measure("p50_ms", "p50", "ms"), Measure("p99_ms", "p99", "ms")
P999 = Measure("p999_ms", "p99.9", "ms")


def cpu(per: str, *programs: str) -> list[Measure]:
    """Of each program, and of all together."""
    found = [Measure(f"{name}_cpu_us", f"CPU of {name}", f"µs per {per}") for name in programs]
    return [*found, Measure("cpu_us", "CPU in all", f"µs per {per}")]


def rate(what: str) -> Measure:
    return Measure("rate", what, "1/s", "more")


LATENCY = {"latency": ("percentile", "ms")}
BACK = {"back": ("s", "share of clients that are back and complete")}


@dataclass(frozen=True)
class Size:
    """How much is done: in each round, case and mode."""

    rounds: int
    warm_up: bool  # by a round that is dropped
    handshakes: int
    storm: int
    idle: int
    window_s: float  # of the heartbeats while idle
    questions: int
    calls: int  # of 100 B with one in flight
    members: int
    closed: int  # pushes of 100 B to the group in closed loop; others in proportion
    open_s: float
    slow_mb: int  # pushed to the group of those who stop reading
    growth: int


FULL = Size(
    rounds=5,
    warm_up=True,
    handshakes=2000,
    storm=1000,
    idle=1000,
    window_s=2,
    questions=3000,
    calls=900,
    members=1000,
    closed=30,
    open_s=1.0,
    slow_mb=20,
    growth=10_000,
)
QUICK = Size(
    rounds=1,
    warm_up=False,
    handshakes=200,
    storm=200,
    idle=200,
    window_s=1,
    questions=200,
    calls=60,
    members=200,
    closed=10,
    open_s=0.4,
    slow_mb=5,
    growth=2000,
)


@dataclass
class Turn:
    """One cell that is being made. ``number``: the round, 0 the one to warm up."""

    number: int
    case: Case


Measured: TypeAlias = Callable[[Stand, Turn], Cell]


@dataclass(frozen=True)
class Work:
    """One case. ``about_s``: what a cell takes, by experience, for the time that is left."""

    name: str
    title: str
    measure: Measured
    about_s: float = 1.0
    modes: tuple[str, ...] = MODES  # and variations of these
    open_loop: bool = False

    def is_of(self, mode: str) -> bool:
        return edge_of(mode) in self.modes


@dataclass(frozen=True)
class Plan:
    """One part. ``begin``: what a mode's clients do at the beginning of each round. ``fresh``: each cell has processes
    of its own, with these settings, and no round is for warming up."""

    name: str
    title: str
    how: str
    measures: list[Measure]
    works: list[Work]
    curves: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    begin: Callable[[Stand, int], None] | None = None
    fresh: Mapping[str, Any] | None = None


def handshake(size: Size) -> Plan:
    def measure(count: int, at_once: int) -> Measured:
        def shake(stand: Stand, turn: Turn) -> Cell:
            answer = stand.enter("handshake", count, "handshake", at_once)
            stand.ask("leave", name="handshake")
            return cell(answer, count, "nginx", "service")

        return shake

    few = size.handshakes // 5
    return Plan(
        "handshake",
        "Handshakes",
        "Clients with a token that was seen before connect, join one group and get their welcome; latency is from "
        "connect to welcome.",
        [P50, P99, rate("handshakes"), *cpu("handshake", "nginx", "service")],
        [
            Work("one", "one after the other", measure(few, 1), 0.6),
            Work("many", f"{MANY} at a time", measure(size.handshakes, MANY), 1.2),
        ],
        LATENCY,
    )


def heartbeat(size: Size) -> Plan:
    clients = 100  # so that none of them uses up its njs budget

    def begin(stand: Stand, number: int) -> None:
        stand.enter("heartbeat", clients)

    def measure(kind: str, in_flight: int) -> Measured:
        def ask(stand: Stand, turn: Turn) -> Cell:
            count = size.questions if in_flight == 1 else 2 * size.questions
            answer = stand.measure("ask", name="heartbeat", kind=kind, total=count, in_flight=in_flight)
            return cell(answer, count, "nginx", "service")

        return ask

    return Plan(
        "heartbeat",
        "Heartbeats",
        f"The text `ping`, answered by `pong`, and the JSON command ping, whose answer has a cursor; over {clients} "
        "connections in turn, with one question under way in all, or ten.",
        [P50, P99, rate("round trips"), *cpu("round trip", "nginx", "service")],
        [
            Work("text-1", "text, 1 in flight", measure("heartbeat", 1), 0.5),
            Work("text-10", "text, 10 in flight", measure("heartbeat", 10), 0.5),
            Work("ping-1", "JSON ping, 1 in flight", measure("ping", 1), 0.5),
            Work("ping-10", "JSON ping, 10 in flight", measure("ping", 10), 0.5),
        ],
        LATENCY,
        begin,
    )


def call(size: Size) -> Plan:
    def measure(bytes_: int, in_flight: int, times: int, each: int, spent: int = 0) -> Measured:
        count = times * size.calls
        clients = max(1, count // each)

        def ask(stand: Stand, turn: Turn) -> Cell:
            stand.enter("call", clients)
            order = {"name": "call", "kind": "call", "in_flight": in_flight, "size": bytes_}
            if spent:
                stand.measure("ask", **order, total=spent * clients)
            before = stand.mode.calls()
            answer = stand.measure("ask", **order, total=count)
            after = stand.mode.calls()
            stand.ask("leave", name="call")
            made = {name: after[name] - before[name] for name in after if after[name] != before[name]}
            fault = wrong_caller(made, "service" if spent else VIA[edge_of(stand.name)], count)
            return Cell(fault=fault) if fault else cell(answer, count, "nginx", "service", "app", via=made)

        return ask

    # Each client makes so few that it stays below 100 calls and 1 MiB, after which njs leaves the rest to the service.
    return Plan(
        "call",
        "Calls: from WebSocket to REST and back",
        "The method `echo` of the example application, with data of this size both ways; over so many new connections "
        "that each stays within what njs spends on one. The application counts who made the requests: a figure is that "
        "of the mode's own caller for at least 99 % of them.",
        [P50, P99, rate("calls"), *cpu("call", "nginx", "service", "app")],
        [
            Work("100-1", "100 B, 1 in flight", measure(100, 1, 1, each=30), 1.5),
            Work("100-10", "100 B, 10 in flight", measure(100, 10, 2, each=40), 2),
            Work("100-100", "100 B, 100 in flight", measure(100, 100, 4, each=24), 3),
            Work("10k-10", "10 KB, 10 in flight", measure(10_240, 10, 1, each=12), 2),
            Work(
                "beyond",
                "100 B, 10 in flight, beyond the budget of njs",
                measure(100, 10, 2, each=60, spent=110),
                4,
                ("direct", "njs"),
            ),
        ],
        LATENCY,
    )


def wrong_caller(made: Mapping[str, int], own: str, count: int) -> str:
    """What is wrong with requests that were ``made``, by X-Tidegate-Via, for ``count`` calls; empty if nothing is."""
    if sum(made.values()) < count:
        return f"the application has seen {sum(made.values())} of {count} calls"
    if made.get(own, 0) < OWN_SHARE * sum(made.values()):
        return f"less than 99 % of the calls came from {own}: {dict(made)}"
    return ""
