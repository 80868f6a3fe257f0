"""``python -m bench stalled``, small: that it runs, and that it refuses what says nothing."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from typing import Any, cast

import pytest

from bench.compare import stalled
from bench.compare.stand import Stand
from bench.load.publisher import LoadError
from tests.support import Process

ARGS = argparse.Namespace(readers=40, stalled=4, pushes=150, size=8192)


@pytest.mark.slow
async def test_a_small_run_measures_both_halves_of_a_pair(start_process: Callable[..., Process]) -> None:
    small = ("--readers", "40", "--stalled", "4", "--pairs", "1", "--pushes", "150")
    process = start_process(sys.executable, "-m", "bench", "stalled", *small)
    assert await process.ended(60) in (0, 1)  # so few say nothing of the ratio
    found = re.search(r"direct +p99 of 40 alone +([\d.]+) ms, beside 4 that stall +([\d.]+) ms, ratio", str(process))
    assert found, str(process)
    assert float(found[1]) > 0
    assert float(found[2]) > 0


class Scripted:
    """A stand whose service counts so many that fell back and were closed meanwhile."""

    def __init__(self, fell_back: int, closed: int) -> None:
        self.mode = self
        self._counts = iter((0, 0, fell_back, closed))

    def counted(self, name: str) -> float:
        return next(self._counts)

    def enter(self, *args: Any) -> None:
        pass

    def ask(self, *args: Any, **order: Any) -> None:
        pass

    def measure(self, *args: Any, **order: Any) -> dict[str, Any]:
        return {"p99_ms": 1.5}

    api_port = 0


@pytest.mark.parametrize(("fell_back", "closed"), [(3, 0), (4, 1), (0, 4)])
def test_a_run_in_which_not_all_fell_back_and_stayed_is_refused(fell_back: int, closed: int) -> None:
    stand = cast(Stand, Scripted(fell_back, closed))
    with pytest.raises(LoadError, match=f"{fell_back} of 4 fell back, {closed} were closed"):
        stalled._p99_ms(stand, "prices", 4, 0.1, ARGS)


def test_both_halves_come_first_in_turn() -> None:
    assert [stalled._order(number, ARGS) for number in range(3)] == [(0, 4), (4, 0), (0, 4)]
    assert stalled._p99_ms(cast(Stand, Scripted(4, 0)), "prices", 4, 0.1, ARGS) == 1.5
