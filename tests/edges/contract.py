"""What a client may rely on, whatever stands between it and the service. ``test_edge_<variant>.py`` has a class of its
own that inherits ``Contract`` and names the variant; ``direct`` is the service alone.

Here: sessions, refusals, commands, events, recovery. ``edge_frames`` has frames and calls, ``edge_failures`` has what
goes wrong.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.edges.edge import Stand, ask, stand
from tests.edges.failures import Failures
from tests.edges.frames import Calls, Frames
from tests.http.node import JSON, Link, head
from tests.peer import PING, Refusal, frame
from tests.support import eventually
from tests.tokens import SECRET, make_token

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
PATH = "/ws-notifications/"
OTHER_PATHS = ["/", "/api/all/push", "/api/openapi.json", "/metrics", "/healthz", "/readyz", PATH + "x", PATH[:-1]]

_names = itertools.count(1)


class Base:
    """A stand for the whole class, and silence in nginx's log unless a test says what it provokes."""

    variant: str

    @pytest.fixture(scope="class")
    @classmethod
    def s(cls) -> Iterator[Stand]:
        it = Stand(
            cls.variant,
            rest=True,
            CALLS__ALLOW=["echo", "orders.create", "slow", "fail", "missing"],
            CALLS__TIMEOUT_S=2,
            CALLS__CONNECTIONS=512,
            GROUPS={"chat*": {"publish": "members", "presence": "members"}},
            LIMITS__CALLS_IN_FLIGHT=256,
        )
        try:
            it.start()
            yield it
        finally:
            it.stop()

    @pytest.fixture(scope="class")
    @classmethod
    def quick(cls) -> Iterator[Stand]:
        """Another one, whose service asks for a sign of life all the time."""
        it = Stand(
            cls.variant,
            HEARTBEAT__WEBSOCKET_PING_INTERVAL=0.1,
            HEARTBEAT__WEBSOCKET_PING_TIMEOUT=2,
        )
        try:
            it.start()
            yield it
        finally:
            it.stop()

    @pytest.fixture(autouse=True)
    def quiet(self, s: Stand) -> Iterator[None]:
        yield
        assert s.complaints() == []

    @pytest.fixture
    def name(self) -> str:
        """A client or group that no other test has."""
        return f"chat{next(_names)}"


