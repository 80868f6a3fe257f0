"""What many hear goes to a client at once where nothing is before it, whole and in order, and to nobody else.

nginx says in its log here what was sent so: ``client_socket.send`` is the real one with a line more."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.edges.edge import Edge
from tests.edges.edge_only import tls_context
from tests.edges.lua import rewrite
from tests.edges.lua_code import Lua
from tests.edges.trunk_node import ROOM, ScriptedNode, at, scripted
from tests.handshakes import handshake
from tests.peer import TEXT, Peer, frame
from tests.support import eventually
from tidegate.trunk import codec
from tidegate.trunk.codec import Kind

SLOW_CONSUMER = 4008
RCVBUF = 4096
SIZE = 9_973  # of a message: a prime, so that sockets take parts of some
MANY = 80  # of them are more than a socket takes, and less than may wait
LAST = 5  # of them come in one turn
CONNECTIONS = 256  # of nginx' worker
SLICE = 100  # sessions
READ_BYTES = 16_384  # of the trunk at a time, here
_END = "\nreturn _M\n"
_TOLD = """
local send = _M.send
function _M.send(client, bytes)
    local sent = send(client, bytes)
    ngx.log(ngx.NOTICE, "at once: ", sent, " of ", #bytes)
    return sent
end


return _M
"""


@contextlib.asynccontextmanager
async def telling(node: ScriptedNode, changes: Mapping[str, str] = MappingProxyType({})) -> AsyncIterator[Edge]:
    """``changes``: others, in ``client_socket.lua``."""
    async with scripted(node) as edge:
        files = {
            "lua/client_socket.lua": {_END: _TOLD, **changes},
            "lua/trunk.lua": {"ANY_BYTES = 65536": f"ANY_BYTES = {READ_BYTES}"},
        }
        await rewrite(edge, files)
        yield edge


def sent_at_once(edge: Edge) -> list[tuple[int, int]]:
    """So many bytes of so many."""
    found = re.findall(r"at once: (\d+) of (\d+)", edge.process.stderr)
    return [(int(sent), int(size)) for sent, size in found]


def text(number: int) -> bytes:
    return b"%d " % number + b"x" * SIZE


def heard(numbers: range) -> bytes:
    found = b""
    for number in numbers:
        positions = codec.position(at(number)) + codec.position(at(number + 1))
        found += codec.frame(Kind.HEARD, ROOM, positions + frame(TEXT, text(number), mask=None))
    return found


@contextlib.asynccontextmanager
async def stalled(edge: Edge, name: str = "alice") -> AsyncIterator[Peer]:
    async with Peer(edge.port, client=name, rcvbuf=RCVBUF) as peer:
        assert await peer.raw() == b"welcome"
        peer.reading.clear()
        yield peer


async def fill(node: ScriptedNode, numbers: range) -> None:
    for number in numbers:  # one by one: it is the socket that has no room, and not the writer that has no turn
        node.raw(heard(range(number, number + 1)))
        await asyncio.sleep(0.005)


async def room(node: ScriptedNode, edge: Edge) -> int:
    """How many messages the socket of a client takes whole that reads nothing."""
    async with stalled(edge, "bob"):
        await fill(node, range(MANY))
        await eventually(lambda: is_in_parts(edge))
        return sum(sent == size for sent, size in sent_at_once(edge))


def is_in_parts(edge: Edge) -> bool:
    return any(0 < sent < size for sent, size in sent_at_once(edge))


async def in_one_turn(node: ScriptedNode, edge: Edge, first: int, behind: bytes) -> None:
    """The last messages, of which the socket takes one in parts, and what is behind them. Each is the end of what nginx
    reads at a time, so that it knows of nothing behind it."""
    said = b""
    for number in range(first, first + LAST):
        data = heard(range(number, number + 1))
        said += codec.frame(Kind.PULSE, 0, b" " * (READ_BYTES - len(data) - codec.HEAD.size)) + data
    (worker,) = edge.workers()
    os.kill(worker, signal.SIGSTOP)
    seen = len(sent_at_once(edge))
    node.raw(said + behind)
    await asyncio.sleep(0.05)
    os.kill(worker, signal.SIGCONT)
    await eventually(lambda: any(0 < sent < size for sent, size in sent_at_once(edge)[seen:]))


async def test_a_message_wakes_nobody_to_be_written() -> None:
    node = ScriptedNode()
    async with telling(node) as edge, Peer(edge.port, client="alice") as alice:
        assert await alice.raw() == b"welcome"
        node.raw(heard(range(1)))
        assert await alice.raw() == text(0)
        size = len(frame(TEXT, text(0), mask=None))
        assert await eventually(lambda: sent_at_once(edge)) == [(size, size)]


async def test_what_has_more_behind_it_waits_and_goes_out_with_that() -> None:
    """A worker that lags reads many at a time: joined they cost what one costs."""
    node = ScriptedNode()
    async with telling(node) as edge, Peer(edge.port, client="alice") as alice:
        assert await alice.raw() == b"welcome"
        node.raw(heard(range(3)))
        assert [await alice.raw() for _ in range(3)] == [text(number) for number in range(3)]
        assert sent_at_once(edge) == []


async def test_what_a_socket_takes_in_parts_comes_whole_and_in_order() -> None:
    node = ScriptedNode()
    async with telling(node) as edge, stalled(edge) as alice:
        await fill(node, range(MANY))
        await eventually(lambda: is_in_parts(edge))
        alice.reading.set()
        assert [await alice.raw() for _ in range(MANY)] == [text(number) for number in range(MANY)]
        seen = len(sent_at_once(edge))
        node.raw(heard(range(MANY, MANY + 1)))
        assert await alice.raw() == text(MANY)
        await eventually(lambda: len(sent_at_once(edge)) > seen)


def closed(node: ScriptedNode, _: int) -> bytes:
    return codec.frame(Kind.CLOSE, node.sessions[-1][1], codec.code(SLOW_CONSUMER, "slow"))


def said(node: ScriptedNode, _: int) -> bytes:
    return codec.frame(Kind.SEND, node.sessions[-1][1], frame(TEXT, b"said", mask=None))


def moved(node: ScriptedNode, count: int) -> bytes:
    return codec.frame(Kind.MOVE, node.sessions[-1][1], codec.count(0) + codec.cursor({"room": at(count)}))


def lost(_: ScriptedNode, __: int) -> bytes:
    return codec.frame(Kind.HEARD, ROOM, b"no position")


async def test_it_does_not_overtake_what_is_said_to_a_client_alone() -> None:
    node = ScriptedNode()
    async with telling(node) as edge, Peer(edge.port, client="alice") as alice:
        assert await alice.raw() == b"welcome"
        node.raw(said(node, 0) + heard(range(1)))
        assert [await alice.raw(), await alice.raw()] == [b"said", text(0)]


@pytest.mark.parametrize("behind", [closed, said, moved, lost])
async def test_the_rest_of_what_has_begun_is_before_all_that_comes_in_the_same_turn(
    behind: Callable[[ScriptedNode, int], bytes],
) -> None:
    """Anything else in the middle of a frame would be read as a part of it. At 4008 what waits is dropped."""
    node = ScriptedNode()
    async with telling(node) as edge:
        first = await room(node, edge) - LAST // 2
        async with stalled(edge) as alice:
            await fill(node, range(first))
            count = first + LAST
            await in_one_turn(node, edge, first, behind(node, count))
            alice.reading.set()
            if behind is closed:
                assert await alice.ended() == SLOW_CONSUMER
                count = alice.pending() - 1
                assert first < count < first + LAST
            assert [await alice.raw() for _ in range(count)] == [text(number) for number in range(count)]
            if behind is said:
                assert await alice.raw() == b"said"
            if behind in (moved, lost):
                await eventually(lambda: node.cursors == [{"room": at(count)}])
                node.raw(heard(range(count, count + 1)))
                assert await alice.raw() == text(count)


async def test_a_client_that_has_gone_is_not_written_to() -> None:
    node = ScriptedNode()
    async with telling(node) as edge, Peer(edge.port, client="bob") as bob:
        assert await bob.raw() == b"welcome"
        async with Peer(edge.port, client="alice") as alice:
            assert await alice.raw() == b"welcome"
        node.raw(heard(range(3)))
        assert [await bob.raw() for _ in range(3)] == [text(number) for number in range(3)]
        await eventually(lambda: [kind for kind, _, _ in node.said].count(Kind.GONE) == 1)


async def test_a_pause_between_slices_takes_no_connection_of_nginx() -> None:
    """A timer takes one. Where few are left nginx closes a client's for it that has said nothing yet, and where none
    is, it complains, and the reader waits in vain."""
    node = ScriptedNode()
    async with scripted(node, EDGE__WORKER_CONNECTIONS=CONNECTIONS) as edge, contextlib.AsyncExitStack() as stack:
        edge.provoked("worker_connections are not enough|lua failed to run timer with .*/(clock|metrics|unsent).lua")
        peers: list[Peer] = []
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while len(peers) < CONNECTIONS:
                peers.append(await stack.enter_async_context(Peer(edge.port, client=f"c{len(peers)}")))
                assert await peers[-1].raw() == b"welcome"
        assert SLICE < len(peers) < CONNECTIONS
        node.raw(heard(range(1)))
        assert {await peer.raw() for peer in peers} == {text(0)}


_LATE = """
local send = _M.send
function _M.send(client, bytes)
    local until_s = os.clock() + 0.0002
    repeat until os.clock() > until_s
    ngx.log(ngx.NOTICE, "heard")
    return send(client, bytes)
end


return _M
"""
_ANSWERED = """
local say_text = _M.say_text
function _M.say_text(self, text)
    ngx.log(ngx.NOTICE, "answered")
    return say_text(self, text)
end


return _M
"""


async def test_others_have_their_turn_between_slices() -> None:
    """What comes during a broadcast is looked at before it ends; a session takes 0.2 ms here."""
    node = ScriptedNode()
    async with scripted(node) as edge, contextlib.AsyncExitStack() as stack:
        await rewrite(edge, {"lua/client_socket.lua": {_END: _LATE}, "lua/linked.lua": {_END: _ANSWERED}})
        peers = [await stack.enter_async_context(Peer(edge.port, client=f"c{n}")) for n in range(4 * SLICE)]
        assert {await peer.raw() for peer in peers} == {b"welcome"}
        node.raw(heard(range(1)))
        await eventually(lambda: "heard" in edge.process.stderr)
        for _ in range(2 * SLICE):
            peers[0].send_text("ping")
            await asyncio.sleep(0.0005)
        await eventually(lambda: edge.process.stderr.count("heard") == len(peers))
        slices = [part.count("heard") for part in edge.process.stderr.split("answered")]
        assert max(slices) < len(peers)


async def test_over_tls_it_is_written_by_who_has_the_socket() -> None:
    node = ScriptedNode()
    async with telling(node) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.tls_port, ssl=tls_context())
        writer.write(handshake(target="/ws-notifications/?client=alice"))
        await reader.readuntil(b"welcome")
        node.raw(heard(range(2)))
        for number in range(2):
            expected = frame(TEXT, text(number), mask=None)
            assert await reader.readexactly(len(expected)) == expected
        assert sent_at_once(edge) == []
        writer.transport.abort()


async def test_where_nginx_has_other_structs_it_is_written_by_who_has_the_socket() -> None:
    other = {"void *recv; void *send;": "void *send; void *recv;"}
    node = ScriptedNode()
    async with telling(node, other) as edge, Peer(edge.port, client="alice") as alice:
        assert await alice.raw() == b"welcome"
        node.raw(heard(range(1)))
        assert await alice.raw() == text(0)
        assert sent_at_once(edge) == []


@pytest.fixture
def lua(tmp_path: Path) -> Iterator[Lua]:
    tmp_path.chmod(0o755)  # nginx' worker is another user
    it = Lua(tmp_path)
    yield it
    it.process.kill()


@pytest.mark.parametrize(
    "changed",
    [
        "client.request = require('ffi').cast('tidegate_request *', client.connection)",  # another request's by now
        "client.fd = client.fd + 1",
    ],
)
async def test_a_connection_that_is_another_by_now_is_not_written_to(lua: Lua, changed: str) -> None:
    await lua.process.port(lua.port)
    code = f"local s = require 'client_socket'; local client = s.current(); {changed}; return s.send(client, text)"
    assert await lua.run(code, [b"to nobody"]) == [b"0"]
