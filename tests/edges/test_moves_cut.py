"""A client moves, and the node that has just taken it goes as well, in the same breath: nothing may be lost between
what the trunk heard and what the session knows of it. A node that does this is made up here, for a real one cannot be
made to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from tests.edges.edge import Stand, stand
from tests.support import eventually, free_port
from tidegate.trunk import codec
from tidegate.trunk.codec import Kind, Splitter

Taken = Callable[[int, bytes], bytes]  # what follows the acceptance of a session: its number, and its cursor


class BriefNode:
    """Answers probes, refuses handshakes, and takes up whoever comes from another node; with what it says then it ends
    the trunk, if ``ends``. ``texts`` are the messages of clients that it was sent."""

    def __init__(self, taken: Taken, *, ends: bool) -> None:
        self.port = free_port()
        self.resumed = 0
        self.texts: list[bytes] = []
        self._links: list[asyncio.StreamWriter] = []
        self._taken = taken
        self._ends = ends
        self._folder = Path(tempfile.mkdtemp(prefix="tidegate-brief-"))
        self._folder.chmod(0o755)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        path = str(self._folder / "trunk.sock")
        async with await asyncio.start_unix_server(self._serve, path):
            os.chmod(path, 0o666)
            async with await asyncio.start_server(self._probe, "127.0.0.1", self.port):
                yield
            for writer in self._links:
                writer.close()
            await eventually(lambda: not self._links)

    async def _probe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            where = f"Tidegate-Trunk: unix:{self._folder}/trunk.sock\r\n".encode()
            writer.write(b"HTTP/1.1 204 No Content\r\n" + where + b"Connection: close\r\n\r\n")
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._links.append(writer)
        hello = codec.fields(lowest=1, highest=1, node="brief", nonce="n")
        writer.write(codec.frame(Kind.HELLO, 0, hello))
        splitter = Splitter()
        while data := await reader.read(65536):
            splitter.feed(data)
            for kind, number, payload in splitter.frames(1000):
                if kind == Kind.HELLO:
                    writer.write(codec.frame(Kind.PULSE, 0, b"x 0-0 0"))
                elif kind == Kind.OPEN:
                    writer.write(codec.frame(Kind.REFUSE, number, _REFUSAL))
                elif kind == Kind.TEXT:
                    self.texts.append(payload)
                elif kind == Kind.RESUME:
                    self.resumed += 1
                    writer.write(codec.frame(Kind.ACCEPT, number) + self._taken(number, _cursor(payload)))
                    if self._ends:
                        writer.close()
        self._links.remove(writer)
        writer.close()


_REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}"


def _cursor(resume: bytes) -> bytes:
    start = 4 + codec.read_count(resume[:4])
    return resume[start : codec.read_cursor(resume, start)[1]]


@contextlib.asynccontextmanager
async def beside(node: BriefNode) -> AsyncIterator[Stand]:
    async with node.running():
        nodes = {"EDGE__HOLD_S": 10}
        async with stand("openresty-trunk", edge={"EDGE__HOLD_S": 10}, others=[f"127.0.0.1:{node.port}"], **nodes) as s:
            s.provoked("the trunk to .* has ended|no trunk to|Connection refused|no handshake with|No such file")
            yield s


async def comes_back(s: Stand, node: BriefNode) -> None:
    """The real node goes, the brief one takes its client and goes too, and the real one is back."""
    async with s.peer("alice") as alice:
        await alice.event()
        s.node.process.kill()
        await eventually(lambda: node.resumed)
        s.node.start()
        await s.node.ready()

        async def heard() -> bool:
            await s.node.push("clients/alice", "hello")
            await asyncio.sleep(0.1)
            return alice.pending() > 0

        await eventually(heard)
        assert alice.close_code is None
        assert (await alice.ask(type="ping", id=1))["type"] == "pong"


def welcomed(number: int, cursor: bytes) -> bytes:
    """It is where each of its streams is."""
    positions, _ = codec.read_cursor(cursor, 0)
    follows = [
        codec.frame(Kind.FOLLOW, number, codec.count(at) + codec.position(position) + stream.encode())
        for at, (stream, position) in enumerate(positions.items(), 1)
    ]
    return b"".join([*follows, codec.frame(Kind.WELCOMED, number)])


def sent_on(number: int, cursor: bytes) -> bytes:
    return codec.frame(Kind.WELCOMED, number) + codec.frame(Kind.MOVE, number, codec.count(0) + cursor)


async def test_a_node_that_ends_as_it_takes_a_client_leaves_it_to_the_next() -> None:
    node = BriefNode(welcomed, ends=True)
    async with beside(node) as s:
        await comes_back(s, node)


async def test_a_node_that_sends_a_client_on_as_it_takes_it_leaves_it_to_the_next() -> None:
    node = BriefNode(sent_on, ends=False)
    async with beside(node) as s:
        await comes_back(s, node)
