"""The stacks: Tidegate behind each of its edges, and gorilla behind plain nginx. Nchan is one by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.compare.modes import NGINX, SERVICE, running
from bench.load import system
from bench.load.processes import Program, free_ports, until
from bench.load.system import System
from bench.peers import systems
from bench.peers.systems import GROUP, PEERS

PATH = "/ws-notifications/"
# nginx begins to drop quiet connections where a sixteenth of them is left.
MANY_FILES: Mapping[str, Any] = {"EDGE__WORKER_CONNECTIONS": 19_900, "EDGE__NOFILE": 20_000}


@contextlib.contextmanager
def edge(
    name: str,
    folder: Path,
    *,
    groups: int = 1,
    settings: Mapping[str, Any] | None = None,
    nginx_cores: str | None = None,
    nginx_env: Mapping[str, str] | None = None,
) -> Iterator[System]:
    """A mode of ``bench compare`` as a system whose clients are in one group, or in ``groups`` in turn, each of which
    gets each message. ``nginx_cores`` as taskset takes them; ``nginx_env``: for nginx alone."""
    with running(
        name, folder / name, {**MANY_FILES, **(settings or {})}, nginx_cores=nginx_cores, nginx_env=nginx_env
    ) as mode:
        publish = {"kind": "tidegate", "ports": [mode.api_port], "group": GROUP}
        names = [GROUP]
        if groups > 1:
            names = [f"{GROUP}{number}" for number in range(groups)]
            publish = {"kind": "groups", "ports": [mode.api_port], "groups": names}
        urls = [f"ws://127.0.0.1:{mode.port}{PATH}?groups={each}" for each in names]
        programs = [mode.programs[each] for each in (NGINX, SERVICE)]
        yield System(name, programs, urls, publish, mode.api_port, jwt=True, tidegate=True)


@contextlib.contextmanager
def gorilla(folder: Path) -> Iterator[System]:
    """Behind nginx that relays, as our plain edge does."""
    (port,) = free_ports(1)
    with systems.peer(folder, "gorilla") as behind:
        config = folder / "gorilla.conf"
        text = (PEERS / "gorilla.conf").read_text()
        for word, value in {"@FOLDER@": folder, "@PORT@": port, "@BEHIND@": behind.http_port}.items():
            text = text.replace(word, str(value))
        config.write_text(text)
        with Program("gorilla-nginx", [system.nginx(), "-e", "stderr", "-c", config], folder) as program:
            program.listens(port)
            until(lambda: len(program.pids) > 1, "a worker of nginx")
            programs = [program, *behind.programs]
            yield System("gorilla behind plain nginx", programs, [f"ws://127.0.0.1:{port}/"], behind.publish)
