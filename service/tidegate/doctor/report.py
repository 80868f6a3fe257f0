"""What was found: what was looked at, how it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

# wrong: clients or messages suffer by it. weak: it works, and is one step from that, or is meant for trying only.
# unknown: it could not be measured, and ``do`` says what would be needed.
Level: TypeAlias = Literal["wrong", "weak", "unknown", "ok"]
LEVELS: tuple[Level, ...] = ("wrong", "weak", "unknown", "ok")


class Finding(msgspec.Struct, frozen=True):
    """One line. ``do`` is empty where there is nothing to do."""

    what: str
    level: Level
    how: str
    do: str = ""

    def __str__(self) -> str:
        cure = f" -> {self.do}" if self.do else ""
        return f"{self.level:8}{self.what}: {self.how}{cure}"


def ok(what: str, how: str) -> Finding:
    return Finding(what, "ok", how)


def wrong(what: str, how: str, do: str) -> Finding:
    return Finding(what, "wrong", how, do)


def weak(what: str, how: str, do: str) -> Finding:
    return Finding(what, "weak", how, do)


def unknown(what: str, how: str, do: str = "") -> Finding:
    return Finding(what, "unknown", how, do)


def heaviest_first(findings: Iterable[Finding]) -> list[Finding]:
    """In the order in which they were found within a level."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def summary(findings: Iterable[Finding]) -> str:
    """``2 wrong, 1 weak, 17 ok``."""
    levels = [finding.level for finding in findings]
    return ", ".join(f"{levels.count(level)} {level}" for level in LEVELS if level in levels)


def number(amount: float, unit: str) -> str:
    """As one says it: a figure of two or three digits."""
    return f"{amount:.0f} {unit}" if amount >= 10 else f"{amount:.2g} {unit}"


def size(count: float) -> str:
    """Bytes as one says them."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return number(count, unit)
        count /= 1024
    return number(count, "GiB")
