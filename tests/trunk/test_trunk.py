"""A node's end of a trunk, by a worker that speaks it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from tests.service_fixture import running
from tests.support import eventually, free_port
from tests.trunk.worker import linked
from tidegate.app import App
from tidegate.core.model import Publication
from tidegate.trunk.codec import Kind
from tidegate.trunk.transport import PART_BYTES


async def push(app: App, stream: str, *data: bytes) -> None:
    await app.gateway.push([Publication(stream, one) for one in data])


async def test_a_message_crosses_a_trunk_once_whoever_follows(tmp_path: Path) -> None:
    async with running(TRUNK__SOCKET=str(tmp_path / "t.sock")) as app, linked(str(tmp_path / "t.sock")) as worker:
        clients = [(await worker.welcome(f"client=c{n}&groups=news"))[0] for n in range(5)]
        await push(app, "group:news", b"1", b"2")
        for client in clients:
            assert [(await client.gets("message"))["offset"] for _ in range(2)] == [1, 2]
        assert worker.heard == 1  # both in one frame
        assert app.hub.deliveries == 10


async def test_a_handshake_is_answered_as_on_a_socket(tmp_path: Path) -> None:
    async with running(TRUNK__SOCKET=str(tmp_path / "t.sock")) as app, linked(str(tmp_path / "t.sock")) as worker:
        client = worker.open("client=alice", "Sec-WebSocket-Protocol: tidegate.v1\r\n")
        welcome = await client.gets("welcome")
        head = client.answer.decode()
        assert head.startswith("HTTP/1.1 101 ")
        assert "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
        assert "\r\nSec-WebSocket-Protocol: tidegate.v1\r\n" in head
        assert f"\r\nTidegate-Connection: {welcome['connection']}\r\n" in head
        await eventually(lambda: client.welcomed)
        refused = worker.open("client=a/b")
        await eventually(lambda: refused.answer)
        assert refused.answer.startswith(b"HTTP/1.1 400 ")
        assert b'"code":"bad_request"' in refused.answer
        assert app.metrics.open_connections == 1


async def test_commands_are_answered_and_counted(tmp_path: Path) -> None:
    async with running(TRUNK__SOCKET=str(tmp_path / "t.sock")) as app, linked(str(tmp_path / "t.sock")) as worker:
        client, _ = await worker.welcome("client=alice")
        client.says("ping")
        client.says("pong")
        client.says({"type": "join", "id": 1, "group": "chat"})
        client.says({"type": "ping", "id": 2})
        client.says("nothing")
        assert await worker.next_event(client) == "pong"
        assert (await client.gets("reply"))["stream"] == "group:chat"
        await client.gets("pong")
        await client.gets("error")
        await eventually(lambda: client.done == 5)
        client.says({"type": "leave", "id": 3, "group": "chat"})
        await client.gets("reply")
        await eventually(lambda: len(client.live) == 2)
        await push(app, "group:chat", b"1")
        client.gone()
        await eventually(lambda: not app.metrics.open_connections)
        assert not app.hub.audiences or await _all_left(app)


async def _all_left(app: App) -> bool:
    await eventually(lambda: not app.hub.audiences)
    return True


async def test_who_joins_with_a_position_catches_up_and_then_is_live(tmp_path: Path) -> None:
    async with running(TRUNK__SOCKET=str(tmp_path / "t.sock")) as app, linked(str(tmp_path / "t.sock")) as worker:
        one, welcome = await worker.welcome("client=one&groups=news")
        await push(app, "group:news", *(b"%d" % n for n in range(20)))
        two, _ = await worker.welcome("client=two")
        at = welcome["streams"]["group:news"]
        two.says({"type": "join", "id": 1, "group": "news", "epoch": at["epoch"], "offset": 0})
        reply = await two.gets("reply")
        assert reply["missed"] == 20, reply
        assert [(await two.gets("message"))["offset"] for _ in range(20)] == list(range(1, 21))
        await push(app, "group:news", b"0")
        assert (await two.gets("message"))["offset"] == 21
        assert [(await one.gets("message"))["offset"] for _ in range(21)] == list(range(1, 22))


async def test_a_replay_waits_until_the_edge_has_written(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"TRUNK__SOCKET": str(tmp_path / "t.sock")}
    async with running(**settings) as app, linked(str(tmp_path / "t.sock")) as worker:
        data = b'"' + b"x" * 60_000 + b'"'
        _, welcome = await worker.welcome("client=one&groups=news")
        for _ in range(20):
            await push(app, "group:news", data)
        at = welcome["streams"]["group:news"]
        two, _ = await worker.welcome("client=two")
        two.says({"type": "join", "id": 1, "group": "news", "epoch": at["epoch"], "offset": 0})
        await two.gets("reply")
        for offset in range(1, 21):
            event = await two.gets("message")
            assert event["offset"] == offset
            assert two.sent < (offset + 8) * 61_000  # a page or so ahead
            two.written()
        await eventually(lambda: len(two.live) == 3)


async def test_a_slow_session_is_closed_and_the_others_go_on(tmp_path: Path, expected_logs: Any) -> None:
    async with running(TRUNK__SOCKET=str(tmp_path / "t.sock")) as app, linked(str(tmp_path / "t.sock")) as worker:
        slow, _ = await worker.welcome("client=slow&groups=news")
        fast, _ = await worker.welcome("client=fast&groups=news")
        from tidegate.trunk.codec import Kind

        worker.send(Kind.SLOW, slow.number)
        await eventually(lambda: slow.closed)
        assert slow.closed == (4008, "slow consumer")
        await push(app, "group:news", b"1")
        await fast.gets("message")
        slow.gone(4008)
        await eventually(lambda: app.metrics.open_connections == 1)


async def test_a_trunk_that_ends_ends_its_sessions(tmp_path: Path) -> None:
    async with running(TRUNK__SOCKET=str(tmp_path / "t.sock")) as app:
        async with linked(str(tmp_path / "t.sock")) as worker:
            await worker.welcome("client=one&groups=news")
            await worker.welcome("client=two&groups=news")
        await eventually(lambda: not app.metrics.open_connections)
        await eventually(lambda: not app.hub.audiences)


async def test_who_asks_over_tcp_hears_of_the_port_and_over_unix_of_the_socket(tmp_path: Path) -> None:
    """Who comes over TCP may be on another machine."""
    port, sock, public = free_port(), str(tmp_path / "t.sock"), str(tmp_path / "s.sock")
    question = b"GET /.probe HTTP/1.1\r\nHost: a\r\nTidegate-Trunk: 1\r\nConnection: close\r\n\r\n"
    both: dict[str, Any] = {"TRUNK__SOCKET": sock, "TRUNK__PORT": port, "TRUNK__KEY": "a-key-of-this-test"}
    async with running(SERVER__SOCKET=public, **both) as app:
        over_tcp = await asyncio.open_connection("127.0.0.1", app.public_port)
        over_unix = await asyncio.open_unix_connection(public)
        for (reader, writer), where in ((over_tcp, str(port)), (over_unix, f"unix:{sock}")):
            writer.write(question)
            assert f"\r\nTidegate-Trunk: {where}\r\n".encode() in await reader.read()
            writer.close()


async def test_a_large_answer_crosses_in_parts_and_is_whole(tmp_path: Path) -> None:
    async with running(TRUNK__SOCKET=str(tmp_path / "t.sock")) as app, linked(str(tmp_path / "t.sock")) as worker:
        client, _ = await worker.welcome("client=alice&groups=news")
        data = [b'"%d%b"' % (number, b"x" * 13_000) for number in range(10)]
        await push(app, "group:news", *data)
        for _ in data:
            await client.gets("message")
        client.says({"type": "history", "id": 1, "group": "news"})
        reply = await client.gets("reply")
        assert [len(message["data"]) for message in reply["messages"]] == [13_001] * 10
        assert worker.largest[Kind.SEND] <= PART_BYTES
        assert worker.largest[Kind.PART] == PART_BYTES


async def test_large_answers_of_all_sessions_wait_for_the_link(tmp_path: Path) -> None:
    async with running(TRUNK__SOCKET=str(tmp_path / "t.sock")) as app, linked(str(tmp_path / "t.sock")) as worker:
        clients = [(await worker.welcome(f"client=c{n}&groups=news"))[0] for n in range(8)]
        await push(app, "group:news", *[b'"%b"' % (b"x" * 13_000)] * 20)
        for client in clients:
            for _ in range(20):
                await client.gets("message")
        (link,) = app._trunks._links
        worker.transport.pause_reading()
        for n in range(4):
            for client in clients:
                client.says({"type": "history", "id": n, "group": "news"})
        await eventually(lambda: len(link._crowd) >= 4)  # the others have one, and wait until they have read it
        assert link._transport is not None
        assert link._transport.get_write_buffer_size() < 3 * 262_144  # of 8 MiB
        worker.transport.resume_reading()
        for client in clients:
            for n in range(4):
                assert (await client.gets("reply"))["id"] == n
                client.written()


async def test_who_goes_while_it_waits_to_be_let_in_waits_no_longer(tmp_path: Path) -> None:
    path = str(tmp_path / "t.sock")
    settings = {"LIMITS__HANDSHAKES_PER_SECOND": 1, "LIMITS__HANDSHAKE_WAIT_S": 30}
    async with running(TRUNK__SOCKET=path, **settings) as app, linked(path) as worker:
        await worker.welcome("client=alice")
        waiting = [worker.open(f"client=c{number}") for number in range(10)]
        await eventually(lambda: app.admission.waiting == 10)
        for client in waiting[1:]:
            client.gone()
        await eventually(lambda: app.metrics.handshakes["bad_request",] == 9, 3)  # in their turn: nine seconds
        assert app.admission.begun <= 3


async def test_who_waits_to_be_let_in_is_no_connection_yet(tmp_path: Path) -> None:
    """Sockets of the public port are counted as what is no trunk's, so that files do not run out."""
    path = str(tmp_path / "t.sock")
    async with running(TRUNK__SOCKET=path, LIMITS__HANDSHAKES_PER_SECOND=1) as app, linked(path) as worker:
        alice, _ = await worker.welcome("client=alice")
        waits = worker.open("client=bob")
        await eventually(lambda: app.admission.waiting == 1)
        assert b"tidegate_trunk_connections 1.0" in app.metrics.text()
        assert app._public() == 0
        await eventually(lambda: waits.welcomed)
        assert b"tidegate_trunk_connections 2.0" in app.metrics.text()
        alice.gone()
        await eventually(lambda: b"tidegate_trunk_connections 1.0" in app.metrics.text())
        assert (app._public(), app.metrics.open_connections) == (0, 1)


