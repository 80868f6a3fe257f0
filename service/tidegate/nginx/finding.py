"""What is said of a configuration: two levels, and the weight by which findings are sorted."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from tidegate.nginx.blocks import Block

Level: TypeAlias = Literal["breaks", "harden"]


class Finding(msgspec.Struct, frozen=True):
    """``breaks``: no WebSocket gets through at this place, or a quiet one is cut. ``harden``: they do, and something
    is to be mended all the same. ``weight``: of two of one level the heavier matters more."""

    level: Level
    rule: str
    where: str  # file:line, of a directive or of the place where one is missing
    message: str  # directive, what happens, the cure
    weight: int = 0

    def __str__(self) -> str:
        return f"{self.level}: {self.where}: {self.rule}: {self.message}"

    @property
    def order(self) -> tuple[bool, int, str, int]:
        file, _, line = self.where.rpartition(":")
        return self.level != "breaks", -self.weight, file, int(line)


def breaks(rule: str, at: Block, message: str, weight: int = 50) -> Finding:
    return Finding("breaks", rule, at.where, message, weight)


def harden(rule: str, at: Block, message: str, weight: int) -> Finding:
    return Finding("harden", rule, at.where, message, weight)
