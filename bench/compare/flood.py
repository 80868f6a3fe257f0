"""What those who flood cost a neighbour: its round trip of a JSON ping, with and without them, in turn.

A flooder sends as fast as it is read, and reads whatever comes back. The neighbour asks one thing at a time. Flooders
are a process of their own, on the core that the neighbour has too; the servers have the other one.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import select
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.compare.modes import Mode, running
from bench.load import system
from bench.load.client import come_to_rest
from bench.load.processes import LOAD_CORE, BenchError
from bench.load.publisher import LoadError, post
from bench.load.storm import make_tokens, request_of, shake_hands
from bench.report.comparison import EVERY
from tidegate.tornado_seam import mask

PATH = "/ws-notifications/?groups=flood"
KEY = b"\x01\x02\x03\x04"
BUFFER = 256 * 1024
WAIT_S = 10.0
MESSAGES, MESSAGE_BYTES = 20, 13_000  # of history: an answer of 256 KiB
LIMIT_MS = 50.0  # promised for ten flooders
_SETTINGS = {
    "GROUPS": {"flood": {"presence": "members", "publish": "members"}},
    "LIMITS__NOT_UNDERSTOOD_PER_MINUTE": 1000,
}


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A client's, of less than 126 bytes."""
    return bytes((opcode | (0x80 if fin else 0), 0x80 | len(payload))) + KEY + mask(KEY, payload)


def _command(text: bytes) -> bytes:
    return frame(1, b'{"type":' + text + b"}")


KINDS = {
    "json-ping": _command(b'"ping","id":1'),
    "text-ping": frame(1, b"ping"),
    "control-ping": frame(9),
    "pong": frame(10),
    "fragments": frame(1, b"p", fin=False) + frame(0, fin=False) * 1000 + frame(0, b"ing"),
    "refused": _command(b'"leave","id":1,"group":"other"'),
    "leave": _command(b'"join","id":1,"group":"g"') + _command(b'"leave","id":2,"group":"g"'),
    "publish": _command(b'"publish","id":1,"group":"flood","data":1'),
    "presence": _command(b'"presence","id":1,"group":"flood"'),
    "history": _command(b'"history","id":1,"group":"flood","epoch":"x","offset":0'),
    "replay": _command(b'"join","id":1,"group":"flood","epoch":"x","offset":0'),
}


