"""Sessions of the OpenResty edge with services and clients that are not as they should be."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time

import pytest

from tests.edges.lua import Service, running, session
from tests.peer import CLOSE, PING, PONG, TEXT, Peer, Refusal, frame
from tests.scripted import Handler, Names, says, server
from tests.support import eventually, free_port, scaled

CONTINUATION = 0


async def test_the_service_hears_what_the_client_said_and_where_it_is() -> None:
    async with session() as (service, peer, _):
        (request,) = service.requests
        line, *fields = request.decode().strip().split("\r\n")
        named = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
        assert line == "GET /ws-notifications/?client=liar HTTP/1.1"
        assert (named["host"], named["cookie"]) == (f"127.0.0.1:{peer.port}", "a=b")
        assert (named["x-forwarded-for"], named["x-forwarded-proto"]) == ("127.0.0.1", "http")
        assert len(named["x-request-id"]) == 32
        assert "x-client-id" not in named


async def test_frames_keep_their_kind_and_fragments_and_nothing_comes_between_these() -> None:
    async with session() as (service, peer, _):
        reader = peer.reader
        assert peer._task is not None
        peer._task.cancel()  # this test looks at the frames itself
        await asyncio.gather(peer._task, return_exceptions=True)
        service.say(TEXT, b"one", fin=False)
        assert await reader.readexactly(5) == b"\x01\x03one"
        peer.send_raw(frame(PING, b"x") + frame(TEXT, b"ping"))
        await eventually(lambda: service.received == [(PING, True, b"x"), (PONG, True, b"")])
        service.say(PONG, b"x")
        service.say(CONTINUATION, b"two")
        assert await reader.readexactly(3) == b"\x8a\x01x"
        assert await reader.readexactly(5) == b"\x80\x03two"
        assert await reader.readexactly(6) == b"\x81\x04pong"
        peer.send_raw(frame(TEXT, b"pi", fin=False) + frame(CONTINUATION, b"ng"))
        await eventually(lambda: service.received[-2:] == [(TEXT, False, b"pi"), (CONTINUATION, True, b"ng")])


async def test_heartbeats_are_one_sign_of_life_in_ten_seconds() -> None:
    async with session() as (service, peer, _):
        for text in ("ping", "Ping", "pong", "Pong", "ping"):
            peer.send_text(text)
        assert [await peer.raw() for _ in range(3)] == [b"pong", b"Pong", b"pong"]
        peer.send_text("over")
        await eventually(lambda: service.received and service.received[-1] == (TEXT, True, b"over"))
        assert service.received == [(PONG, True, b""), (TEXT, True, b"over")]


async def test_close_frames_pass_with_code_and_reason_in_both_directions() -> None:
    async with session() as (service, peer, edge):
        service.say(CLOSE, (4501).to_bytes(2, "big") + "müde".encode())
        assert (await peer.ended(), peer.close_reason) == (4501, "müde")
        await eventually(service.gone.is_set)
        assert service.received == [(CLOSE, True, (4501).to_bytes(2, "big"))]
        await peer.cut()
        assert (await edge.logged(client="alice"))["close_code"] == 4501
    async with session() as (service, peer, edge):
        peer.send_raw(frame(CLOSE))
        await eventually(lambda: service.received == [(CLOSE, True, b"")])
        service.say(TEXT, b"late")
        service.say(CLOSE)
        assert await peer.raw() == b"late"
        assert await peer.ended() == 1005
        await peer.cut()
        assert (await edge.logged(client="alice"))["close_code"] == 1005


async def test_broken_frames_are_told_to_the_service_as_the_clients_end() -> None:
    async with session() as (service, peer, _):
        peer.send_raw(frame(TEXT, b"x", rsv=0x40) + b"more" * 100_000)
        await eventually(lambda: service.received and service.received[-1][0] == CLOSE)
        service.say(CLOSE, (1002).to_bytes(2, "big"))
        assert await peer.ended() == 1002
        assert service.received[-1][2][:2] == (1002).to_bytes(2, "big")


@pytest.mark.slow
async def test_a_service_that_does_not_answer_a_close_frame_is_not_waited_for() -> None:
    async with session() as (service, peer, _):
        peer.close(1000)
        assert await peer.ended(10) is None
        await eventually(service.gone.is_set)


async def test_a_client_that_reads_nothing_holds_the_service_up_and_is_cut_in_time() -> None:
    async with session(EDGE__SEND_TIMEOUT_S=1, HEARTBEAT__WRITE_TIMEOUT_S=1) as (service, peer, edge):
        peer.reading.clear()
        service.say(TEXT, b"x")

        async def fill() -> None:
            while not service.gone.is_set():
                service.say(TEXT, b"x" * 65536)
                await service.writer.drain()

        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(fill(), 10)
        await eventually(service.gone.is_set)
        await peer.cut()
        assert (await edge.logged(client="alice"))["close_code"] == 4008


async def test_a_reload_tells_the_client_that_it_moves_and_then_says_1001() -> None:
    async with session() as (service, peer, edge):
        service.say(TEXT, b'{"type":"welcome"}')
        await peer.event()
        await edge.reload()
        assert await peer.event() == {"type": "moving", "within": 0.5}
        told_s = time.monotonic()
        service.say(TEXT, b'{"type":"message"}')
        assert await peer.event() == {"type": "message"}, "it goes on until then"
        await eventually(lambda: peer.close_code == 1001)
        assert 0.3 < time.monotonic() - told_s < scaled(1)
        service.say(CLOSE, (1001).to_bytes(2, "big"))
        assert await peer.ended() == 1001


async def test_a_stop_says_1001_to_the_client_and_the_service() -> None:
    async with session() as (service, peer, edge):
        service.say(TEXT, b'{"type":"welcome"}')
        await peer.event()
        edge.process.signal(signal.SIGQUIT)
        await eventually(lambda: peer.close_code == 1001)
        await eventually(lambda: service.received == [(CLOSE, True, (1001).to_bytes(2, "big"))])
        service.say(CLOSE, (1001).to_bytes(2, "big"))
        assert await peer.ended() == 1001
        assert peer.pending() == 1, "there is nowhere to move to: nothing was said but the end"
        await peer.cut()
        assert await edge.process.ended() == 0


async def test_a_service_that_is_not_one_is_passed_over() -> None:
    service = Service()
    async with (
        server(says(b"220 mail\r\n\r\n")) as other,
        server(service.handle) as port,
        running(other, port) as edge,
    ):
        for _ in range(4):
            async with Peer(edge.port, client="a"):
                pass
    async with server(says(b"220 mail\r\n\r\n")) as other, running(other) as edge:
        with pytest.raises(Refusal) as info:
            await Peer(edge.port, client="a").connect()
        assert (info.value.status, info.value.code) == (502, "unavailable")


async def test_nodes_behind_a_name_are_found_again_when_they_change() -> None:
    taken = {"127.0.0.2": 0, "127.0.0.3": 0}
    names = Names()
    resolver = f"127.0.0.1:{await names.start()}"
    async with contextlib.AsyncExitStack() as stack:

        def node(host: str) -> Handler:
            async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                taken[host] += 1
                await Service().handle(reader, writer)

            return handle

        port = free_port()
        for host in taken:
            await stack.enter_async_context(server(node(host), host, port))
        edge = await stack.enter_async_context(running(EDGE__UPSTREAMS=[f"service:{port}"], EDGE__RESOLVER=resolver))

        async def connect() -> bool:
            await stack.enter_async_context(Peer(edge.port, client="a"))
            return taken["127.0.0.3"] > 0

        names.hosts["service"] = ["127.0.0.2"]
        assert not await connect()
        names.hosts["service"] = ["127.0.0.2", "127.0.0.3"]
        await eventually(connect)
        names.hosts.clear()
        await eventually(lambda: "cannot resolve service" in edge.process.stderr or connect())
        assert await connect()  # the last answer stays good
        names.stop()
