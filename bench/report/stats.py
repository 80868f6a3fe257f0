"""From samples to a verdict: medians, ratios pair by pair, and when there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

ROUNDS = 5  # with fewer nothing is concluded
LIMIT_SHARE = 0.9  # a process that is busy for more of its core than this may be what is measured


def client_was_the_limit(client_share: float, server_share: float) -> bool:
    """The load client had no time left while the servers had: nothing is concluded from it."""
    return client_share >= LIMIT_SHARE > server_share


@dataclass
class Sample:
    """What one round gave for one server. ``value`` None: the run was wrong, and ``fault`` says how. The shares are of
    one core: CPU time by time."""

    value: float | None
    client_share: float = 0.0
    server_share: float = 0.0
    fault: str = ""
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def client_was_the_limit(self) -> bool:
        return client_was_the_limit(self.client_share, self.server_share)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Summary:
    middle: float
    least: float
    most: float
    count: int


def summary(values: Sequence[float]) -> Summary | None:
    """None where there are no values."""
    return Summary(median(values), min(values), max(values), len(values)) if values else None


def values(samples: Sequence[Sample]) -> list[float]:
    return [sample.value for sample in samples if sample.value is not None]


def ratios(samples: Sequence[Sample], references: Sequence[Sample]) -> list[float]:
    """Of the rounds in which both have a figure."""
    pairs = zip(samples, references, strict=False)
    return [a.value / b.value for a, b in pairs if a.value is not None and b.value]


@dataclass(frozen=True)
class Target:
    """``series`` of ``suite`` is to be at most ``limit``: of the series ``reference``, or as it is (None). ``below``:
    less than that."""

    work: str
    suite: str
    series: str
    reference: str | None
    limit: float
    below: bool = False
    unit: str = ""

    @property
    def words(self) -> str:
        sign = "below" if self.below else "at most"
        if self.reference is None:
            return f"{sign} {self.limit:g} {self.unit}".rstrip()
        return f"{sign} {self.limit:g} x {self.reference}" if self.limit != 1 else f"{sign} {self.reference}"


@dataclass(frozen=True)
class Verdict:
    """``result``: what ``figure`` says of the target, or that nothing can be concluded, and ``reason``."""

    target: Target
    result: Literal["met", "not met", "no conclusion"]
    figure: Summary | None
    reason: str = ""


def judge(target: Target, samples: Sequence[Sample], references: Sequence[Sample], rounds: int = ROUNDS) -> Verdict:
    """``references`` are those of the target's reference, round by round; empty where it has none. A median that meets
    the target does not hide that some rounds did not: the reason says so."""
    involved = [*samples, *references]
    faults = [sample.fault for sample in involved if sample.fault]
    found = values(samples) if target.reference is None else ratios(samples, references)
    figure = summary(found)
    if faults:
        return Verdict(target, "no conclusion", None, f"a run was wrong: {faults[0]}")
    if figure is None:
        return Verdict(target, "no conclusion", None, "not measured")
    limited = [sample for sample in involved if sample.client_was_the_limit]
    if len(limited) * 2 > len(found):
        shares = summary([sample.client_share for sample in limited])
        assert shares is not None
        return Verdict(
            target, "no conclusion", figure, f"the load client was the limit ({shares.middle:.0%} of its core)"
        )
    if figure.count < rounds:
        return Verdict(target, "no conclusion", figure, f"{figure.count} rounds, {rounds} are needed")
    met = [value < target.limit if target.below else value <= target.limit for value in found]
    middle_met = figure.middle < target.limit if target.below else figure.middle <= target.limit
    against = sum(1 for each in met if each is not middle_met)
    return Verdict(
        target,
        "met" if middle_met else "not met",
        figure,
        f"{against} of {len(met)} rounds say otherwise" if against else "",
    )
