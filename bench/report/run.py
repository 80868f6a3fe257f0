"""What a run found, as raw JSON, as report.md and as a table on the terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.report import raw
from bench.report.machine import machine
from bench.report.stats import Sample, Summary, Target, Verdict, judge, ratios, summary, values

Series = dict[str, list[Sample]]


@dataclass(frozen=True)
class Part:
    """One suite's results. ``baseline`` is the series to which the others are put in proportion."""

    name: str
    title: str
    unit: str
    how: str
    baseline: str
    series: Series


@dataclass
class Run:
    """A whole run. ``complete`` False: it was broken off, and has what was done until then."""

    command: str
    conditions: dict[str, Any]
    targets: Sequence[Target]
    rounds_needed: int
    parts: list[Part] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    complete: bool = False
    machine: dict[str, Any] = field(default_factory=machine)
    title: str = "The service and what others would use"
    began: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M:%S %z"))

    def verdicts(self) -> list[Verdict]:
        """Of the targets whose suites were run."""
        found = []
        for target in self.targets:
            for part in self.parts:
                if part.name == target.suite:
                    references = part.series.get(target.reference or "", [])
                    found.append(judge(target, part.series.get(target.series, []), references, self.rounds_needed))
        return found

    def write(self, folder: Path) -> None:
        """The raw figures and report.md."""
        folder.mkdir(parents=True, exist_ok=True)
        raw.write(folder, self.as_json())
        (folder / "report.md").write_text(self.markdown())

    def as_json(self) -> dict[str, Any]:
        return {
            "command": self.command,
            "began": self.began,
            "complete": self.complete,
            "conditions": self.conditions,
            "machine": self.machine,
            "problems": self.problems,
            "verdicts": [asdict(verdict) for verdict in self.verdicts()],
            "parts": [
                {
                    "name": part.name,
                    "unit": part.unit,
                    "series": {name: [each.as_json() for each in samples] for name, samples in part.series.items()},
                }
                for part in self.parts
            ],
        }

    def markdown(self) -> str:
        lines = [f"# {self.title}", ""]
        if not self.complete:
            lines += ["**Broken off: not everything was measured.**", ""]
        lines += [f"`{self.command}`, begun {self.began}.", ""]
        lines += ["| work | target | figure: median (min .. max) | |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(_cells(verdict))} |" for verdict in self.verdicts()]
        for problem in self.problems:
            lines += ["", f"Not measured: {problem}"]
        for part in self.parts:
            lines += ["", f"## {part.title}", "", f"{part.unit[0].upper()}{part.unit[1:]}: {part.how}.", ""]
            lines += _table(part)
        lines += ["", "## Conditions", ""]
        lines += [f"- {name}: {value}" for name, value in {**self.conditions, **self.machine}.items()]
        return "\n".join(lines) + "\n"

    def text(self) -> str:
        """The targets, for a terminal."""
        rows = [["work", "target", "figure (min .. max)", ""], *map(_cells, self.verdicts())]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
            for row in rows
        )


def _cells(verdict: Verdict) -> list[str]:
    unit = "" if verdict.target.reference is None else " x"
    figure = _numbers(verdict.figure) + unit if verdict.figure else ""
    result = verdict.result + (f": {verdict.reason}" if verdict.reason else "")
    return [verdict.target.work, verdict.target.words, figure, result]


def _numbers(found: Summary) -> str:
    return f"{number(found.middle)} ({number(found.least)} .. {number(found.most)})"


def number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _table(part: Part) -> list[str]:
    to = f"to {part.baseline}" if part.baseline else ""
    titles = ["", "median (min .. max)", to, "in the kernel", "own", "rounds", "server busy", "client busy"]
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    base = part.series.get(part.baseline, [])
    for name, samples in part.series.items():
        found = summary(values(samples))
        faults = [sample.fault for sample in samples if sample.fault]
        ratio = summary(ratios(samples, base))
        server = summary([sample.server_share for sample in samples])
        client = summary([sample.client_share for sample in samples])
        limit = ", the limit" if sum(each.client_was_the_limit for each in samples) * 2 > len(samples) else ""
        cells = [
            name,
            f"no figures: {faults[0]}" if faults else _numbers(found) if found else "",
            _numbers(ratio) if ratio and not faults and name != part.baseline else "",
            *(_split(samples) if not faults else ("", "")),
            str(len(samples)),
            f"{server.middle:.0%}" if server and server.middle else "",
            f"{client.middle:.0%}{limit}" if client and client.middle else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _split(samples: Sequence[Sample]) -> tuple[str, str]:
    """Of a figure of CPU time, the kernel's part and the rest. The kernel counts its part in steps of 10 ms, so that
    all rounds together tell it, if they are long enough."""
    cpu_s = sum(each.more.get("server_cpu_s", 0.0) for each in samples)
    kernel_s = sum(each.more.get("server_kernel_s", 0.0) for each in samples)
    found = summary(values(samples))
    if found is None or cpu_s < 1:
        return "", ""
    kernel = found.middle * min(kernel_s / cpu_s, 1)
    return number(kernel), number(found.middle - kernel)
