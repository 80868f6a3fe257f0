"""``bench storm`` and ``bench soak``: that they run, count what they say, and find what was planted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.load.processes import own_kib, pss_kib
from bench.load.soaking import STEP_S
from bench.stack.soak import SMALL, WARM_S, grown, slope_percent
from bench.stack.storms import Look, most_in_a_second
from tests.support import Process


def test_most_in_a_second_is_counted_from_looks_of_which_each_takes_its_time() -> None:
    looks = [Look(0.0, 0.1, 0), Look(0.5, 0.6, 300), Look(0.9, 1.0, 500), Look(1.0, 1.1, 900)]
    assert most_in_a_second(looks) == 600  # from 300 to 900; that 900 were in a second is not certain
    assert most_in_a_second([]) == 0


def test_a_slope_is_that_of_most_and_one_step_is_none() -> None:
    rising = [(float(minute * 60), 100.0 + minute) for minute in range(30)]
    assert slope_percent(rising) == pytest.approx(100 * 60 / 114.5)
    stepping = [(float(minute * 60), 100.0 if minute < 20 else 110.0) for minute in range(30)]
    assert slope_percent(stepping) == 0
    assert grown([5, 9, 5, 5, 5, 5, 7, 8]) == -1
    assert grown([5, 5, 5, 5, 5, 5, 7, 8]) == 3


def test_what_keeps_messages_is_full_before_a_soaks_warm_up_is_over() -> None:
    assert all(SMALL[name] * STEP_S < WARM_S / 2 for name in ("HISTORY__MESSAGES", "TRACE__MESSAGES"))


def test_memory_of_its_own_does_not_grow_when_another_that_had_the_same_file_ends(tmp_path: Path) -> None:
    file = tmp_path / "library"
    file.write_bytes(b"x" * 8 * 1024 * 1024)
    holds = f"import mmap; file = open({str(file)!r}, 'rb'); held = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ); "

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", f"{holds}held[::4096]; print(flush=True); input()"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    with start() as one, start() as other:
        for each in (one, other):
            assert each.stdout is not None
            each.stdout.readline()
        before_kib, shared_kib = own_kib([one.pid]), pss_kib([one.pid])
        other.communicate("\n")
        assert pss_kib([one.pid]) - shared_kib > 3 * 1024
        assert abs(own_kib([one.pid]) - before_kib) < 256
        one.communicate("\n")


@pytest.mark.slow
async def test_a_storm_is_measured(tmp_path: Path) -> None:
    chosen = ["--modes", "direct", "--cases", "cut,restart", "--clients", "150", "--rate", "100"]
    run = Process(sys.executable, "-m", "bench", "storm", *chosen, folder=tmp_path)
    assert await run.ended(120) == 0, run
    cases = [line.split(" | ") for line in run.stdout.splitlines() if line.startswith("| direct")]
    assert [case[1] for case in cases] == ["cut", "restart"]
    assert all(60 <= int(case[4]) <= 100 for case in cases)
    assert all(float(case[3]) >= 0.5 for case in cases)


@pytest.mark.parametrize(
    ("broker", "plant", "problem"),
    [
        pytest.param("redis", "files", "descriptors are left when all have gone", marks=pytest.mark.slow),
        pytest.param("memory", None, "", marks=pytest.mark.soak),
        pytest.param("redis", "keys", "keys of presence in Redis are left", marks=pytest.mark.soak),
        pytest.param("memory", "memory", "memory of service grows", marks=pytest.mark.soak),
        pytest.param("redis", "close", "were closed|closed for no reason", marks=pytest.mark.soak),
    ],
)
async def test_a_soak_finds_what_was_planted_and_nothing_else(
    tmp_path: Path, broker: str, plant: str | None, problem: str
) -> None:
    size = [
        "--minutes",
        "0.2" if plant == "files" else "0.5",
        "--idle",
        "100",
        "--active",
        "20",
        "--churn",
        "50",
        "--most",
        "500",
    ]
    more = ["--plant", plant] if plant else []
    run = Process(sys.executable, "-m", "bench", "soak", "--broker", broker, *size, *more, folder=tmp_path)
    code = await run.ended(120)
    assert code == (1 if plant else 0), run.stdout
    assert not problem or any(word in run.stdout for word in problem.split("|")), run.stdout
