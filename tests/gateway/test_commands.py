"""What each command does, over real sockets. Most of it is in vectors/protocol.json."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.peer import Peer, frame
from tests.scenarios import VECTORS, Application, Play, settings
from tests.service_fixture import Down, running
from tests.support import eventually
from tidegate.app import App
from tidegate.core.errors import KeyReused
from tidegate.core.model import Position, Publication, decode_cursor

SETTINGS = settings(VECTORS["settings"])
OPEN = {"GROUPS": {"open*": {"publish": "anyone", "history": "anyone", "presence": "anyone"}}}


@pytest.mark.parametrize("scenario", VECTORS["scenarios"], ids=lambda scenario: scenario["name"])
async def test_the_service_answers_as_the_vectors_say(scenario: dict[str, Any]) -> None:
    async with running(**SETTINGS | settings(scenario.get("settings", {}))) as app:
        auth = app.config.auth
        if auth.mode == "jwt":  # the bystander would need a token
            await Play(app.public_port, Application(app), auth.key or "").steps(scenario["steps"])
            return
        async with undisturbed(app):
            await Play(app.public_port, Application(app)).steps(scenario["steps"])


@contextlib.asynccontextmanager
async def undisturbed(app: App) -> AsyncIterator[None]:
    """Somebody who gets what is pushed to it, and is still there afterwards."""
    async with Peer(app.public_port, client="bystander") as bystander:
        await bystander.event()
        await push(app, "client:bystander", b"1")
        yield
        await push(app, "client:bystander", b"2")
        wanted = [event async for event in own_messages(bystander, 2)]
        assert wanted == [1, 2]
        assert (await bystander.ask(type="ping", id="still"))["type"] == "pong"


async def own_messages(peer: Peer, count: int) -> AsyncIterator[Any]:
    for _ in range(count):
        event = await peer.until(lambda event: event.get("stream") == "client:bystander")
        yield event["data"]


async def push(app: App, stream: str, *data: bytes) -> None:
    results = await app.gateway.push([Publication(stream, one) for one in data])
    assert all(isinstance(result, Position) for result in results)


# Payloads


async def test_data_reaches_every_receiver_byte_for_byte() -> None:
    odd = [
        '{ "a" : 1e400, "a":-0 ,"b":[ ] }',
        "123456789012345678901234567890",
        "\n[\t1,\r\n2 ]  ".strip(),
        '"\\u0000\\/\\ud83d\\ude00 \u2028\u2029 \x7f ü 😀 \U0010ffff"',
        "[]",
        "{}",
        '""',
        "null",
        "-1.50E+0010",
        '"$1 %s {0} \\\\n"',
        '{"type":"left","stream":"group:open","reason":"removed"}',
    ]
    async with running(**OPEN) as app:
        async with (
            Peer(app.public_port, client="alice", groups="open") as alice,
            Peer(app.public_port, client="bob", groups="open") as bob,
        ):
            await alice.event()
            await bob.event()
            for n, data in enumerate(odd):
                alice.send_text(b'{"type":"publish","id":%d,"group":"open","data":  %b\n}' % (n, data.encode()))
            await push(app, "group:open", *(data.encode() for data in odd))
            raw = [await bob.raw() for _ in range(2 * len(odd))]
            assert [one.split(b'"data":', 1)[1][:-1].decode() for one in raw] == odd + odd
            history = await bob_history(bob)
            assert history.count(b'"data":%b}' % odd[0].encode()) == 2


async def bob_history(bob: Peer) -> bytes:
    bob.send(type="history", id="h", group="open")
    return await bob.raw()


async def test_data_may_have_64_kib_and_not_a_byte_more() -> None:
    async with running(**OPEN) as app, Peer(app.public_port, client="alice", groups="open") as alice:
        await alice.event()
        for command, answers in (
            (b'"type":"publish","group":"open"', ["reply", "too_large"]),
            (b'"type":"call","method":"none"', ["not_allowed", "too_large"]),
        ):
            for size in (65536, 65537):
                alice.send_text(b'{%b,"id":%d,"data":"%b"}' % (command, size, b"x" * (size - 2)))
            got = [await alice.until(lambda event: "id" in event) for _ in answers]
            assert [event.get("code", event["type"]) for event in got] == answers


@pytest.mark.parametrize(("size", "code"), [(131072, None), (131073, 1009)])
async def test_a_message_may_have_128_kib_and_not_a_byte_more(size: int, code: int | None) -> None:
    async with running() as app, undisturbed(app), Peer(app.public_port, client="alice") as alice:
        await alice.event()
        alice.send_text('{"type":"ping","id":1}'.ljust(size))
        if code is None:
            assert (await alice.event())["id"] == 1
        else:
            assert await alice.ended() == code


@pytest.mark.parametrize(
    ("opcode", "payload", "code"),
    [(2, b'{"type":"ping","id":1}', 1003), (1, b'{"type":"ping","id":"\xff"}', 1007), (1, b"\xed\xa0\x80", 1007)],
)
async def test_what_is_no_text_ends_the_connection(opcode: int, payload: bytes, code: int) -> None:
    async with running() as app, undisturbed(app), Peer(app.public_port, client="alice") as alice:
        await alice.event()
        alice.send_raw(frame(opcode, payload))
        assert await alice.ended() == code
        assert alice.pending() == 1  # the end of file: nothing was answered


# History and presence


async def test_history_is_read_page_by_page_and_no_page_passes_256_kib() -> None:
    """Some pages are full of data, others of what stands around it."""
    async with running(**OPEN) as app, Peer(app.public_port, client="alice") as alice:
        await alice.event()
        await push(app, "group:open", *[b'"%b"' % (b"x" * 50_000)] * 12, *[b'"%b"' % (b"x" * 220)] * 988)
        got: list[int] = []
        sizes: list[int] = []
        position: dict[str, Any] = {}
        more = True
        while more:
            alice.send(type="history", id=1, group="open", limit=1000, **position)
            raw = await alice.raw()
            sizes.append(len(raw))
            answer = json.loads(raw)
            got += [message["offset"] for message in answer["messages"]]
            position = {"epoch": answer["epoch"], "offset": got[-1]}
            more = answer["more"]
        assert got == list(range(1, 1001))
        assert max(sizes) <= 262144
        assert len(sizes) == 4


async def test_presence_is_cut_where_it_is_too_long() -> None:
    small = {"LIMITS__ANSWER_BYTES": 16385, "LIMITS__DATA_BYTES": 1}
    async with running(**OPEN, **small) as app, contextlib.AsyncExitStack() as stack:
        for n in range(125):
            peer = await stack.enter_async_context(Peer(app.public_port, client=f"{n:0128}", groups="open"))
        await peer.event()
        peer.send(type="presence", id=1, group="open")
        raw = await peer.raw()
        assert len(raw) <= 16385
        answer = json.loads(raw)
        assert (answer["connections"], answer["more"]) == (125, True)
        assert answer["clients"] == [f"{n:0128}" for n in range(len(answer["clients"]))]
        assert len(answer["clients"]) > 110


# Keys


async def test_a_client_cannot_use_up_the_keys_of_the_application() -> None:
    async with running(**OPEN) as app, Peer(app.public_port, client="alice") as alice:
        await alice.event()
        first = await alice.ask(type="publish", id=1, group="open", data=1, key="7")
        results = await app.gateway.push([Publication("group:open", b"2", key) for key in ("alice:7", "7")])
        assert [getattr(result, "offset", result) for result in results] == [2, 3]
        again = await alice.ask(type="publish", id=1, group="open", data=1, key="7")
        assert (first["offset"], again["offset"]) == (1, 1)
        (reused,) = await app.gateway.push([Publication("group:open", b"3", "7")])
        assert isinstance(reused, KeyReused)


# Ping


async def test_the_cursor_is_null_where_it_would_be_too_long() -> None:
    names = [f"{n:03}" + "g" * 60 for n in range(45)]
    async with running() as app, Peer(app.public_port, client="alice", groups=",".join(names)) as alice:
        await alice.event()
        assert (await alice.ask(type="ping", id=1))["cursor"] is None
        for n, name in enumerate(names[:15]):
            await alice.ask(type="leave", id=n, group=name)
        cursor = (await alice.ask(type="ping", id=2))["cursor"]
        assert decode_cursor(cursor).keys() == {"client:alice", "all", *(f"group:{name}" for name in names[15:])}


async def test_commands_are_counted_by_type() -> None:
    async with running() as app, Peer(app.public_port, client="alice") as alice:
        await alice.event()
        commands: list[dict[str, Any]] = [{"type": "ping"}, {"type": "ping"}, {"type": "call", "method": "none"}]
        for n, command in enumerate([*commands, {"type": "history", "group": "news"}]):
            await alice.ask(id=n, **command)
        text = app.metrics.text().decode()
        for type, count in (("ping", 2), ("call", 1), ("history", 1), ("join", 0)):
            assert f'tidegate_commands_total{{type="{type}"}} {count}.0' in text


# The broker fails


@pytest.mark.parametrize(
    ("method", "command"),
    [
        ("subscribe", {"type": "join", "group": "news"}),
        ("history", {"type": "join", "group": "news", "epoch": "e", "offset": 1}),
        ("history", {"type": "history", "group": "open"}),
        ("present", {"type": "presence", "group": "open"}),
    ],
)
async def test_a_command_that_the_broker_fails_is_refused_and_may_be_repeated(
    method: str, command: dict[str, Any]
) -> None:
    async with running(**OPEN) as app, Peer(app.public_port, client="alice") as alice:
        await alice.event()
        down = Down(app, method)
        assert (await alice.ask(id=1, **command))["code"] == "broker_down"
        down.up()
        assert (await alice.ask(id=2, **command))["type"] == "reply"
        await push(app, "client:alice", b"1")
        assert (await alice.until(lambda event: event["type"] == "message"))["data"] == 1


async def test_who_cannot_join_what_the_server_says_comes_back_later() -> None:
    """Not our fault, and not to be forgotten: at the next connect the membership is there."""
    async with running() as app, undisturbed(app), Peer(app.public_port, client="alice") as alice:
        await alice.event()
        down = Down(app, "subscribe")
        await app.gateway.add_member("news", "alice")
        assert await alice.ended() == 1013
        down.up()
        async with Peer(app.public_port, client="alice") as back:
            assert "group:news" in (await back.event())["streams"]


# Calls


class Slow:
    """An application that answers each request when it is told to, with the request's body."""

    def __init__(self) -> None:
        self.waiting: list[tuple[bytes, asyncio.StreamWriter]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.waiting.append((await reader.readexactly(length), writer))
        writer.close()

    def answer(self, body: bytes) -> None:
        at = next(n for n, (waiting, _) in enumerate(self.waiting) if waiting == body)
        _, writer = self.waiting.pop(at)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


@contextlib.asynccontextmanager
async def slow_application() -> AsyncIterator[tuple[Slow, str]]:
    slow = Slow()
    server = await asyncio.start_server(slow.serve, "127.0.0.1", 0)
    try:
        yield slow, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for _, writer in slow.waiting:
            writer.close()


async def test_answers_to_calls_come_when_they_come() -> None:
    async with slow_application() as (slow, url), running(CALLS__URL=url) as app:
        async with Peer(app.public_port, client="alice") as alice:
            await alice.event()
            alice.send(type="call", id="a", method="echo", data=[1])
            alice.send(type="call", id="b", method="echo", data=[2])
            alice.send(type="call", id="b", method="echo", data=[3])
            assert (await alice.ask(type="ping", id=1))["type"] == "pong"
            await eventually(lambda: len(slow.waiting) == 3)
            for body, id in ((b"[3]", "b"), (b"[1]", "a"), (b"[2]", "b")):
                slow.answer(body)
                assert await alice.event() == {"type": "reply", "id": id, "status": 200, "data": json.loads(body)}


async def test_so_many_calls_of_a_connection_may_be_under_way_and_no_more() -> None:
    async with slow_application() as (slow, url), running(CALLS__URL=url, LIMITS__CALLS_IN_FLIGHT=3) as app:
        async with Peer(app.public_port, client="alice") as alice, Peer(app.public_port, client="alice") as tablet:
            await alice.event()
            await tablet.event()
            for n in range(1, 5):
                alice.send(type="call", id=n, method="echo", data=n)
            refused = await alice.event()
            assert (refused["id"], refused["code"]) == (4, "too_many_calls")
            tablet.send(type="call", id=9, method="echo", data=9)
            await eventually(lambda: len(slow.waiting) == 4)
            slow.answer(b"2")
            assert (await alice.event())["id"] == 2
            alice.send(type="call", id=5, method="echo", data=5)
            await eventually(lambda: len(slow.waiting) == 4)
            slow.answer(b"5")
            assert (await alice.event())["id"] == 5


async def test_a_call_whose_client_has_gone_is_answered_to_nobody() -> None:
    async with slow_application() as (slow, url), running(CALLS__URL=url) as app, undisturbed(app):
        async with Peer(app.public_port, client="alice") as alice:
            await alice.event()
            alice.send(type="call", id=1, method="echo", data=1)
            await eventually(lambda: slow.waiting)
        await eventually(lambda: not app.hub.of_client("alice"))
        slow.answer(b"1")
