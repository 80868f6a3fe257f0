"""What is loaded: a running server, as the load client is told of it, and the programs that it is made of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bench import ROOT
from bench.load.processes import BenchError, Program, pss_kib

TOKEN_KEY = "a secret of the benchmark, which is not one"

python = sys.executable  # runs the service and the peers that are written in Python; ``--python`` sets it


@dataclass
class System:
    """A running server. ``urls``: where clients connect, in turn; ``publish``: how the load client makes it send to
    all (``bench/load/client.py``); ``http_port`` takes JSON POSTs. ``jwt``: it wants a token, and says welcome."""

    name: str
    programs: list[Program]
    urls: list[str]
    publish: dict[str, Any] = field(default_factory=dict)
    http_port: int = 0
    jwt: bool = False
    tidegate: bool = False

    @property
    def pids(self) -> list[int]:
        return [pid for program in self.programs for pid in program.pids]

    @property
    def pss_kib(self) -> int:
        return pss_kib(self.pids)

    def connect(self, count: int, **options: Any) -> dict[str, Any]:
        """The arguments of the load client's ``connect``."""
        token_key = TOKEN_KEY if self.jwt else None
        return {"urls": self.urls, "count": count, "token_key": token_key, "welcome": self.tidegate, **options}


def nginx() -> str:
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        raise BenchError("nginx is not here: apt-get install nginx libnginx-mod-nchan")
    return found


@cache
def built(source: str) -> Path:
    """The program or library made from ``source``, which is named from ``bench/``. Raises BenchError."""
    path = ROOT / "bench" / source
    made = ROOT / "build" / "bench" / (f"{path.stem}.so" if source in _LIBRARIES else path.stem)
    if made.exists() and made.stat().st_mtime > path.stat().st_mtime:
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    env = dict(os.environ)
    if source.endswith(".go"):
        command = ["go", "build", "-o", str(made), str(path)]
        env |= {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "", "GOCACHE": str(made.parent / "go")}
    else:
        library = ["-shared", "-fPIC"] if source in _LIBRARIES else []
        command = ["gcc", "-O2", *library, "-o", str(made), str(path)]
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True)
    except FileNotFoundError as exc:
        raise BenchError(f"{exc.filename} is not here, and {source} needs it") from exc
    if done.returncode:
        raise BenchError(f"{source}: {done.stderr[-500:]}")
    return made


_LIBRARIES = ("peers/turns.c", "peers/marks.c", "load/crowd.c")
