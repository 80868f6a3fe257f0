"""``tidegate trace``: messages that did not arrive, for a reason that the test has planted; it must name it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.brokers.nodes import shorter
from tests.brokers.server import RedisServer
from tests.peer import BINARY, CLOSE, TEXT, Peer, Refusal, frame
from tests.service_fixture import running
from tests.support import Logs, eventually
from tests.tokens import SECRET
from tests.trunk.worker import linked
from tidegate.app import App
from tidegate.auth import tokens
from tidegate.brokers.redis import broker as broker_redis
from tidegate.cli.main import main
from tidegate.config.load import load
from tidegate.core.errors import CloseCode, NotAllowed
from tidegate.core.model import Position, Publication, encode_cursor
from tidegate.core.outbox import Outbox
from tidegate.core.session import Session
from tidegate.http import trace as http_trace
from tidegate.http.handler import Response
from tidegate.trunk.codec import Kind
from tidegate.websocket.wire import Wire

KIB = 1024


class Operator:
    """Runs the command against a node, and reads what it prints."""

    def __init__(self, capsys: pytest.CaptureFixture[str], app: App) -> None:
        self._capsys = capsys
        self._url = f"http://localhost:{app.internal_port}"

    async def runs(self, *args: str) -> str:
        code = await asyncio.to_thread(main, ["trace", *args, "--url", self._url])
        out, err = self._capsys.readouterr()
        assert (code, err) == (0, "")
        return out

    async def told(self, *args: str) -> list[str]:
        """The verdicts: what an operator reads first."""
        out = await self.runs(*args)
        return [line.partition(": ")[2] for line in out.splitlines() if line.startswith("  => ")]

    async def asks(self, **query: object) -> dict[str, Any]:
        """The API's answer."""
        async with aiohttp.ClientSession() as http:
            params = {name: str(value) for name, value in query.items()}
            async with http.get(f"{self._url}/api/trace", params=params) as answer:
                assert answer.status == 200, await answer.text()
                found: dict[str, Any] = await answer.json()
                return found


async def push(app: App, stream: str, data: bytes = b"1") -> Position:
    (position,) = await app.gateway.push([Publication(stream, data)])
    assert isinstance(position, Position)
    return position


async def later() -> None:
    """Returns when the clock, which counts milliseconds here, has moved on."""
    now_ms = int(time.time() * 1000)
    await eventually(lambda: int(time.time() * 1000) > now_ms)


async def arrives(peer: Peer) -> None:
    await peer.until(lambda event: event["type"] == "message")


async def test_one_that_arrived_is_said_to_whom_it_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as app, Peer(app.public_port, client="alice", groups="news") as alice:
        operator = Operator(capsys, app)
        await push(app, "group:news")
        await arrives(alice)
        out = await operator.runs("group:news", "1")
        assert "  => delivered: group:news " in out
        assert "went to 1 connection, 0 of which confirmed it" in out
        assert f"alice {app.node}-1 on {app.node}: written" in out
        assert f"{app.node} - heard, and handed to 1 connection at once" in out
        (told,) = await operator.told("group:news", "1", "--client", "alice")
        assert "was written to the socket of alice" in told
        assert "without cursor=last none does" in told
        found = await operator.asks(stream="group:news")
        assert found["journal"]["state"] == "kept"
        assert found["counts"] == {"written": 1}
        assert [step["kind"] for step in found["steps"]] == ["journalled", "heard"]


