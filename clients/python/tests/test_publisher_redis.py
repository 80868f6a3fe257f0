"""Publishers through Redis: a real Redis, and a real node that reads what they put there."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.brokers.contract_words import SPAN
from tests.brokers.server import RedisServer, SentinelServer, sentinel_url
from tests.publishers import KINDS, Between, Kind, publisher
from tests.support import free_port, scaled
from tidegate_client.publisher import BadPush, NotConfirmed, NotThroughRedis, Publisher, Push, PushFailed, Refused
from tidegate_client.pytest import Gateway, gateway

OTHER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b8-00"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture(scope="module")
def real(server: RedisServer) -> Iterator[Gateway]:
    with gateway(broker={"kind": "redis", "url": server.url}) as running:
        yield running


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A group that no other test has."""
    return f"g{abs(hash(request.node.nodeid))}"


def journal(gateway: Gateway, last: Any, **stream: Any) -> list[Any]:
    """The journal, once its last message is this one. A reader is by and by: nothing tells when it has dealt with
    all."""
    with Publisher(gateway.api_url) as asking:
        deadline = time.monotonic() + scaled(10)
        while True:
            data = [message.data for message in asking.history(**stream, limit=1000).messages]
            if data[-1:] == [last] or time.monotonic() > deadline:
                return data
            time.sleep(0.02)


def entries(server: RedisServer) -> int:
    info = server.command("XINFO", "STREAM", "tidegate:push")
    return int(info[info.index("entries-added") + 1])


def test_pushes_arrive_in_order_and_have_no_position(kind: Kind, server: RedisServer, real: Gateway, name: str) -> None:
    with publisher(kind, server.url) as pub:
        assert pub.push(group=name, data=0) is None
        assert pub.push_many([Push(group=name, data=n) for n in range(1, 1500)]) == [None] * 1499
        for _ in range(2):
            pub.push(client=name, data={"n": "é😀"}, key="order 17/é")
        pub.push(all=True, data=name, key=False)
    assert journal(real, 1499, group=name) == list(range(500, 1500))
    assert journal(real, {"n": "é😀"}, client=name) == [{"n": "é😀"}]
    assert journal(real, name, all=True)[-1] == name


def test_a_word_goes_with_a_push(kind: Kind) -> None:
    with RedisServer() as server, publisher(kind, server.url) as pub:
        pub.push(group="a", data=1, conflate="north", key=False)
        [(_, fields)] = server.command("XRANGE", "tidegate:push", "-", "+")
        assert fields == {"group": "a", "data": "1", "conflate": "north"}


def test_a_span_goes_with_a_push(kind: Kind, server: RedisServer, real: Gateway, name: str) -> None:
    with publisher(kind, server.url, traceparent=lambda: SPAN) as pub:
        pub.push(group=name, data=1)
        pub.push_many([Push(group=name, data=2, traceparent=OTHER), Push(group=name, data=3)])
        with pytest.raises(BadPush):
            pub.push(group=name, data=4, traceparent=SPAN.upper())
    assert journal(real, 3, group=name) == [1, 2, 3]
    with httpx.Client(base_url=real.api_url) as http:
        asked = [{"stream": f"group:{name}", "offset": offset} for offset in (1, 2, 3)]
        found = [http.get("/api/trace", params=params).json()["journal"]["traceparent"] for params in asked]
    assert found == [SPAN, OTHER, SPAN]


def test_what_needs_an_answer_says_so(kind: Kind, server: RedisServer) -> None:
    with publisher(kind, server.url, token_key="a secret of 32 bytes or more, for tokens") as pub:
        for ask in (
            lambda: pub.add_member("news", "alice"),
            lambda: pub.remove_member("news", "alice"),
            lambda: pub.disconnect("alice"),
            lambda: pub.presence("news"),
            lambda: pub.history(group="news"),
        ):
            with pytest.raises(NotThroughRedis, match="needs the HTTP API"):
                ask()
        assert pub.token("alice", ["news"]).count(".") == 2


def test_what_nobody_would_take_is_not_put_in(kind: Kind, server: RedisServer, real: Gateway) -> None:
    before = entries(server)
    with publisher(kind, server.url) as pub:
        for wrong in ({"group": "a/b", "data": 1}, {"group": "a", "data": "x" * 65536}, {"data": 1}):
            with pytest.raises(BadPush):
                pub.push(**wrong)
    assert entries(server) == before