class Sessions(Base):
    async def test_a_session_begins_with_welcome_and_says_who_it_is(self, s: Stand, name: str) -> None:
        async with s.peer(name, headers={"Sec-WebSocket-Protocol": "other, tidegate.v1"}) as peer:
            welcome = await peer.event()
            assert welcome["type"] == "welcome"
            assert list(welcome)[:4] == ["type", "client", "connection", "node"]
            assert peer.answer_headers["tidegate-client"] == welcome["client"] == name
            assert peer.answer_headers["tidegate-connection"] == welcome["connection"]
            assert peer.answer_headers["sec-websocket-protocol"] == "tidegate.v1"
            assert "sec-websocket-extensions" not in peer.answer_headers

    async def test_compression_is_not_agreed_on(self, s: Stand, name: str) -> None:
        async with s.peer(name, headers={"Sec-WebSocket-Extensions": "permessage-deflate"}) as peer:
            await peer.event()
            assert "sec-websocket-extensions" not in peer.answer_headers

    @pytest.mark.parametrize(
        ("changes", "target", "status", "code"),
        [
            ({"Upgrade": None, "Connection": None}, "?client=a", 426, "upgrade_required"),
            ({"Sec-WebSocket-Version": "12"}, "?client=a", 426, "upgrade_required"),
            ({"Sec-WebSocket-Key": "short"}, "?client=a", 400, "bad_request"),
            ({}, "", 400, "bad_request"),
            ({}, "?client=a&client=b", 400, "bad_request"),
            ({}, "?client=%2e%2e", 400, "bad_request"),
            ({}, "?client=a&groups=a,b%20c", 400, "bad_request"),
            ({}, "?client=a&cursor=%7B%7D", 400, "bad_request"),
            ({"Host": "other.example"}, "?client=a", 403, "host_not_allowed"),
            ({"Origin": "https://other.example"}, "?client=a", 403, "origin_not_allowed"),
            ({"Origin": "null"}, "?client=a", 403, "origin_not_allowed"),
            ({"Sec-Fetch-Site": "cross-site"}, "?client=a", 403, "origin_not_allowed"),
        ],
    )
    async def test_a_refusal_has_its_status_and_its_words(
        self, s: Stand, changes: dict[str, str | None], target: str, status: int, code: str
    ) -> None:
        answer = await ask(s.port, "GET", PATH + target, {**UPGRADE, **changes})
        assert (answer.status, answer.code) == (status, code)
        assert answer.headers["content-type"] == JSON
        assert list(answer.json) == ["error"]
        assert list(answer.json["error"]) == ["code", "message"]
        if status == 426:
            assert answer.headers["sec-websocket-version"] == "13"

    async def test_http_1_0_has_no_upgrade(self, s: Stand) -> None:
        request = head("GET", f"{PATH}?client=a", {"Host": f"127.0.0.1:{s.port}", **UPGRADE})
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
        answer = await Link(reader, writer).ask(request.replace(b" HTTP/1.1", b" HTTP/1.0", 1))
        writer.close()
        assert (answer.status, answer.code) == (426, "upgrade_required")

    async def test_a_target_in_absolute_form_is_taken(self, s: Stand, name: str) -> None:
        async with s.peer(name, path=f"http://127.0.0.1:{s.port}{PATH}") as peer:
            assert (await peer.event())["type"] == "welcome"

    async def test_a_page_of_the_same_host_may_connect(self, s: Stand, name: str) -> None:
        async with s.peer(name, headers={"Origin": f"http://127.0.0.1:{s.port}"}) as peer:
            assert (await peer.event())["type"] == "welcome"

    async def test_other_methods_are_refused(self, s: Stand) -> None:
        answer = await ask(s.port, "POST", PATH, body=b"{}")
        assert (answer.status, answer.code) == (405, "method_not_allowed")

    @pytest.mark.parametrize(
        ("header", "body"),
        [({"Content-Length": "2"}, b"{}"), ({"Transfer-Encoding": "chunked"}, b"2\r\n{}\r\n0\r\n\r\n")],
    )
    async def test_a_handshake_with_a_body_is_refused(self, s: Stand, header: dict[str, str], body: bytes) -> None:
        headers = {**UPGRADE, "Content-Length": None, **header}
        answer = await ask(s.port, "GET", PATH + "?client=a", headers, body)
        assert (answer.status, answer.code) == (400, "bad_request")

    @pytest.mark.parametrize("path", OTHER_PATHS)
    async def test_nothing_else_is_served(self, s: Stand, path: str) -> None:
        answer = await ask(s.port, "GET", path)
        assert (answer.status, answer.code, answer.headers["content-type"]) == (404, "not_found", JSON)

    async def test_a_request_line_of_8_kib_is_taken(self, s: Stand, name: str) -> None:
        line = len(f"GET {PATH}?client={name}&unknown= HTTP/1.1")
        async with s.peer(name, unknown="x" * (8192 - line)) as peer:
            await peer.event()

    async def test_the_limit_of_a_client_is_429_with_a_time(self, s: Stand, name: str) -> None:
        peers = [s.peer(name) for _ in range(50)]
        try:
            await asyncio.gather(*(peer.connect() for peer in peers))
            with pytest.raises(Refusal) as info:
                await s.peer(name).connect()
            assert (info.value.status, info.value.code) == (429, "too_many_connections")
            assert int(info.value.headers["retry-after"]) > 0
        finally:
            await asyncio.gather(*(peer.cut() for peer in peers))

    async def test_tokens_are_wanted_expire_and_are_refreshed(self) -> None:
        now = int(time.time())
        claims: dict[str, Any] = {"iat": now, "groups": ["news"]}
        good = make_token(**claims, exp=now + 50)
        async with stand(self.variant, AUTH__MODE="jwt", AUTH__KEY=SECRET, AUTH__LEEWAY_S=0) as s:
            for headers in ({}, {"Authorization": "Bearer x.y.z"}):
                with pytest.raises(Refusal) as info:
                    await s.peer("", raw_query="", headers=headers).connect()
                assert (info.value.status, info.value.code) == (401, "unauthorized")
                assert info.value.headers["www-authenticate"] == "Bearer"
            async with s.peer("", raw_query="groups=other&token=" + good) as peer:
                assert (await peer.event())["type"] == "welcome"
                assert await peer.event() == {"type": "left", "stream": "group:other", "reason": "not_allowed"}
            peer = s.peer(
                "", raw_query="groups=news", headers={"Sec-WebSocket-Protocol": f"tidegate.v1, bearer.{good}"}
            )
            async with peer:
                assert (await peer.event())["client"] == "alice"
                assert peer.answer_headers["sec-websocket-protocol"] == "tidegate.v1"
                assert (await peer.event())["type"] == "expiring"
                new = make_token(iat=now, exp=now + 3600)
                reply = await peer.ask(type="refresh", id=1, token=new)
                assert reply["expires"] == now + 3600
                assert await peer.event() == {"type": "left", "stream": "group:news", "reason": "not_allowed"}
            soon = make_token(iat=now, exp=int(time.time()) + 2)
            async with s.peer("", raw_query="", headers={"Authorization": f"Bearer {soon}"}) as peer:
                assert await peer.ended(10) == 4009