async def test_a_node_ends_when_its_last_words_were_taken(tmp_path: Path) -> None:
    """By an edge that is late, and says something itself meanwhile: where a client goes on comes last."""
    async with contextlib.AsyncExitStack() as stack:
        async with running(TRUNK__SOCKET=str(tmp_path / "t.sock")) as app:
            worker = await stack.enter_async_context(linked(str(tmp_path / "t.sock")))
            client, _ = await worker.welcome("client=alice&groups=news")
            worker.transport.pause_reading()
            for _ in range(40):
                await push(app, "group:news", b'"%b"' % (b"x" * 60_000))
            for session in list(app.hub.sessions()):
                session.wire.hand_over()
            client.says("pong")
            asyncio.get_running_loop().call_later(0.2, worker.transport.resume_reading)
        assert worker.lost
        assert client.cursor is not None


async def test_a_node_does_not_wait_for_an_edge_that_takes_nothing(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with running(TRUNK__SOCKET=str(tmp_path / "t.sock")) as app:
            worker = await stack.enter_async_context(linked(str(tmp_path / "t.sock")))
            await worker.welcome("client=alice&groups=news")
            worker.transport.pause_reading()
            for _ in range(40):
                await push(app, "group:news", b'"%b"' % (b"x" * 60_000))
            begun_s = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - begun_s < 3
