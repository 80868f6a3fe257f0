"""Lines of the log, and what holds them up: a pipe that is full, one that nobody reads, a full disk, a stopped
terminal."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.edges.edge import ask
from tests.peer import Peer
from tests.support import Process, eventually, free_port, scaled
from tidegate import log_writer
from tidegate.log_writer import LineWriter

Start = Callable[..., Process]
PIPE_BYTES = 4096


class Pipe:
    """A pipe that holds little. ``read`` gives what is in it."""

    def __init__(self, size: int = PIPE_BYTES) -> None:
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.reading, fcntl.F_SETPIPE_SZ, size)
        os.set_blocking(self.reading, False)
        self._open = {self.reading, self.writing}

    def read(self) -> bytes:
        try:
            return os.read(self.reading, 1024 * 1024)
        except BlockingIOError:
            return b""

    def close(self, *ends: int) -> None:
        for end in ends or tuple(self._open):
            os.close(end)
            self._open.remove(end)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


async def received(pipe: Pipe, count: int, wanted: bytes = b"\n") -> list[bytes]:
    """The lines up to the one in which ``wanted`` stands the ``count``th time."""
    data = b""

    def enough() -> bool:
        nonlocal data
        data += pipe.read()
        return data.count(wanted) >= count and data.endswith(b"\n")

    await eventually(enough, 10)
    return data.splitlines()


async def test_who_writes_never_waits_and_what_is_dropped_is_told(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "BUFFER_BYTES", 8000)
    writer = LineWriter(pipe.writing, lambda count: b"dropped %d\n" % count)
    before_s = time.monotonic()
    for number in range(1000):
        writer.put(b"%099d\n" % number)
    assert time.monotonic() - before_s < scaled(0.5)
    assert writer.dropped >= 1000 - (8000 + PIPE_BYTES) // 100 - 1
    kept = 1000 - writer.dropped
    lines = await received(pipe, kept + 1)
    assert lines == [b"%099d" % number for number in range(kept)] + [b"dropped %d" % writer.dropped]
    writer.put(b"again\n")
    assert await received(pipe, 1) == [b"again"]


async def test_nothing_is_torn_where_another_has_made_the_pipe_non_blocking(pipe: Pipe) -> None:
    os.set_blocking(pipe.writing, False)
    writer = LineWriter(pipe.writing)
    for number in range(200):
        writer.put(b"%099d\n" % number)
    assert await received(pipe, 200) == [b"%099d" % number for number in range(200)]


async def test_flushing_returns_when_all_is_written_or_nothing_can_be(pipe: Pipe) -> None:
    writer = LineWriter(pipe.writing)
    writer.put(b"x\n")
    writer.flush(scaled(5))
    assert pipe.read() == b"x\n"
    writer.put(b"x" * 2 * PIPE_BYTES)
    before_s = time.monotonic()
    writer.flush(0.1)
    assert time.monotonic() - before_s >= 0.1
    pipe.close(pipe.reading)
    before_s = time.monotonic()
    writer.flush(scaled(5))
    assert time.monotonic() - before_s < scaled(4)


class Node:
    """A service process whose standard output and error are this open file."""

    def __init__(self, start_process: Start, output: int | str, **environment: str) -> None:
        self.port, self.internal = free_port(), free_port()
        ports = {"TIDEGATE_SERVER__PORT": str(self.port), "TIDEGATE_INTERNAL__PORT": str(self.internal)}
        name = output if isinstance(output, str) else f"/proc/{os.getpid()}/fd/{output}"
        # Tiny shells know nothing of descriptors above 9, and /proc opens the same pipe anew.
        program = ("sh", "-c", 'exec "$@" >>"$0" 2>&1', name, sys.executable, "-m", "tidegate", "serve")
        self.process = start_process(*program, env=ports | environment)

    async def started(self) -> Node:
        await self.process.port(self.internal)
        return self

    async def works(self) -> None:
        """Clients come and go, each with two lines, and a push arrives."""
        for _ in range(20):
            async with Peer(self.port, client="alice") as alice:
                await alice.event()
        async with Peer(self.port, client="bob") as bob:
            await bob.event()
            answer = await ask(
                self.internal, "POST", "/api/clients/bob/push", {"Content-Type": "application/json"}, b'{"data":1}'
            )
            assert answer.status == 202
            assert (await bob.event())["data"] == 1
        assert (await ask(self.internal, "GET", "/healthz")).status == 200

    async def stops(self) -> None:
        self.process.signal(signal.SIGTERM)
        assert await self.process.ended(10) == 0


async def test_a_full_pipe_holds_up_no_node_and_loses_no_line(start_process: Start, pipe: Pipe) -> None:
    node = await Node(start_process, pipe.writing).started()
    await node.works()
    lines = await received(pipe, 21, b"connection.opened")
    events = [json.loads(line)["event"] for line in lines if line.startswith(b"{")]
    assert events.count("connection.opened") == 21
    assert events.count("connection.closed") >= 20
    assert any(line.startswith(b"Tidegate") for line in lines)
    await node.works()  # it is full again
    await node.stops()


async def test_a_pipe_that_nobody_reads_any_more_ends_no_node(start_process: Start) -> None:
    pipe = Pipe()
    node = await Node(start_process, pipe.writing).started()
    pipe.close()
    await node.works()
    await node.stops()


async def test_a_full_disk_ends_no_node(start_process: Start) -> None:
    node = await Node(start_process, "/dev/full").started()
    await node.works()
    await node.stops()


async def test_a_stopped_terminal_holds_up_no_node(start_process: Start) -> None:
    ours, theirs = pty.openpty()
    try:
        node = await Node(start_process, os.ttyname(theirs)).started()
        await node.works()
        await node.stops()
    finally:
        os.close(ours)
        os.close(theirs)


async def test_lines_that_are_dropped_are_counted() -> None:
    code = """
import sys
from tidegate import log
log.setup("info", "n1")
for number in range(2000):
    log.info("node.started", filler="x" * 1000)
print(log.dropped(), flush=True)
sys.stdin.readline()
"""
    pipe = Pipe(256 * 1024)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=pipe.writing,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert int(await process.stdout.readline()) > 500
    written = dropped = 0
    rest = b""

    def all_told() -> bool:
        nonlocal rest, written, dropped
        *lines, rest = (rest + pipe.read()).split(b"\n")
        for line in map(json.loads, lines):
            if line["event"] == "log.dropped":
                dropped += line["lines"]
            else:
                written += 1
        return written + dropped == 2000

    await eventually(all_told, 10)
    process.stdin.write(b"\n")
    assert await process.wait() == 0
    pipe.close()


async def test_a_standard_stream_that_is_closed_gets_no_line_into_a_socket(start_process: Start) -> None:
    port, internal = free_port(), free_port()
    env = {"TIDEGATE_SERVER__PORT": str(port), "TIDEGATE_INTERNAL__PORT": str(internal)}
    program = ("sh", "-c", 'exec "$@" >&- 2>&-', "sh", sys.executable, "-m", "tidegate", "serve")
    process = start_process(*program, env=env)
    await process.port(internal)
    for number in "12":
        assert os.readlink(f"/proc/{process.pid}/fd/{number}") == "/dev/null"
    async with Peer(port, client="alice") as alice:
        await alice.event()
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0
