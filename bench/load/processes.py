"""Programs that are measured: started on one core, their CPU time and their memory."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import ROOT

SERVER_CORE = 0
LOAD_CORE = 1

START_S = 20.0
STOP_S = 5.0


class BenchError(Exception):
    """A measurement that cannot be made; the text says why."""


def cpu_s(pids: Sequence[int]) -> float:
    """CPU time that these processes have used, all threads, ended ones too, user and system. It is the kernel's own
    clock of a process (clock_getcpuclockid), which counts ns, where /proc/<pid>/stat counts 10 ms."""
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def kernel_s(pids: Sequence[int]) -> float:
    """How much of that was spent in the kernel (stime of /proc/<pid>/stat: from samples, in steps of 10 ms)."""
    fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def pss_kib(pids: Sequence[int]) -> int:
    """Memory of these processes in KiB; what several share counts once in all (PSS)."""
    return sum(_kib(pid, "Pss") for pid in pids)


def own_kib(pids: Sequence[int]) -> int:
    """The same without what is mapped from files: a library is shared with whoever else uses it at that moment, and
    counts for more when those end."""
    return sum(_kib(pid, "Pss_Anon") + _kib(pid, "Pss_Shmem") for pid in pids)


def _kib(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise BenchError(f"no {name} of process {pid}")


def children(pid: int) -> list[int]:
    """The process and all that it started, whoever started them in turn."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += children(int(child))
    return found


def raise_limits() -> None:
    """As many files as we may; children have the same."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on."""
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


def until(condition: Callable[[], Any], what: str, timeout_s: float = START_S) -> None:
    """Raises BenchError when it does not come true."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise BenchError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.02)


def is_listening(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


class Program:
    """A process on one core, or on several (``0,1``), in a group of its own, so that Ctrl-C is not its business. It
    ends with this one. What it says goes to ``folder/<name>.log``. Use it as a context."""

    def __init__(
        self,
        name: str,
        args: Sequence[str | Path],
        folder: Path,
        *,
        core: int | str = SERVER_CORE,
        env: Mapping[str, str] | None = None,
        piped: bool = False,
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("TIDEGATE_")}
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", str(core), *map(str, args)],
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else log,
                stderr=log,
                env={**kept, **(env or {})},
                cwd=ROOT,
                start_new_session=True,
            )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def pids(self) -> list[int]:
        return children(self.pid)

    def listens(self, port: int) -> None:
        """Returns when it does. Raises BenchError with the end of its log."""

        def listens() -> bool:
            if self.popen.poll() is not None:
                raise BenchError(f"{self.name} ended with {self.popen.returncode}: {self.words()}")
            return is_listening(port)

        until(listens, self.name)

    def words(self) -> str:
        return self.log.read_text(errors="replace")[-500:]

    def stop(self) -> None:
        """Asks, then kills."""
        for signum in (signal.SIGINT, signal.SIGKILL):
            if self.popen.poll() is None:
                self.popen.send_signal(signum)
                try:
                    self.popen.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    continue
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