class Commands(Base):
    async def test_every_command_is_answered(self, s: Stand, name: str) -> None:
        async with s.peer(name) as peer:
            await peer.event()
            joined = await peer.ask(type="join", id=1, group=name)
            assert (joined["type"], joined["stream"]) == ("reply", f"group:{name}")
            published = await peer.ask(type="publish", id="two", group=name, data={"ü": [1.0, 2**70, []]})
            assert published["offset"] == 1
            (message,) = [event for event in peer.seen if event["type"] == "message"] or [await peer.event()]
            assert (message["client"], message["data"]) == (name, {"ü": [1.0, 2**70, []]})
            history = await peer.ask(type="history", id=3, group=name, epoch=joined["epoch"], offset=0, limit=10)
            assert [item["offset"] for item in history["messages"]] == [1]
            presence = await peer.ask(type="presence", id=4, group=name)
            assert presence["clients"] == [name]
            pong = await peer.ask(type="ping", id=5)
            assert (pong["type"], sorted(pong)) == ("pong", ["cursor", "id", "type"])
            left = await peer.ask(type="leave", id=6, group=name)
            assert left["type"] == "reply"
            error = await peer.ask(type="refresh", id=7, token="t")
            assert error["type"] == "error"
            unknown = await peer.ask(type="nonsense", id=8)
            assert (unknown["type"], unknown["code"]) == ("error", "unknown_command")

    async def test_pushes_to_a_client_a_group_and_all_arrive_unchanged(self, s: Stand, name: str) -> None:
        async with s.peer(name, groups=name) as peer:
            await peer.event()
            data = {"text": "☂ \x00 \\", "big": 2**80, "empty": [], "nested": {"a": [{}]}}
            for address in (f"clients/{name}", f"groups/{name}", "all"):
                position = await s.node.push(address, data)
                message = await peer.event()
                assert (message["stream"], message["offset"]) == (position["stream"], position["offset"])
                assert message["data"] == data
                assert list(message) == ["type", "stream", "epoch", "offset", "time", "data"]

    async def test_who_reads_nothing_for_a_while_then_gets_all_that_came(self, s: Stand, name: str) -> None:
        """Nothing else happens that could wake who writes to it."""
        for alone, target in ((True, f"clients/{name}"), (False, "groups/chat")):
            async with s.peer(name, groups="chat", rcvbuf=8192) as peer, s.peer(f"{name}x", groups="chat") as neighbour:
                await peer.event()
                await neighbour.event()
                peer.reading.clear()
                pushed = [f"{number} " + "x" * 16_000 for number in range(45)]  # below the limit of an outbox
                for data in pushed:
                    await s.node.push(target, data)
                    if not alone:
                        await neighbour.event()
                await asyncio.sleep(0.1)
                peer.reading.set()
                assert [(await peer.event())["data"] for _ in pushed] == pushed

    async def test_the_application_adds_removes_and_disconnects(self, s: Stand, name: str) -> None:
        async with s.peer(name) as peer:
            await peer.event()
            await s.node.call("PUT", f"/api/groups/{name}/members/{name}")
            assert (await peer.event())["type"] == "joined"
            await s.node.call("DELETE", f"/api/groups/{name}/members/{name}")
            assert await peer.event() == {"type": "left", "stream": f"group:{name}", "reason": "removed"}
            await s.node.call("DELETE", f"/api/clients/{name}")
            assert await peer.ended() == 4501
            assert peer.close_reason == "disconnected by the application"

    async def test_ten_commands_not_understood_end_it(self, s: Stand, name: str) -> None:
        async with s.peer(name) as peer:
            for _ in range(10):
                peer.send_text("{")
            assert await peer.ended() == 4500

    async def test_text_heartbeats_are_answered(self, s: Stand, name: str) -> None:
        async with s.peer(name) as peer:
            await peer.event()
            for text in ("ping", "pong", "Ping", "Pong", "ping"):
                peer.send_text(text)
            assert [await peer.raw() for _ in range(3)] == [b"pong", b"Pong", b"pong"]
            await peer.ask(type="ping", id=1)
            assert peer.pending() == 0

    async def test_control_pings_are_answered_with_what_they_carry(self, s: Stand, name: str) -> None:
        async with s.peer(name) as peer:
            for payload in (b"", b"\x00\xff", b"x" * 125):
                peer.send_raw(frame(PING, payload))
            await eventually(lambda: len(peer.pongs) == 3)
            assert peer.pongs == [b"", b"\x00\xff", b"x" * 125]

    async def test_a_client_that_closes_is_answered_with_its_code(self, s: Stand, name: str) -> None:
        async with s.peer(name) as peer:
            await peer.event()
            peer.close(1000)
            assert await peer.ended() == 1000
        await eventually(lambda: self._is_gone(s, name))

    async def _is_gone(self, s: Stand, name: str) -> bool:
        return not await s.node.connections(name)


