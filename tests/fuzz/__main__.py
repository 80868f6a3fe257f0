"""``make fuzz SECONDS=300``: all targets for that time in all, side by side on the cores there are.

Prints of each how many inputs were tried, and exits with 1 where one was found that fails, with the smallest of its
kind. ``--keep`` adds to the corpus what took a new way.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS

START_S = 5  # what a target takes before its first input


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help="these alone")
    parser.add_argument("--seconds", type=float, default=300, help="for all of them together (default: 300)")
    parser.add_argument("--seed", type=int, default=None, help="the same inputs again (default: by the time)")
    parser.add_argument("--keep", action="store_true", help="add to the corpus what took a new way")
    args = parser.parse_args(argv)
    names = args.targets or list(TARGETS)
    lanes = min(len(names), len(os.sched_getaffinity(0)))
    each_s = max(1.0, args.seconds * lanes / len(names) - START_S)
    seed = int(time.time()) if args.seed is None else args.seed
    with ThreadPoolExecutor(lanes) as pool:
        asked = [pool.submit(_run, name, each_s, seed, args.keep) for name in names]
        outcomes = {name: outcome.result() for name, outcome in zip(names, asked, strict=True)}
    failed = [name for name, outcome in outcomes.items() if outcome["found"]]
    for name in failed:
        print(f"\n{name}: {outcomes[name]['found']}\n  {outcomes[name]['smallest']}")
    if failed:
        print(f"\nfuzz: mend it, and add the input to {corpus.FOLDER.relative_to(corpus.FOLDER.parents[2])}/NAME.txt")
    return 1 if failed else 0


def _run(name: str, seconds: float, seed: int, keep: bool) -> dict[str, Any]:
    begun_s = time.monotonic()
    command = [sys.executable, "-m", "tests.fuzz.one", name, f"--seconds={seconds:.0f}", f"--seed={seed}"]
    done = subprocess.run(
        [*command, *(["--keep"] if keep else [])], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    took_s = time.monotonic() - begun_s
    try:
        outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        outcome = {"executions": 0, "smallest": "", "found": f"did not run: {done.stderr[-3000:]}"}
    said = "FOUND" if outcome["found"] else "ok"
    print(f"fuzz: {name:12} {outcome['executions']:>9} executions in {took_s:4.0f} s  {said}", flush=True)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
