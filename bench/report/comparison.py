"""What ``python -m bench compare`` found, as plain data: the measuring side fills it, the report side reads it.

A comparison has parts (handshakes, calls …), a part has cases (100 B with 10 in flight …), and each case has, for every
mode, one cell per round. A cell is what one round gave: named values, and curves where one number is not enough.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.report import raw
from bench.report.stats import Summary, client_was_the_limit, summary

MODES = ("direct", "plain", "njs", "openresty")  # an edge reaches the service over a Unix socket, as it is shipped
DIRECT = "direct"
TCP = "-tcp"  # behind the name of an edge: the same, over TCP, as where there are several nodes
RELAY = "-relay"  # behind openresty: without trunks, each client has a connection of its own to the service
EVERY = (
    *("direct", "plain", "plain-tcp", "njs", "njs-tcp"),
    *("openresty", "openresty-tcp", "openresty-relay", "openresty-relay-tcp"),
)


def edge_of(mode: str) -> str:
    """The mode as it is shipped, of which this one is a variation."""
    return mode.removesuffix(TCP).removesuffix(RELAY)


@dataclass(frozen=True)
class Measure:
    """One value that cells have. ``better``: which way is good; None where neither is."""

    name: str
    title: str
    unit: str
    better: Literal["less", "more"] | None = "less"


@dataclass
class Cell:
    """One round of one case in one mode. ``fault``: the run was wrong (a message lost, repeated, out of order; a call
    answered by another mode …), and it has no values. ``curves`` are lists of points (x, y), which the case's how
    explains. ``client_share``: CPU time of the load client by time; ``server_share``: of all that is measured."""

    values: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    client_share: float = 0.0
    server_share: float = 0.0
    fault: str = ""
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def client_was_the_limit(self) -> bool:
        return client_was_the_limit(self.client_share, self.server_share)


@dataclass
class Case:
    """``open_loop``: messages left on a schedule, whatever came back, and latencies count from the schedule."""

    name: str
    title: str
    open_loop: bool = False
    cells: dict[str, list[Cell]] = field(default_factory=dict)  # by mode, round by round

    def values(self, mode: str, name: str) -> list[float]:
        return [cell.values[name] for cell in self.cells.get(mode, ()) if name in cell.values]

    def summary(self, mode: str, name: str) -> Summary | None:
        """None where there is no figure, or where one of its rounds was wrong."""
        return None if self.fault(mode) else summary(self.values(mode, name))

    def ratio(self, mode: str, name: str, to: str = DIRECT) -> Summary | None:
        """Pair by pair: each round by the same round of ``to``."""
        if self.fault(mode) or self.fault(to):
            return None
        pairs = zip(self.cells.get(mode, ()), self.cells.get(to, ()), strict=False)
        return summary([a.values[name] / b.values[name] for a, b in pairs if name in a.values and b.values.get(name)])

    def fault(self, mode: str) -> str:
        """Why there are no figures; empty where there are."""
        faults = [cell.fault for cell in self.cells.get(mode, ()) if cell.fault]
        return faults[0] if faults else ""

    def limited(self, mode: str) -> bool:
        """In most rounds the load client was the limit."""
        cells = self.cells.get(mode, [])
        return sum(cell.client_was_the_limit for cell in cells) * 2 > len(cells)


@dataclass
class Part:
    """``name``: handshake, storm, idle, heartbeat, call, push, slow, reload, growth. ``how``: what was done, in a
    sentence or two for the report. ``curve``: what the axes of the curves are, ``{name: (x title, y title)}``."""

    name: str
    title: str
    how: str
    measures: list[Measure]
    cases: list[Case] = field(default_factory=list)
    curves: dict[str, tuple[str, str]] = field(default_factory=dict)


@dataclass
class Comparison:
    """A whole run. ``complete`` False: it was broken off, or something could not be measured (``problems``)."""

    command: str
    began: str
    seconds: float
    rounds: int
    modes: list[str]
    machine: dict[str, Any]
    conditions: dict[str, Any]
    parts: list[Part] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    complete: bool = False

    def part(self, name: str) -> Part | None:
        return next((part for part in self.parts if part.name == name), None)

    def write(self, folder: Path) -> None:
        raw.write(folder, asdict(self))


def read(folder: Path) -> Comparison:
    """The comparison that was written there. Raises OSError, ValueError, KeyError or TypeError if it is none."""
    found = raw.read(folder)
    return Comparison(**{**found, "parts": [_part(each) for each in found["parts"]]})


def _part(found: dict[str, Any]) -> Part:
    measures = [Measure(**each) for each in found["measures"]]
    curves = {name: (x, y) for name, (x, y) in found["curves"].items()}
    return Part(**{**found, "measures": measures, "curves": curves, "cases": [_case(each) for each in found["cases"]]})


def _case(found: dict[str, Any]) -> Case:
    return Case(**{**found, "cells": {mode: list(_cells(cells)) for mode, cells in found["cells"].items()}})


def _cells(raw: Iterable[dict[str, Any]]) -> Iterable[Cell]:
    for each in raw:
        curves = {name: [(x, y) for x, y in points] for name, points in each["curves"].items()}
        yield Cell(**{**each, "curves": curves})
