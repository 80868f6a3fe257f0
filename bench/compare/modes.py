"""The four ways to run Tidegate that are compared, each with its own service and REST application: without an edge, and
behind each of the three nginx variants, over a Unix socket or (``-tcp``) over TCP; OpenResty's with trunks or
(``-relay``) without. All of them run on one core."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import ROOT
from bench.load import system
from bench.load.processes import SERVER_CORE, BenchError, Program, free_ports, pss_kib, until
from bench.report.comparison import DIRECT, RELAY, TCP, edge_of

NGINX, SERVICE, APP = "nginx", "service", "app"

# The program that makes a call's request; direct has no edge that could.
VIA = {DIRECT: "service", "plain": "service", "njs": "njs", "openresty": "openresty"}

SHUTDOWN_S = 2  # old workers keep their WebSockets so long after a reload; the 30 s as shipped would only be waited for
ENOUGH = 60_000  # nginx takes less than 65,536 connections of one address

# One address makes all the load, which the limits of one address are there to prevent; and what a handshake costs is
# told by as many as a node can take.
RAISED: Mapping[str, Any] = {
    "EDGE__CONNECTIONS_PER_ADDRESS": ENOUGH,
    "EDGE__HANDSHAKES_PER_SECOND": ENOUGH,
    "EDGE__HANDSHAKES_BURST": ENOUGH,
    "LIMITS__HANDSHAKES_PER_SECOND": ENOUGH,
    "EDGE__SHUTDOWN_TIMEOUT_S": SHUTDOWN_S,
    "EDGE__WORKERS": 1,  # there is one core
    "EDGE__TLS_PORT": 0,
    "LIMITS__MESSAGES_PER_SECOND": 1_000_000,  # one connection asks for thousands
    "LIMITS__BYTES_PER_SECOND": ENOUGH * 1000,
    "LIMITS__NEW_STREAMS_PER_SECOND_PER_CONNECTION": 1_000_000,  # one joins and leaves a group that nobody else is in
    "LIMITS__NEW_STREAMS_PER_SECOND_PER_CLIENT": 1_000_000,
    "LIMITS__NEW_STREAMS_PER_SECOND": 1_000_000,
}
TRUNK_KEY = "a-key-of-the-benchmark"
_MODULES = {
    "njs": "libnginx-mod-stream-js",
    "lua-nginx": "libnginx-mod-http-lua",
    "lua-nginx-websocket": "lua-nginx-websocket",
}


@dataclass
class Mode:
    """One that runs. ``programs``: NGINX, SERVICE and APP, as far as there are; ``port`` is where clients connect."""

    name: str
    programs: dict[str, Program]
    port: int
    api_port: int
    app_port: int
    restart: Callable[[], None]  # of the service

    @property
    def pids(self) -> dict[str, list[int]]:
        """Of each program, with its children: nginx has other workers after a reload."""
        return {name: program.pids for name, program in self.programs.items()}

    def pss_kib(self) -> dict[str, int]:
        return {name: pss_kib(pids) for name, pids in self.pids.items()}

    def files(self) -> dict[str, int]:
        """Open file descriptors."""
        return {name: sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids) for name, pids in self.pids.items()}

    def counted(self, name: str) -> float:
        """The sum of the service's counters whose names, with their labels, begin so."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.api_port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith(name))

    def peak_mb(self) -> float:
        """The most memory that the service ever had."""
        (pid,) = self.programs[SERVICE].pids
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        raise BenchError(f"no peak of process {pid}")

    def calls(self) -> dict[str, int]:
        """Requests that the application has had, by X-Tidegate-Via."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.app_port}/stats", timeout=10) as answer:
            requests: dict[str, int] = json.load(answer)["requests"]
        return requests


@contextlib.contextmanager
def running(
    name: str,
    folder: Path,
    settings: Mapping[str, Any] | None = None,
    *,
    app: bool = False,
    nginx_cores: str | None = None,
    nginx_env: Mapping[str, str] | None = None,
    serve: Sequence[str] = ("tidegate", "serve"),
) -> Iterator[Mode]:
    """A mode with processes of its own, which end with it. ``settings`` as in the environment, without TIDEGATE_;
    ``app``: with the example REST application; ``nginx_cores``, ``nginx_env``: of nginx alone, in place of the one core
    of all, and in its environment; ``serve``: the module that is the service, and its arguments. Raises BenchError."""
    variant = edge_of(name)
    port, api_port, app_port, edge_port, edge_internal, calls_port = free_ports(6)
    run = folder / "run"
    run.mkdir(parents=True)
    for each in (folder, run):
        each.chmod(0o755)  # nginx' worker is another user
    env = environ(
        {
            **RAISED,
            "SERVER__PORT": port,
            "SERVER__DRAIN_S": 0,
            "INTERNAL__PORT": api_port,
            "AUTH__MODE": "jwt",
            "AUTH__KEY": system.TOKEN_KEY,
            "LOG__LEVEL": "warning",
            "CALLS__URL": f"http://127.0.0.1:{app_port}",
            **_hop(name, port, run),
            "EDGE__PORT": edge_port,
            "EDGE__INTERNAL": f"127.0.0.1:{edge_internal}",
            "EDGE__CALLS_PORT": calls_port,
            "EDGE__RUN_DIR": str(run),
            "EDGE__ACCESS_LOG": str(folder / "access.log"),
            **(settings or {}),
        }
    )
    with contextlib.ExitStack() as stack:
        programs: dict[str, Program] = {}

        def start(role: str, args: list[str | Path], core: int | str = SERVER_CORE, **more: str) -> None:
            programs[role] = stack.enter_context(Program(role, args, folder, core=core, env={**env, **more}))

        service: list[str | Path] = [system.python, "-m", *serve]

        def restart() -> None:
            programs[SERVICE].stop()
            start(SERVICE, service)
            programs[SERVICE].listens(port)
            programs[SERVICE].listens(api_port)

        start(SERVICE, service)
        if app:
            start(APP, [system.python, "-m", "examples.rest_app", "--port", str(app_port)])
        if name != DIRECT:
            config = render(variant, folder / "edge", env)
            args: list[str | Path] = [_nginx(), "-e", "stderr", "-c", config, "-g", "daemon off;"]
            start(NGINX, args, nginx_cores or SERVER_CORE, **(nginx_env or {}))
            programs[NGINX].listens(edge_port)
            # The master listens before it has workers, and nobody would count the CPU of one that comes later.
            until(lambda: len(programs[NGINX].pids) > 1, "a worker of nginx")
        if app:
            programs[APP].listens(app_port)
        programs[SERVICE].listens(port)
        programs[SERVICE].listens(api_port)
        yield Mode(name, programs, port if name == DIRECT else edge_port, api_port, app_port, restart)


def _hop(name: str, port: int, run: Path) -> dict[str, Any]:
    """How the edge reaches the service."""
    trunk = {"EDGE__TRUNK": RELAY not in name}
    if name == DIRECT or name.endswith(TCP):
        (trunk_port,) = free_ports(1)
        link = {"TRUNK__PORT": trunk_port, "TRUNK__KEY": TRUNK_KEY}
        return {"EDGE__UPSTREAMS": [f"127.0.0.1:{port}"], **trunk, **(link if name != DIRECT else {})}
    socket = f"{run}/service.sock"
    return {
        "SERVER__SOCKET": socket,
        "SERVER__SOCKET_MODE": "0666",  # workers of nginx are another user
        "TRUNK__SOCKET": f"{run}/trunk.sock",
        "EDGE__UPSTREAMS": [f"unix:{socket}"],
        **trunk,
    }


def environ(settings: Mapping[str, Any]) -> dict[str, str]:
    return {
        f"TIDEGATE_{name}": value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()
    }


def render(name: str, folder: Path, env: Mapping[str, str]) -> Path:
    """The edge's configuration, as the project's own command writes it."""
    command = [sys.executable, "-m", "tidegate", "render", "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"render: {done.stderr[-500:]}")
    return folder / "conf.d" / f"{name}.conf"


def _nginx() -> str:
    try:
        return system.nginx()
    except BenchError:
        raise BenchError("nginx is not here; on Debian, as root: make system") from None


def conditions() -> dict[str, str]:
    """What the modes have in common, for the report."""
    raised = ", ".join(f"{key.lower().replace('__', '.')} {value}" for key, value in RAISED.items())
    return {
        "settings of service and edge": f"as shipped, but: {raised}",
        "service": "memory broker, JWT (HS256) seen before, log level warning",
        "edge": "Debian's nginx with the project's rendered configuration, one worker, no TLS; a Unix socket to the "
        "service, or TCP in the modes that say so; openresty with trunks, openresty-relay without",
        "servers": f"service, nginx and REST application together on core {SERVER_CORE}",
    }


def versions() -> dict[str, str]:
    """Of nginx's modules, as Debian packages them."""
    found = {}
    for name, package in _MODULES.items():
        command = ["dpkg-query", "-W", "-f", "${Version}", package]
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            found[name] = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return found
