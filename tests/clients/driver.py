"""A library's driver: a program that has one client, and speaks JSON lines (clients/README.md says which)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from tests.support import ROOT, eventually


class Line(NamedTuple):
    at_s: float  # by the monotonic clock
    said: dict[str, Any]


class Driver(Protocol):
    """``lines`` are all that it has written so far."""

    lines: list[Line]

    def order(self, order: Mapping[str, Any]) -> None: ...

    def freeze(self) -> None:
        """Nothing of it runs until ``thaw``."""

    def thaw(self) -> None: ...


class Program:
    """A driver that is a process. ``await begin()`` on the loop that is to read it, ``stop`` it in any case."""

    def __init__(self, command: Sequence[str | Path], errors: IO[bytes], env: Mapping[str, str] | None = None) -> None:
        self.lines: list[Line] = []
        self._rest = b""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._popen = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._in, self._out = self._popen.stdin, self._popen.stdout

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def ended(self) -> bool:
        return self._popen.poll() is not None

    async def begin(self) -> None:
        """Returns when it is ready."""
        self._loop = asyncio.get_running_loop()
        os.set_blocking(self._out.fileno(), False)
        self._loop.add_reader(self._out.fileno(), self._read)
        await eventually(lambda: self.lines or self.ended, 20)
        assert self.lines, "the driver ended before it was ready"
        assert self.lines.pop(0).said == {"ready": True}

    def order(self, order: Mapping[str, Any]) -> None:
        try:
            self._in.write(json.dumps(order).encode() + b"\n")
            self._in.flush()
        except BrokenPipeError:
            raise AssertionError(f"the driver has ended, before it could {order}") from None

    def freeze(self) -> None:
        self._popen.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._popen.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._loop is not None and not self._out.closed:
            self._loop.remove_reader(self._out.fileno())
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._in, self._out):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _read(self) -> None:
        data = os.read(self._out.fileno(), 1 << 20)
        if not data:
            assert self._loop is not None
            self._loop.remove_reader(self._out.fileno())
            return
        *whole, self._rest = (self._rest + data).split(b"\n")
        self.lines += [Line(time.monotonic(), json.loads(line)) for line in whole]
