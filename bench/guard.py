"""Whether hot operations became slower: counts their instructions and compares with the committed figures.

Instructions hardly depend on what else the machine does, so that a tenth more means something. But where it has much
else to do an operation takes longer, and what timers do meanwhile is counted with it: 5 to 15 % more at a load of 20.
They leave out the kernel, caches and waiting: how fast the service is, ``python -m bench peers`` says.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import ROOT
from bench.load.processes import BenchError
from bench.load.system import built
from bench.report.machine import versions

FIGURES = ROOT / "bench" / "guard.json"
SLOWER = 1.10
LIMIT_S = 900

_NAME = re.compile(r"^desc: Trigger: Client Request: (.+)=(\d+)$", re.MULTILINE)
_TOTAL = re.compile(r"^totals: (\d+)$", re.MULTILINE)
_MATTERS = ("python", "tornado", "msgspec", "uvloop")


def add_command(commands: Any) -> None:
    parser = commands.add_parser("guard", help="count the instructions of hot operations, name what became slower")
    parser.add_argument("--write", action="store_true", help=f"make them the figures of {FIGURES.relative_to(ROOT)}")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep callgrind's profiles here (callgrind_annotate)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """1 where an operation takes over 10 % more instructions than it did, or nothing could be counted."""
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            counted = count(args.keep or Path(folder))
    except BenchError as exc:
        print(exc, file=sys.stderr)
        return 1
    used = {name: version for name, version in versions(sys.executable).items() if name in _MATTERS}
    if args.write:
        FIGURES.write_text(json.dumps({"versions": used, "instructions": counted}, indent=2) + "\n")
        print(f"wrote {FIGURES.relative_to(ROOT)}")
        return 0
    known = json.loads(FIGURES.read_text())
    for name, version in known["versions"].items():
        if used.get(name) != version:
            print(f"note: the figures were made with {name} {version}, here it is {used.get(name)}")
    slower = compare(known["instructions"], counted)
    width = max(map(len, counted))
    for name, number in counted.items():
        before = known["instructions"].get(name)
        change = f"{number / before - 1:+7.1%}" if before else "    new"
        print(f"{name:{width}}  {number:10,}  {change}{'  SLOWER' if name in slower else ''}")
    return 1 if slower else 0


def compare(before: dict[str, int], now: dict[str, int]) -> list[str]:
    """What became slower by more than a tenth, or is no longer counted."""
    return [name for name, number in before.items() if name not in now or now[name] > number * SLOWER]


def count(folder: Path) -> dict[str, int]:
    """Instructions of one of each operation. Raises BenchError."""
    built("peers/marks.c")
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        "valgrind",
        "--tool=callgrind",
        "--instr-atstart=no",
        f"--callgrind-out-file={folder.resolve()}/callgrind.out",
        sys.executable,
        "-m",
        "bench.operations",
    ]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TIDEGATE_", "PYTHON"))}
    env = kept | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=LIMIT_S)
    except FileNotFoundError:
        raise BenchError("valgrind is not here: apt-get install valgrind gcc") from None
    except subprocess.TimeoutExpired:
        raise BenchError(f"the operations took longer than {LIMIT_S} s") from None
    if done.returncode:
        raise BenchError(f"the operations failed:\n{done.stderr[-2000:]}")
    return dict(map(read, sorted(folder.glob("callgrind.out.*"), key=lambda path: int(path.suffix[1:]))))


def read(profile: Path) -> tuple[str, int]:
    """What one of callgrind's files counted: the operation, and the instructions of one of it. Raises BenchError."""
    text = profile.read_text()
    name, total = _NAME.search(text), _TOTAL.search(text)
    if name is None or total is None:
        raise BenchError(f"{profile.name} has no name or no total")
    return name[1], round(int(total[1]) / int(name[2]))
