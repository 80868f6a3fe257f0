"""What runs and how long it will take: a bar on a terminal, elsewhere a line for each part."""

from __future__ import annotations

import shutil
import sys
import time

WIDTH = 24


class Progress:
    """``about_s``: what all steps together take by experience; the time left follows from how those behind went."""

    def __init__(self, about_s: float) -> None:
        self._about_s = about_s
        self._begun_s = time.monotonic()
        self._behind_s = 0.0  # of ``about_s``
        self._step_s = 0.0
        self._is_terminal = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._is_terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def say(self, what: str, number: int, rounds: int, about_s: float) -> None:
        """The step that begins; the one before it is done."""
        self._behind_s += self._step_s
        self._step_s = about_s
        if not self._is_terminal:
            return
        share = self._behind_s / self._about_s
        bar = "#" * round(WIDTH * share) + "-" * (WIDTH - round(WIDTH * share))
        round_of = f"round {number} of {rounds}" if number else "warming up"
        text = f"[{bar}] {share:4.0%}, {clock(self.left_s())} left  {what}, {round_of}"
        columns = shutil.get_terminal_size().columns
        print(f"\r\x1b[K{text[: columns - 1]}", end="", file=sys.stderr, flush=True)

    def left_s(self) -> float:
        """By the pace so far, where there has been some."""
        passed_s = time.monotonic() - self._begun_s
        pace = passed_s / self._behind_s if self._behind_s > 5 else 1.0
        return pace * (self._about_s - self._behind_s)

    def done(self, part: str) -> None:
        if not self._is_terminal:
            share = (self._behind_s + self._step_s) / self._about_s
            passed = clock(time.monotonic() - self._begun_s)
            print(f"{part}: done after {passed} ({share:.0%})", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """As 3:07."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
