"""What tests share: waiting, ports, processes, and the log records of a test."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import json
import logging
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")

ROOT = Path(__file__).resolve().parent.parent

# Taken out, because the service refuses a TIDEGATE_ variable that it does not know.
_SCALE = float(os.environ.pop("TIDEGATE_TEST_SCALE", "1"))

_POLL_S = 0.02
_TAIL_LINES = 30


def scaled(seconds: float) -> float:
    """``seconds`` for a slow or busy machine: times ``TIDEGATE_TEST_SCALE`` (1 if unset). For limits, not for waits."""
    return seconds * _SCALE


async def eventually(condition: Callable[[], Any], timeout_s: float = 5) -> Any:
    """The first truthy value of ``condition()``, which may be a coroutine function. Raises AssertionError with the last
    value after ``timeout_s`` (scaled); what ``condition`` raises comes through."""
    deadline = time.monotonic() + scaled(timeout_s)
    while True:
        late = time.monotonic() > deadline
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if late:
            raise AssertionError(f"not within {scaled(timeout_s):g} s; last value: {value!r}")
        await asyncio.sleep(_POLL_S)


def _own_ports() -> Iterator[int]:
    """Ports below those that the kernel gives to clients, so that one stays free while its owner is away. Of workers
    that run side by side each has its own, and none comes again soon."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    ports = range(20_000 + worker, 32_000, workers)
    start = os.getpid() * 97 % len(ports)  # other runs on this machine begin elsewhere
    return itertools.cycle((*ports[start:], *ports[:start]))


_ports = _own_ports()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    while True:
        port = next(_ports)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def free_ports(count: int) -> list[int]:
    """As many, all different."""
    return [free_port() for _ in range(count)]


def is_listening(port: int) -> bool:
    """Whether somebody accepts TCP connections on 127.0.0.1:``port``."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """A real program, started in the project's root in a process group of its own; its output goes to files.

    Of the environment it gets no ``TIDEGATE_*`` but those in ``env``. The waits raise AssertionError, with the end
    of the output, when time is up or the program has ended too early. They hold no loop: outside of one,
    ``asyncio.run(process.port(8000))`` will do.
    """

    def __init__(self, *args: str | Path, folder: Path, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> None:
        """``folder`` exists and is this process's own: ``stdout`` and ``stderr`` are written there."""
        self.args = [str(arg) for arg in args]
        self._stdout = folder / "stdout"
        self._stderr = folder / "stderr"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TIDEGATE_")}
        environment["PYTHONUNBUFFERED"] = "1"
        environment.update(env or {})
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self._popen = subprocess.Popen(
                self.args,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=environment,
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._popen.poll()

    @property
    def stdout(self) -> str:
        return self._stdout.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self._stderr.read_text(errors="replace")

    def lines(self) -> list[str]:
        """The whole lines of both outputs so far, those of stdout first."""
        both = self.stdout.splitlines(keepends=True) + self.stderr.splitlines(keepends=True)
        return [line.rstrip("\n") for line in both if line.endswith("\n")]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The JSON lines with this ``event`` so far."""
        records = [json.loads(line) for line in self.lines() if line.startswith("{") and event in line]
        return [record for record in records if record.get("event") == event]

    async def port(self, port: int, timeout_s: float = 15) -> None:
        """Returns once 127.0.0.1:``port`` accepts connections."""
        await self._while_running(lambda: is_listening(port), f"no answer on port {port}", timeout_s)

    async def line(self, pattern: str, timeout_s: float = 15) -> str:
        """The first line of either output in which the regular expression is found."""

        def find() -> str | None:
            return next((line for line in self.lines() if re.search(pattern, line)), None)

        return await self._while_running(find, f"no line with {pattern!r}", timeout_s)

    async def ended(self, timeout_s: float = 15) -> int:
        """Its exit code."""
        try:
            await eventually(lambda: self.exit_code is not None, timeout_s)
        except AssertionError:
            raise AssertionError(f"did not end: {self}") from None
        return self._popen.returncode

    async def stop(self, timeout_s: float = 15) -> int:
        """Sends SIGTERM, if it runs; its exit code."""
        self.signal(signal.SIGTERM)
        return await self.ended(timeout_s)

    def signal(self, number: signal.Signals) -> None:
        """Sends one signal to the program alone; not an error where it has ended."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """Ends the program and all that it has started, at once, stopped ones too."""
        with contextlib.suppress(ProcessLookupError):  # all have ended
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    async def _while_running(self, condition: Callable[[], _T | None], failure: str, timeout_s: float) -> _T:
        value: _T | None = None

        def found_or_ended() -> bool:
            nonlocal value
            ended = self.exit_code is not None  # asked first: what it wrote before it ended still counts
            value = condition()
            return bool(value) or ended

        with contextlib.suppress(AssertionError):
            await eventually(found_or_ended, timeout_s)
        if not value:
            raise AssertionError(f"{failure}: {self}")
        return value

    def __str__(self) -> str:
        state = "running" if self.exit_code is None else f"exit code {self.exit_code}"
        parts = [f"{' '.join(self.args)} ({state})"]
        for name, text in (("stdout", self.stdout), ("stderr", self.stderr)):
            if text:
                parts += [f"--- end of {name}", *text.splitlines()[-_TAIL_LINES:]]
        return "\n".join(parts)


class Logs:
    """The records at WARNING and above of one test, of every logger, and which of them it asked for.

    Patterns are regular expressions, searched in the message: an event's name will do.
    """

    def __init__(self) -> None:
        self.records: list[logging.LogRecord] = []
        self._expected: list[str] = []
        self._allowed: list[str] = []

    def expect(self, pattern: str) -> None:
        """At least one such record must come before the test ends."""
        self._expected.append(pattern)

    def allow(self, pattern: str) -> None:
        """Such records may come: for what depends on who is faster."""
        self._allowed.append(pattern)

    def seen(self, pattern: str) -> list[logging.LogRecord]:
        """Those that have come so far."""
        return [record for record in self.records if re.search(pattern, record.getMessage())]

    def complaints(self) -> list[str]:
        """What came unasked, and what was expected in vain."""
        wanted = [record for pattern in self._expected + self._allowed for record in self.seen(pattern)]
        unasked = [
            f"logged unasked: {record.levelname} {record.name}: {record.getMessage()}{_error(record)}"
            for record in self.records
            if record not in wanted
        ]
        return unasked + [f"never logged: {pattern}" for pattern in self._expected if not self.seen(pattern)]


def _error(record: logging.LogRecord) -> str:
    return "\n" + logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