@pytest.mark.parametrize("many", [False, True])
def test_a_push_whose_answer_is_lost_is_not_doubled(
    kind: Kind, many: bool, server: RedisServer, real: Gateway, name: str
) -> None:
    between = Between(server.port, "lose", end=len, only=b"XADD")
    with between, publisher(kind, f"redis://127.0.0.1:{between.port}/0", timeout_s=1) as pub:
        if many:
            pub.push_many([Push(group=name, data=n) for n in range(3)])
        else:
            pub.push(group=name, data=0)
        pub.push(group=name, data="end")
    assert journal(real, "end", group=name) == [0, *([1, 2] if many else []), "end"]
    assert len(between.seen) == 3


def test_a_push_without_a_key_whose_answer_is_lost_is_not_repeated(
    kind: Kind, server: RedisServer, real: Gateway, name: str
) -> None:
    between = Between(server.port, "lose", "pass", "lose", end=len, only=b"XADD")
    with between, publisher(kind, f"redis://127.0.0.1:{between.port}/0", timeout_s=1) as pub:
        with pytest.raises(NotConfirmed) as unknown:
            pub.push(group=name, data=0, key=False)
        assert unknown.value.may_be_taken
        pub.push(group=name, data=1, key=False)
        with pytest.raises(PushFailed) as failed:
            pub.push_many([Push(group=name, data=n, key=False) for n in (2, 3)])
    assert {at: error.code for at, error in failed.value.failures.items()} == {0: "cut", 1: "not_tried"}
    assert journal(real, 3, group=name) == [0, 1, 2, 3]
    assert len(between.seen) == 3


@pytest.mark.parametrize("key", [None, False])
def test_a_redis_that_is_away_is_waited_for(kind: Kind, key: Any) -> None:
    with RedisServer() as own, publisher(kind, own.url, timeout_s=1) as pub:
        pub.push(group="news", data=1, key=key)
        own.kill()
        timer = threading.Timer(0.2, own.start)
        timer.start()
        # What was cut while it died may have been taken: the first attempt finds the socket closed, or no listener.
        pub.push(group="news", data=2)
        pub.push(group="news", data=3, key=key)
        timer.join()
        assert len(own.command("XRANGE", "tidegate:push", "-", "+")) == 2


@pytest.mark.parametrize("many", [False, True])
def test_a_redis_that_is_full_is_waited_for_without_a_key_too(kind: Kind, many: bool) -> None:
    with RedisServer(maxmemory="1mb") as own, publisher(kind, own.url) as pub:
        timer = threading.Timer(0.3, lambda: own.command("CONFIG", "SET", "maxmemory", "100mb"))
        timer.start()
        if many:
            pub.push_many([Push(group="news", data=n, key=False) for n in range(2)])
        else:
            pub.push(group="news", data=1, key=False)
        timer.join()
        assert len(own.command("XRANGE", "tidegate:push", "-", "+")) == 1 + many


def test_a_bad_password_and_a_wrong_key_are_refused_at_once(kind: Kind) -> None:
    with RedisServer(requirepass="secret") as own:
        for url in (own.url, f"redis://:other@127.0.0.1:{own.port}/0"):
            with publisher(kind, url) as pub:
                with pytest.raises(Refused) as refused:
                    pub.push(group="news", data="the payload")
                assert refused.value.code == "redis"
                with pytest.raises(PushFailed) as failed:
                    pub.push_many([Push(group="news", data="the payload")] * 2)
                assert "payload" not in str(failed.value)
        with publisher(kind, f"redis://:secret@127.0.0.1:{own.port}/0", prefix="other") as pub:
            pub.push(group="news", data=1)
            own.command("SET", "wrong:push", "a text")
        with publisher(kind, f"redis://:secret@127.0.0.1:{own.port}/0", prefix="wrong") as pub:
            with pytest.raises(PushFailed, match="WRONGTYPE") as failed:
                pub.push_many([Push(group="news", data="the payload")] * 2)
            assert "payload" not in str(failed.value)
        assert len(own.command("XRANGE", "other:push", "-", "+")) == 1


def test_sentinels_name_the_redis(kind: Kind) -> None:
    with RedisServer() as own, SentinelServer(own.port) as sentinel:
        nobody = free_port()
        with publisher(kind, sentinel_url(nobody, sentinel.port, options="?db=3"), timeout_s=1) as pub:
            pub.push(group="news", data=1)
        assert own.command("SELECT", 3)
        assert len(own.command("XRANGE", "tidegate:push", "-", "+")) == 1


@pytest.mark.parametrize(
    "url", ["redis+sentinel://h:26379", "redis+sentinel://h/NAME?unknown=1", "redis+sentinel://h/NAME?db=x"]
)
def test_a_sentinel_url_that_cannot_be_meant_is_refused(kind: Kind, url: str) -> None:
    with pytest.raises(ValueError, match=r"redis\+sentinel://|invalid literal"), publisher(kind, url):
        pass
