"""The servers that are measured, each started fresh: the service, and the peers of ``bench/peers``."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.processes import ROOT, BenchError, Program, free_ports, pss_kib

PEERS = ROOT / "bench" / "peers"
GROUP = "bench"
TOKEN_KEY = "a secret of the benchmark, which is not one"

python = sys.executable  # runs the service and the peers that are written in Python; ``--python`` sets it


@dataclass
class System:
    """A running server. ``urls``: where clients connect, in turn; ``publish``: how the load client makes it send to
    all (``bench/load.py``); ``http_port`` takes JSON POSTs. ``jwt``: it wants a token, and says welcome."""

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


@contextlib.contextmanager
def tidegate(
    folder: Path, *, name: str = "tidegate", nodes: int = 1, redis_url: str | None = None, turns: Path | None = None
) -> Iterator[System]:
    """The service as it is shipped, with tokens and metrics. Without Redis nodes know nothing of each other, and each
    is told what to send. ``turns``: where its longest turn is written (peers/turns.c)."""
    ports = free_ports(2 * nodes)
    with contextlib.ExitStack() as stack:
        programs = []
        for number in range(nodes):
            port, internal_port = ports[2 * number : 2 * number + 2]
            env = {
                "TIDEGATE_SERVER__PORT": str(port),
                "TIDEGATE_INTERNAL__PORT": str(internal_port),
                "TIDEGATE_AUTH__MODE": "jwt",
                "TIDEGATE_AUTH__KEY": TOKEN_KEY,
                "TIDEGATE_LOG__LEVEL": "warning",
            }
            if redis_url is not None:
                env |= {"TIDEGATE_BROKER__KIND": "redis", "TIDEGATE_BROKER__URL": redis_url}
            if turns is not None:
                env |= {"LD_PRELOAD": str(built("turns.c")), "BENCH_TURNS": str(turns)}
            args = [python, "-m", "service", "serve"]
            programs.append(stack.enter_context(Program(f"{name}-{number}", args, folder, env=env)))
        for number, program in enumerate(programs):
            program.listens(ports[2 * number])
            program.listens(ports[2 * number + 1])
        urls = [f"ws://127.0.0.1:{port}/ws-notifications/?groups={GROUP}" for port in ports[::2]]
        told = ports[1::2] if redis_url is None else ports[1:2]
        publish = {"kind": "tidegate", "ports": told, "group": GROUP}
        yield System(name, programs, urls, publish, ports[1], jwt=True, tidegate=True)


@contextlib.contextmanager
def peer(folder: Path, name: str) -> Iterator[System]:
    """``floor``, ``gorilla``, ``tornado`` or ``websockets``."""
    args: list[str | Path]
    match name:
        case "floor":
            args = [built("floor.c")]
        case "gorilla":
            args = [built("gorilla.go")]
        case _:
            args = [python, "-m", f"bench.peers.{name}_server"]
    port, control_port = free_ports(2)
    with Program(name, [*args, str(port), str(control_port)], folder) as program:
        program.listens(port)
        program.listens(control_port)
        publish = {"kind": "control", "ports": [control_port]}
        yield System(name, [program], [f"ws://127.0.0.1:{port}/"], publish, port)


@contextlib.contextmanager
def wire(folder: Path) -> Iterator[System]:
    """``bench echo``: the service's wire without what is above it."""
    (port,) = free_ports(1)
    with Program("wire", [python, "-m", "bench", "echo", "--port", str(port)], folder) as program:
        program.listens(port)
        yield System("the service's wire alone", [program], [f"ws://127.0.0.1:{port}/"])


@contextlib.contextmanager
def nchan(folder: Path) -> Iterator[System]:
    (port,) = free_ports(1)
    config = folder / "nchan.conf"
    text = (PEERS / "nchan.conf").read_text().replace("@FOLDER@", str(folder)).replace("@PORT@", str(port))
    config.write_text(text)
    args = [nginx(), "-e", str(folder / "error.log"), "-c", str(config)]
    with Program("nchan", args, folder) as program:
        program.listens(port)
        publish = {"kind": "post", "ports": [port], "path": "/publish"}
        yield System("nchan", [program], [f"ws://127.0.0.1:{port}/subscribe"], publish)


@contextlib.contextmanager
def redis(folder: Path, core: int) -> Iterator[tuple[Program, str]]:
    """An empty one, and its URL."""
    (port,) = free_ports(1)
    args = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with Program("redis", args, folder, core=core) as program:
        program.listens(port)
        yield program, f"redis://127.0.0.1:{port}/0"


def nginx() -> str:
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        raise BenchError("nginx is not here: apt-get install nginx libnginx-mod-nchan")
    return found


@cache
def built(source: str) -> Path:
    """The program or library made from a source in ``bench/peers`` or ``bench``. Raises BenchError."""
    path = (PEERS if (PEERS / source).exists() else PEERS.parent) / source
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


_LIBRARIES = ("turns.c", "marks.c", "crowd.c")


def versions() -> dict[str, str]:
    """Of everything that is measured or measures."""
    found = {}
    for package in ("tornado", "msgspec", "uvloop", "picows", "websockets", "PyJWT"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    own = {
        "python": [python, "-c", "import sys; print(sys.version.split()[0])"],
        "a million turns of a loop": [python, "-c", _LOOP],
    }
    commands = {**own, **_VERSION_COMMANDS}
    for name, command in commands.items():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(command, capture_output=True, text=True, timeout=10)
            words = (done.stdout + done.stderr).strip().splitlines()
            if not done.returncode and words:
                found[name] = words[0][:100]
    return found


# How fast its bytecode is differs by a third between builds of one version.
_LOOP = """
import time
def turns():
    began, x = time.process_time(), 0
    for i in range(1_000_000):
        x = x + i if i & 1 else x - 1
    return time.process_time() - began
print(f"{min(turns() for _ in range(5)) * 1000:.0f} ms")
"""
_VERSION_COMMANDS = {
    "kernel": ["uname", "-r"],
    "gcc": ["gcc", "-dumpfullversion"],
    "go": ["go", "version"],
    "nginx": ["dpkg-query", "-W", "-f", "${Version}", "nginx"],
    "nchan": ["dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"],
    "gorilla": ["dpkg-query", "-W", "-f", "${Version}", "golang-github-gorilla-websocket-dev"],
    "redis": ["dpkg-query", "-W", "-f", "${Version}", "redis-server"],
}