def add_command(commands: Any) -> None:
    parser = commands.add_parser("flood", help="what those who flood cost a neighbour")
    parser.add_argument("--modes", default="direct", help=f"of {','.join(EVERY)}; several by commas (default: direct)")
    parser.add_argument(
        "--kinds", default=",".join(KINDS), help="what is sent; several by commas (default: %(default)s)"
    )
    parser.add_argument("--flooders", type=int, default=10, metavar="N", help="connections (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="with and without (default: %(default)s)")
    parser.add_argument("--questions", type=int, default=500, metavar="N", help="of each (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """1 where the neighbour's p99 was above 50 ms in the median of the pairs, or nothing could be measured."""
    os.sched_setaffinity(0, {LOAD_CORE})
    slow = False
    for name in args.modes.split(","):
        for kind in args.kinds.split(","):
            try:
                slow |= _measure(name, kind, args) > LIMIT_MS
            except (BenchError, LoadError, OSError) as exc:
                print(f"{name:10} {kind:13} {exc}", file=sys.stderr)
                slow = True
    return int(slow)


def _measure(name: str, kind: str, args: argparse.Namespace) -> float:
    """The median of the neighbour's p99 beside flooders (ms)."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-flood-")))
        folder.chmod(0o755)  # nginx' worker is another user
        mode = stack.enter_context(running(name, folder / name, _SETTINGS))
        if kind == "history":
            _fill(mode)
        neighbour = connect(mode.port, "neighbour", 1)[0]
        alone: list[float] = []
        beside: list[float] = []
        closed = 0
        for _ in range(args.pairs):
            come_to_rest([pid for pids in mode.pids.values() for pid in pids])
            ask_pings(neighbour, 50)  # to warm up
            alone.append(p99(ask_pings(neighbour, args.questions)))
            with _flooding(mode.port, kind, args.flooders) as told:
                beside.append(p99(ask_pings(neighbour, args.questions)))
            closed += told[0]
        print(
            f"{name:10} {kind:13} p99 alone {median(alone):6.2f} ms, beside {args.flooders} that flood "
            f"{median(beside):7.2f} ms ({min(beside):.2f}-{max(beside):.2f}); {closed} closed, "
            f"{mode.counted('tidegate_shares_used_total'):.0f} shares used up, service's peak {mode.peak_mb():.0f} MB",
            flush=True,
        )
        return median(beside)


def _fill(mode: Mode) -> None:
    with socket.create_connection(("127.0.0.1", mode.api_port)) as sock:
        for _ in range(MESSAGES):
            sock.sendall(post("/api/groups/flood/push", b'{"data":"%b"}' % (b"x" * MESSAGE_BYTES)))
            assert b" 202 " in sock.recv(4096)


def connect(port: int, prefix: str, count: int) -> list[socket.socket]:
    """Clients that are in the group ``flood`` and have had their welcome."""
    tokens = make_tokens(system.TOKEN_KEY, count, prefix=prefix, publish=True)
    requests = [(("127.0.0.1", port), request_of("127.0.0.1", port, PATH, token)) for token in tokens]
    return shake_hands(requests, b'"welcome"')


def ask_pings(sock: socket.socket, count: int) -> list[float]:
    """The round trips of JSON pings, one at a time, in ms."""
    question = KINDS["json-ping"]
    sock.settimeout(WAIT_S)
    took_ms = []
    for _ in range(count):
        begun = time.perf_counter()
        sock.sendall(question)
        answer = b""
        while b'"pong"' not in answer:
            part = sock.recv(BUFFER)
            if not part:
                raise LoadError("the neighbour was closed")
            answer = answer[-10:] + part
        took_ms.append((time.perf_counter() - begun) * 1000)
        time.sleep(0.001)
    return took_ms


def p99(took_ms: Sequence[float]) -> float:
    return quantiles(took_ms, n=100)[98]


@contextlib.contextmanager
def _flooding(port: int, kind: str, count: int) -> Iterator[list[int]]:
    """Flooders at work; at the end the list has how many were closed."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_flood, args=(theirs, port, kind, count), daemon=True)
    process.start()
    told: list[int] = []
    try:
        if not ours.poll(WAIT_S) or ours.recv() != "begun":
            raise LoadError("the flooders did not begin")
        yield told
        ours.send("end")
        if not ours.poll(WAIT_S):
            raise LoadError("the flooders did not end")
        told.append(ours.recv())
    finally:
        process.terminate()
        process.join()


def _flood(pipe: Connection, port: int, kind: str, count: int) -> None:
    """Sends on all its connections until it is told to end. A client that is closed comes back."""
    unit = KINDS[kind]
    data = unit * (64 * 1024 // len(unit) + 1)
    socks: dict[int, socket.socket] = {}
    at: dict[int, int] = {}
    poller = select.epoll()

    def enter(number: int) -> None:
        for sock in connect(port, "flooder", number):
            sock.setblocking(False)
            socks[sock.fileno()] = sock
            at[sock.fileno()] = 0
            poller.register(sock, select.EPOLLIN | select.EPOLLOUT)

    enter(count)
    closed = 0
    pipe.send("begun")
    while not pipe.poll():
        for fd, event in poller.poll(0.1):
            sock = socks[fd]
            try:
                if event & select.EPOLLIN and not sock.recv(BUFFER):
                    raise ConnectionResetError
                if event & select.EPOLLOUT:
                    at[fd] = (at[fd] + sock.send(memoryview(data)[at[fd] :])) % len(data)
            except BlockingIOError:
                pass
            except OSError:
                poller.unregister(fd)
                socks.pop(fd).close()
                closed += 1
                enter(1)
    pipe.send(closed)