class Recovery(Base):
    async def test_who_comes_back_with_a_cursor_gets_what_was_missed(self, s: Stand, name: str) -> None:
        async with s.peer(name, groups=name) as peer:
            await peer.event()
            await s.node.push(f"clients/{name}", 1)
            await peer.event()
            cursor = (await peer.ask(type="ping", id=1))["cursor"]
        for number in range(2, 50):
            await s.node.push(f"clients/{name}", number)
        await s.node.push(f"groups/{name}", "group")
        async with s.peer(name, cursor=cursor) as peer:
            streams = (await peer.event())["streams"]
            assert (streams[f"client:{name}"]["recovered"], streams[f"client:{name}"]["missed"]) == (True, 48)
            events = await peer.events(49)
            own = [event["data"] for event in events if event["stream"] == f"client:{name}"]
            assert own == list(range(2, 50))
            assert [event["data"] for event in events if event["stream"] == f"group:{name}"] == ["group"]

    async def test_what_a_pong_confirmed_need_not_be_sent_again(self, quick: Stand, name: str) -> None:
        async with quick.peer(name, cursor="last") as peer:
            await peer.event()
            await quick.node.push(f"clients/{name}", "seen")
            assert (await peer.until(lambda event: event["type"] == "message"))["data"] == "seen"
            seen = len(peer.pings)
            # The service's own pings come through; when the third comes, the first one's pong has been there.
            await eventually(lambda: len(peer.pings) >= seen + 3)
            peer.pong = False
            await quick.node.push(f"clients/{name}", "late")
            await peer.event()
        async with quick.peer(name, cursor="last") as peer:
            streams = (await peer.event())["streams"]
            assert streams[f"client:{name}"]["missed"] == 1
            assert (await peer.event())["data"] == "late"

    async def test_a_stranger_to_a_position_is_told_of_the_gap(self, s: Stand, name: str) -> None:
        async with s.peer(name) as peer:
            await peer.event()
            reply = await peer.ask(type="join", id=1, group=name, epoch="other", offset=7)
            assert reply["recovered"] is False
            gap = await peer.event()
            assert (gap["type"], gap["reason"]) == ("gap", "reset")

    async def test_the_json_of_events_is_the_services_own(self, s: Stand, name: str) -> None:
        async with s.peer(name) as peer:
            raw = await peer.raw()
            assert raw == json.dumps(json.loads(raw), separators=(",", ":"), ensure_ascii=False).encode()


class Contract(Sessions, Commands, Recovery, Frames, Calls, Failures):
    pass
