"""One target for a while, in a process of its own: ``python -m tests.fuzz.one NAME --seconds 30``.

Its last line is JSON: how many inputs were tried, and the smallest that was found, with what was said of it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from tests.fuzz import corpus, mutation
from tests.fuzz.targets import TARGETS, Check, Target

HANG_S = 5  # for one input
BATCH = 300
KEPT_BYTES = 400  # of an input that is kept
TRIES = 3  # of libFuzzer, whose alarm now and then ends it though no input takes long
INSTRUMENTED = ["tidegate", "jwt", "yaml"]


class Outcome(NamedTuple):
    """``found`` is empty, or what is wrong with ``smallest``."""

    executions: int
    smallest: bytes = b""
    found: str = ""


def run(name: str, seconds: float, *, seed: int, keep: bool = False) -> Outcome:
    target = TARGETS[name]
    if target.kind == "described":
        from tests.fuzz import api

        executions, found = api.requests(seconds, seed)
        return Outcome(executions, b"", found)
    if target.kind == "compared":
        with target.parsers() as parsers:
            return loop(target, corpus.read(name), seconds, seed, lambda texts: next(parsers.check(texts), None))
    if importlib.util.find_spec("atheris") is not None:
        return _guided(name, seconds, seed, keep)
    return loop(target, corpus.read(name), seconds, seed, checked(target.check()))


def checked(check: Check) -> Callable[[list[bytes]], tuple[bytes, str] | None]:
    """The first of several inputs that fails, and how."""

    def first(texts: list[bytes]) -> tuple[bytes, str] | None:
        for data in texts:
            if said := failure(check, data):
                return data, said
        return None

    return first


def failure(check: Check, data: bytes) -> str:
    """What ``check`` says of an input; empty where it is right."""
    try:
        with _limited():
            check(data)
    except Exception as exc:  # whatever it may be
        return f"{type(exc).__name__}: {exc}"
    return ""


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def expire(signum: int, frame: object) -> None:
        raise TimeoutError(f"no end within {HANG_S} s")

    previous = signal.signal(signal.SIGALRM, expire)
    rest = signal.setitimer(signal.ITIMER_REAL, HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        signal.setitimer(signal.ITIMER_REAL, *rest)


def loop(
    target: Target,
    seeds: list[bytes],
    seconds: float,
    seed: int,
    first: Callable[[list[bytes]], tuple[bytes, str] | None],
) -> Outcome:
    """Mutants of the corpus, until time is over or one fails."""
    chance, until_s, executions = random.Random(seed), time.monotonic() + seconds, 0
    texts = seeds
    while True:
        found = first(texts)
        executions += len(texts)
        if found is not None:
            data = mutation.smallest(found[0], lambda less: first([less]) is not None)
            return Outcome(executions, data, (first([data]) or found)[1])
        if time.monotonic() >= until_s:
            return Outcome(executions)
        texts = [mutation.mutant(chance, seeds, target.words) for _ in range(BATCH)]


# With atheris


def _guided(name: str, seconds: float, seed: int, keep: bool) -> Outcome:
    """libFuzzer in a process of its own, for it ends the one that it is in."""
    until_s = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="tidegate-fuzz-") as made:
        folder = Path(made)
        (folder / "corpus").mkdir()
        (folder / "new").mkdir()
        for number, data in enumerate(corpus.read(name)):
            (folder / "corpus" / str(number)).write_bytes(data)
        words = "".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in TARGETS[name].words)
        (folder / "words").write_text(words)
        executions, said = 0, ""
        for _ in range(TRIES):
            done = subprocess.run(
                [
                    sys.executable, "-m", "tests.fuzz.guided", name, f"-seed={seed}", f"-timeout={HANG_S}",
                    f"-max_total_time={max(1, round(until_s - time.monotonic()))}", f"-max_len={mutation.MOST_BYTES}",
                    f"-dict={folder}/words", f"-artifact_prefix={folder}/found-",
                    "-print_final_stats=1", "-rss_limit_mb=2048", f"{folder}/new", f"{folder}/corpus",
                ],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            )  # fmt: skip
            said = done.stderr
            counted = re.findall(r"^(?:stat::number_of_executed_units: |#)(\d+)", said, re.MULTILINE)
            executions += max(map(int, counted), default=0)
            if done.returncode != -signal.SIGALRM:
                break
        found = sorted(folder.glob("found-*"))
        if not found:
            if done.returncode:
                raise RuntimeError(f"atheris ended with {done.returncode}: {said[-2000:]}")
            if keep:
                _merge(name, folder)
            return Outcome(executions)
        check, data = TARGETS[name].check(), found[0].read_bytes()
        if not failure(check, data):  # a leak, or a state of many inputs
            return Outcome(executions, data, f"{found[0].name} fails in libFuzzer alone: {said[-2000:]}")
        data = mutation.smallest(data, lambda less: failure(check, less) != "")
        return Outcome(executions, data, failure(check, data))


def _merge(name: str, folder: Path) -> None:
    """What takes a way that the corpus does not take is added to it, the shortest first."""
    check, known = TARGETS[name].check(), set[object]()
    for data in corpus.read(name):
        known |= _ways(check, data)
    added = []
    for data in sorted((file.read_bytes() for file in (folder / "new").iterdir()), key=len):
        if len(data) <= KEPT_BYTES and (ways := _ways(check, data) - known):
            known |= ways
            added.append(data)
    corpus.add(name, added)


def _ways(check: Check, data: bytes) -> set[object]:
    """Each step from one line of ours to the next."""
    steps: set[object] = set()

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        code = frame.f_code
        if not any(f"/{package}/" in code.co_filename for package in INSTRUMENTED):
            return None
        last = frame.f_lineno

        def step(frame: FrameType, event: str, arg: object) -> Any:
            nonlocal last
            steps.add((code, last, frame.f_lineno))
            last = frame.f_lineno
            return step

        return step

    sys.settrace(trace)
    try:
        check(data)
    finally:
        sys.settrace(None)
    return steps


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    outcome = run(args.name, args.seconds, seed=args.seed, keep=args.keep)
    print(json.dumps({**outcome._asdict(), "smallest": repr(outcome.smallest)}))


if __name__ == "__main__":
    main()