async def test_a_pong_or_a_close_proves_that_it_arrived(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as app:
        operator = Operator(capsys, app)
        async with Peer(app.public_port, client="alice", cursor="last") as alice:
            await push(app, "client:alice")
            await arrives(alice)
            (told,) = await operator.told("client:alice", "1")
            assert "was written to the socket of alice" in told
            (session,) = app.hub.of_client("alice")
            app._ping(session)
            assert session.confirmations is not None
            confirmed = session.confirmations.confirmed
            await eventually(lambda: confirmed["client:alice"].offset == 1)
            (told,) = await operator.told("client:alice", "1")
            assert told.endswith("its peer has confirmed it")
            position = await push(app, "client:alice")
            await arrives(alice)
            app.gateway.close(session, CloseCode.DISCONNECTED)
            assert await alice.ended() == CloseCode.DISCONNECTED
        await eventually(lambda: not app.metrics.open_connections)
        (told,) = await operator.told("client:alice", f"{position.epoch}:2")
        assert told.endswith("its peer has confirmed it")
        async with Peer(app.public_port, client="bob") as bob:  # without cursor=last
            await push(app, "client:bob")
            await arrives(bob)
            (session,) = app.hub.of_client("bob")
            app.gateway.close(session, CloseCode.DISCONNECTED)
            await bob.ended()
        await eventually(lambda: not app.metrics.open_connections)
        (told,) = await operator.told("client:bob", "1")
        assert told.endswith("its peer has confirmed it")


async def test_a_client_that_never_joined(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as app, Peer(app.public_port, client="alice") as alice:
        await alice.event()
        operator = Operator(capsys, app)
        await push(app, "group:news")
        told = await operator.told("group:news", "1", "--client", "alice")
        assert told == [f"alice was never in group:news: it was connected ({app.node}-1) and did not join it"]
        assert (await operator.told("group:news", "1"))[0].startswith("nobody followed group:news when group:news ")
        told = await operator.told("group:news", "1", "--client", "bob")
        assert told == ["bob was not connected to any node that answers, and is not now"]
        assert (await operator.told("group:news", "2"))[0].startswith("group:news has no message 2: its newest is 1.")


async def test_a_join_that_was_refused(capsys: pytest.CaptureFixture[str]) -> None:
    async with running(GROUPS={"closed": {"join": "nobody"}}) as app:
        operator = Operator(capsys, app)
        async with (
            Peer(app.public_port, client="alice") as alice,
            Peer(app.public_port, client="bob", groups="closed") as bob,
        ):
            assert (await alice.ask(type="join", id=1, group="closed"))["code"] == "not_allowed"
            await push(app, "group:closed")
            (told,) = await operator.told("group:closed", "1", "--client", "alice")
            assert told.startswith("alice is not in group:closed: its join was refused at ")
            assert "(not_allowed: not allowed to join closed)" in told
            (told,) = await operator.told("group:closed", "1", "--client", "bob")
            assert told.startswith("bob is not in group:closed: its join was refused at ")
            refused = await operator.told("group:closed")
            for client in ("alice", "bob"):
                assert any(f"{client} is not in group:closed" in words for words in refused), refused
            assert "bob is not in group:closed" in (await operator.told("--client", "bob"))[0]
            await app.gateway.add_member("closed", "bob")
            await bob.until(lambda event: event["type"] == "joined")
            await push(app, "group:closed")
            await arrives(bob)
            assert "alice is not in group:closed" in (found := await operator.told("group:closed"))[0]
            assert "went to 1 connection" in found[1]


async def test_a_slow_consumer_whose_close_threw_it_away(
    capsys: pytest.CaptureFixture[str], expected_logs: Logs
) -> None:
    expected_logs.allow("connection")
    async with running(LIMITS__OUTBOX_BYTES=327_680) as app:
        operator = Operator(capsys, app)
        async with Peer(app.public_port, client="alice", groups="news", rcvbuf=16 * KIB) as alice:
            await alice.event()
            alice.reading.clear()
            pushed = 0
            while app.hub.of_client("alice"):
                await push(app, "group:news", b'"' + b"x" * 8 * KIB + b'"')
                pushed += 1
                await asyncio.sleep(0)
            (told, *_) = await operator.told("group:news", str(pushed), "--client", "alice")
            assert "was closed as a slow consumer (4008) at " in told
            assert "bytes that waited for it were thrown away, this message among them" in told
            (told, *_) = await operator.told("group:news", "1", "--client", "alice")
            assert "was written to the socket of alice" in told, "what the kernel took is not thrown away by us"
        assert "closed as a slow consumer (4008)" in (await operator.told("--client", "alice"))[0]


async def fill(app: App, session: Session, waiting: int, size: int) -> int:
    """Pushes to the group, in pieces of ``size`` bytes, until so many wait; the newest one's offset."""
    newest = 0
    while session.wire.size < waiting:
        newest = (await push(app, "group:news", b'"' + b"x" * size + b'"')).offset
        await asyncio.sleep(0)
    return newest


async def test_a_message_that_waits_for_a_client_that_does_not_read(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as app:
        operator = Operator(capsys, app)
        async with Peer(app.public_port, client="alice", groups="news", rcvbuf=16 * KIB) as alice:
            await alice.event()
            alice.reading.clear()
            (session,) = app.hub.of_client("alice")
            newest = await fill(app, session, 100 * KIB, 8 * KIB)
            (told,) = await operator.told("group:news", str(newest), "--client", "alice")
            assert "waits for alice" in told
            assert "bytes that its peer has not taken" in told
            assert (await operator.asks(stream="group:news", offset=1))["counts"] == {"written": 1}
            assert isinstance(session.wire, Outbox)
            in_part = newest + 1 - len(session.wire.frames)  # the first of those that wait
            session.send(b'{"type":"pong"}')
            assert (await operator.asks(stream="group:news", offset=in_part - 1))["counts"] == {"written": 1}
            assert (await operator.asks(stream="group:news", offset=in_part))["counts"] == {"unsent": 1}
            await alice.cut()
            await eventually(lambda: not app.hub.of_client("alice"))
            for offset in (newest, in_part):
                (told,) = await operator.told("group:news", str(offset), "--client", "alice")
                assert "that was closed (1006) at " in told
                assert "this message among them" in told


async def test_what_was_thrown_away_for_all_that_waited_is_not_proved_by_an_answered_close(
    capsys: pytest.CaptureFixture[str], expected_logs: Logs
) -> None:
    expected_logs.allow("connection")
    async with running() as app:
        operator = Operator(capsys, app)
        async with Peer(app.public_port, client="alice", groups="news", rcvbuf=16 * KIB) as alice:
            await alice.event()
            alice.reading.clear()
            (session,) = app.hub.of_client("alice")
            newest = await fill(app, session, 100 * KIB, 8 * KIB)
            assert isinstance(session.wire, Wire)
            session.wire.close(CloseCode.SLOW_CONSUMER)  # as where all unsent is too much (websocket/unsent.py)
            alice.reading.set()
            assert await alice.ended() == CloseCode.SLOW_CONSUMER
        await eventually(lambda: not app.metrics.open_connections)
        (told, *_) = await operator.told("group:news", str(newest), "--client", "alice")
        assert "that was closed as a slow consumer (4008) at " in told
        assert "this message among them" in told
        assert "alice was closed as a slow consumer (4008) 1 time" in (await operator.told("--client", "alice"))[0]


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [
        (frame(TEXT, b"{}", mask=None), 1002, "we close with 1002"),
        (frame(TEXT, b"\xff"), 1007, "we close with 1007"),
        (frame(BINARY, b"x"), 1003, "we close with 1003"),
        (frame(TEXT, b"x" * 200_000), 1009, "we close with 1009"),
        (frame(CLOSE, b"\x03\xe8"), 1000, "the peer ends it"),
    ],
)
async def test_who_ended_a_connection_and_why_is_said(
    capsys: pytest.CaptureFixture[str], sent: bytes, code: int, said: str
) -> None:
    async with running() as app:
        operator = Operator(capsys, app)
        async with Peer(app.public_port, client="alice") as alice:
            await alice.event()
            alice.send_raw(sent)
            assert await alice.ended() == code
            await eventually(lambda: not app.hub.of_client("alice"))
            ended = [step for step in (await operator.asks(client="alice"))["steps"] if step["kind"] == "ended"]
            assert [step.get("code") for step in ended] == [None if said.startswith("the peer") else code]
            assert f"nothing more is queued: {said}" in await operator.runs("--client", "alice")


async def test_a_client_that_took_nothing_for_too_long_is_said_to_be_slow(
    capsys: pytest.CaptureFixture[str], expected_logs: Logs
) -> None:
    expected_logs.allow("connection")
    async with running(HEARTBEAT__WRITE_TIMEOUT_S=0.2) as app:
        operator = Operator(capsys, app)
        async with Peer(app.public_port, client="alice", groups="news", rcvbuf=16 * KIB) as alice:
            await alice.event()
            alice.reading.clear()
            (session,) = app.hub.of_client("alice")
            await fill(app, session, 100 * KIB, 8 * KIB)
            await eventually(lambda: not app.metrics.open_connections)
        assert "alice was closed as a slow consumer (4008) 1 time" in (await operator.told("--client", "alice"))[0]


async def test_over_a_trunk_the_end_has_its_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = str(tmp_path / "t.sock")
    async with running(TRUNK__SOCKET=path) as app, linked(path) as worker:
        client, _ = await worker.welcome("client=alice")
        worker.send(Kind.TEXT, client.number, b"\xff")
        await eventually(lambda: not app.hub.of_client("alice"))
        assert "nothing more is queued: we close with 1007" in await Operator(capsys, app).runs("--client", "alice")


async def test_a_message_behind_many_of_another_stream_is_not_said_to_be_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with running() as app:
        operator = Operator(capsys, app)
        async with Peer(app.public_port, client="alice", groups="news", rcvbuf=16 * KIB) as alice:
            await alice.event()
            alice.reading.clear()
            (session,) = app.hub.of_client("alice")
            await fill(app, session, 300 * KIB, KIB)
            await push(app, "client:alice")
            assert (await operator.asks(stream="client:alice", offset=1))["counts"] == {"unsent": 1}
            await alice.cut()
            await eventually(lambda: not app.hub.of_client("alice"))
            (told,) = await operator.told("client:alice", "1")
            assert "this message among them" in told


async def test_a_journal_that_was_trimmed_before_the_client_was_back(capsys: pytest.CaptureFixture[str]) -> None:
    async with running(HISTORY__MESSAGES=5) as app:
        operator = Operator(capsys, app)
        async with Peer(app.public_port, client="alice") as alice:
            await alice.event()
            await push(app, "client:alice")
            await arrives(alice)
        await eventually(lambda: not app.hub.of_client("alice"))
        for _ in range(19):
            newest = await push(app, "client:alice")
        await later()
        cursor = encode_cursor({"client:alice": Position(newest.epoch, 1)})
        assert cursor is not None
        async with Peer(app.public_port, client="alice", cursor=cursor) as alice:
            await alice.until(lambda event: event.get("offset") == 20)
            told = await operator.told("client:alice", "7")
            assert "is no longer in the journal, which begins at 16" in told[0]
            assert "alice was told a gap (expired) in place of client:alice" in told[1]
            (told_of_newest, *_) = await operator.told("client:alice", "18")
            assert "(from the journal, when it was back)" in told_of_newest
            out = await operator.runs("--client", "alice")
            assert "told a gap in client:alice (expired): 2 to 15" in out


async def test_what_a_client_misses_that_is_away_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as app:
        operator = Operator(capsys, app)
        async with Peer(app.public_port, client="alice", groups="news") as alice:
            await push(app, "client:alice")
            await arrives(alice)
            told = await operator.told("--client", "alice")
            assert told == [f"alice is connected ({app.node}-1)"]
        await eventually(lambda: not app.metrics.open_connections)
        for stream in ("client:alice", "client:alice", "group:news"):
            await push(app, stream)
        told = await operator.told("--client", "alice")
        assert told[0].startswith(f"alice has not got 2 to 3 of client:alice, which connection {app.node}-1 had not ")
        assert told[1].startswith("alice has not got 1 of group:news, which connection")
        assert told[2].startswith(f"alice is not connected; {app.node}-1 ended at ")


async def test_a_token_that_was_refused(capsys: pytest.CaptureFixture[str]) -> None:
    auth = {"AUTH__MODE": "jwt", "AUTH__KEY": SECRET}
    settings = load(None, {f"TIDEGATE_{name}": value for name, value in auth.items()}).auth
    old = tokens.sign(settings, {"sub": "alice", "exp": int(time.time()) - 3600})
    async with running(**auth) as app:
        operator = Operator(capsys, app)
        with pytest.raises(Refusal):
            await Peer(app.public_port, token=old).connect()
        with pytest.raises(Refusal):
            await Peer(app.public_port, token="a.b.c").connect()
        await push(app, "client:alice")
        told = await operator.told("client:alice", "1")
        assert told[0].startswith("1 handshake that named alice was refused, the newest at ")
        assert told[0].endswith(": 401 unauthorized, the token has expired")
        assert (await operator.told("--client", "alice"))[0] == told[0]
        refused = (await operator.runs("--refused")).splitlines()
        assert len(refused) == 2
        assert "401 unauthorized client=- address=127.0.0.1 the token is not a JWT" in refused[0]
        assert old not in "".join(refused)


async def test_what_a_client_did_does_not_go_under_in_handshakes_that_name_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with running() as app:
        operator = Operator(capsys, app)
        async with Peer(app.public_port, client="alice") as alice:
            await alice.event()
        await eventually(lambda: not app.metrics.open_connections)
        await later()
        for _ in range(500):
            app.trace.refused(NotAllowed("a token is required"), "alice", "10.0.0.7")
        out = await operator.runs("--client", "alice")
        assert "=> handshake_refused: 25 handshakes or more that named alice were refused" in out
        assert "connected: client:alice after 0" in out
        assert "=> not_connected: alice is not connected; " in out, "and how it ended"


async def test_who_left_or_came_later(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as app, Peer(app.public_port, client="alice", groups="news") as alice:
        operator = Operator(capsys, app)
        await push(app, "group:news")
        await arrives(alice)
        await alice.ask(type="leave", id=1, group="news")
        await push(app, "group:news")
        await alice.ask(type="join", id=2, group="news")
        await push(app, "group:news")
        await arrives(alice)
        assert "was written to the socket of alice" in (await operator.told("group:news", "1", "--client", "alice"))[0]
        (told,) = await operator.told("group:news", "2", "--client", "alice")
        assert told.startswith("alice had left group:news on connection")
        assert "was written to the socket of alice" in (await operator.told("group:news", "3", "--client", "alice"))[0]
        async with Peer(app.public_port, client="bob", groups="news") as bob:
            await bob.event()
            (told,) = await operator.told("group:news", "3", "--client", "bob")
            assert told.startswith("bob followed group:news only later")


async def test_who_joined_later_is_not_said_to_have_it_once_the_join_is_forgotten(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with running(TRACE__STEPS=4) as app, Peer(app.public_port, client="alice") as alice:
        operator = Operator(capsys, app)
        await alice.event()
        await push(app, "group:news")
        await push(app, "client:alice")
        await arrives(alice)
        await later()
        await alice.ask(type="join", id=1, group="news")
        (told,) = await operator.told("group:news", "1", "--client", "alice")
        assert "followed group:news only later" in told
        for group in "abcd":
            await alice.ask(type="join", id=1, group=group)
        (told,) = await operator.told("group:news", "1", "--client", "alice")
        assert "is not known any more (nothing is remembered of before " in told
        (told,) = await operator.told("client:alice", "1")
        assert "was written to the socket of alice" in told, "its own stream it has from the beginning"


async def test_over_a_trunk_it_is_said_which_worker_it_was_handed_to(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = str(tmp_path / "t.sock")
    async with running(TRUNK__SOCKET=path) as app, linked(path) as worker:
        operator = Operator(capsys, app)
        clients = [(await worker.welcome(f"client=c{number}&groups=news"))[0] for number in range(3)]
        await push(app, "group:news")
        for client in clients:
            await client.gets("message")
        (link,) = app._trunks.all_links()
        found = await operator.asks(stream="group:news", offset=1)
        assert (found["counts"], found["workers"]) == ({"handed": 3}, {link.worker: 3})
        assert f"handed to worker {link.worker} for 3 connections" in await operator.runs("group:news", "1")
        (told,) = await operator.told("group:news", "1", "--client", "c1")
        assert f"was handed to the edge's worker {link.worker} for c1" in told


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_redis, "Timing", shorter)


async def dies(app: App) -> None:
    """As kill -9 would end it, as far as the others see."""
    broker: Any = app.broker
    await broker._tasks.cancel_all()
    for connection in (broker.membership._pipeline, broker.wakeups._connection):
        connection.end("dead")
    broker.membership.up.clear()


@pytest.mark.usefixtures("fast")
async def test_two_nodes_answer_as_one_until_one_dies(capsys: pytest.CaptureFixture[str], expected_logs: Logs) -> None:
    expected_logs.allow("broker.lost")
    with RedisServer() as redis:
        settings: dict[str, Any] = {"BROKER__KIND": "redis", "BROKER__URL": redis.url}
        async with running(**settings) as one, running(**settings, SERVER__NODE="n2") as two:
            operator = Operator(capsys, one)

            async def both() -> bool:
                return len(await one.broker.nodes()) == 2

            await eventually(both)
            async with (
                Peer(one.public_port, client="bob", groups="news") as bob,
                Peer(two.public_port, client="alice", groups="news") as alice,
            ):
                span = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
                await one.gateway.push([Publication("group:news", b"1", traceparent=span)])
                await arrives(alice)
                await arrives(bob)
                assert f"1 bytes, traceparent {span}" in await operator.runs("group:news", "1")
                found = await operator.asks(stream="group:news", offset=1)
                assert found["counts"] == {"written": 2}
                assert {node["node"]: node["followers"] for node in found["nodes"]} == {one.node: 1, two.node: 1}
                assert "heard, and handed to 1 connection at once" in await operator.runs("group:news", "1")
                out = await operator.runs("--client", "alice")
                assert f"{two.node}-1 on {two.node} since" in out
                assert f"answered by {one.node}, {two.node}" in out
                await dies(two)

                async def noticed() -> bool:
                    told = await operator.told("group:news", "1", "--client", "alice")
                    return any(words.startswith(f"node {two.node} died") for words in told)

                await eventually(noticed, 15)
                await push(one, "group:news")
                told = await operator.told("group:news", "2", "--client", "alice")
                assert told[0].startswith(f"node {two.node} died (noticed at ")
                assert any(f"alice was connected to {two.node}" in words for words in told), told
            await two.tasks.cancel_all()


async def test_what_redis_has_lost_is_not_said_to_have_never_been_journalled(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever asks by the offset alone asks for the present epoch, which the message never had."""
    with RedisServer() as redis:
        async with running(BROKER__KIND="redis", BROKER__URL=redis.url) as app:
            operator = Operator(capsys, app)
            async with Peer(app.public_port, client="alice", groups="news") as alice:
                lost = await push(app, "group:news")
                await arrives(alice)
                redis.command("FLUSHALL")
                await alice.until(lambda event: event["type"] == "gap" and event["reason"] == "reset")
                for offset in ((), ("1",)):
                    (words,) = await operator.told("group:news", *offset)
                    assert words.startswith("group:news was started anew: its epoch is another one than ")
                    assert f"group:news {lost.epoch}:1 is gone" in words
                assert "heard, and handed to 1 connection at once" in await operator.runs("group:news", "1")
                (words,) = await operator.told("group:news", "2")
                assert words.startswith("group:news has no message 2: its newest is ")
                await push(app, "group:news")  # another one with that offset
                await arrives(alice)
                *of_it, last = await operator.told("group:news", "1")
                assert len(of_it) == 1
                assert f"before that {lost.epoch}:1 was another message" in last
                assert len(await operator.told("group:news")) == 1, "the newest is meant"


async def test_what_is_off_says_so_and_costs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    async with running(TRACE__ENABLED="false") as app, Peer(app.public_port, client="alice", groups="news") as alice:
        operator = Operator(capsys, app)
        await push(app, "group:news")
        await arrives(alice)
        found = await operator.asks(stream="group:news", client="alice")
        assert [step["kind"] for step in found["steps"]] == ["journalled"]
        assert not app.trace.fanned
        assert not list(app.trace.steps())
        assert "trace.enabled" in (await operator.told("group:news", "1", "--client", "alice"))[0]


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([], "of what?"),
        (["news"], "'news' is no stream"),
        (["group:news", "x"], "'x' is no position"),
        (["--client", "a b"], "--client"),
        (["group:news", "--limit", "0"], "--limit"),
        (["group:news", "--refused"], "--refused"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(
    args: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", *args]) == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    "answer",
    [
        {"verdicts": [{}]},
        {"steps": [{"time_ms": 10**20}]},
        {"connections": [{"client": 1}]},
        {"stream": "all", "journal": {"state": "kept"}},
    ],
)
async def test_an_answer_of_another_version_is_said_in_words(
    answer: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as app:
        url = f"http://localhost:{app.internal_port}"
        monkeypatch.setattr(http_trace, "_answer", lambda found: Response(200, json.dumps(answer).encode()))
        assert await asyncio.to_thread(main, ["trace", "--client", "alice", "--url", url]) == 1
    assert "does not answer as a node of this version does" in capsys.readouterr().err


async def test_json_is_the_answer_of_the_api(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as app:
        await push(app, "all")
        found = json.loads(await Operator(capsys, app).runs("all", "1", "--json"))
        assert (found["stream"], found["offset"], found["journal"]["state"]) == ("all", 1, "kept")


async def test_what_a_stranger_made_up_gives_no_orders_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as app, Peer(app.public_port, client="alice") as alice:
        operator = Operator(capsys, app)
        app.trace.join_refused(app.hub.of_client("alice")[0], "news", NotAllowed("no \x1b[31m\u202e"))
        await alice.event()
        out = await operator.runs("--client", "alice")
        assert r"no \u001b[31m\u202e" in out
