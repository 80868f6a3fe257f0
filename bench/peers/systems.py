"""The servers that are measured, each started fresh: the service, and the peers of ``bench/peers``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bench import ROOT
from bench.load import system
from bench.load.processes import Program, free_ports
from bench.load.system import TOKEN_KEY, System, built, nginx

PEERS = ROOT / "bench" / "peers"
GROUP = "bench"


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
                "TIDEGATE_LIMITS__MESSAGES_PER_SECOND": "1000000",  # one connection asks for thousands
                "TIDEGATE_LIMITS__HANDSHAKES_PER_SECOND": "60000",  # as many as it can
            }
            if redis_url is not None:
                env |= {"TIDEGATE_BROKER__KIND": "redis", "TIDEGATE_BROKER__URL": redis_url}
            if turns is not None:
                env |= {"LD_PRELOAD": str(built("peers/turns.c")), "BENCH_TURNS": str(turns)}
            args = [system.python, "-m", "tidegate", "serve"]
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
            args = [built("peers/floor.c")]
        case "gorilla":
            args = [built("peers/gorilla.go")]
        case _:
            args = [system.python, "-m", f"bench.peers.{name}_server"]
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
    with Program("wire", [system.python, "-m", "bench", "echo", "--port", str(port)], folder) as program:
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
