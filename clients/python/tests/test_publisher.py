"""Publishers over HTTP: one suite for the blocking and the awaiting one, and for fakes where they promise the same."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.brokers.contract_words import SPAN
from tests.publishers import KINDS, Between, Kind, answer, fake_publisher, publisher
from tests.support import Logs, free_port
from tidegate_client.publisher import (
    AsyncPublisher,
    BadPush,
    Json,
    NotConfirmed,
    Publisher,
    Push,
    PushFailed,
    Refused,
)
from tidegate_client.publisher.fake import FakePublisher
from tidegate_client.pytest import Gateway, gateway

OTHER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b8-00"


@pytest.fixture(scope="module")
def real() -> Iterator[Gateway]:
    """One gateway for all tests: each has streams of its own."""
    with gateway() as running:
        yield running


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(params=["real", "fake"])
def pub(request: pytest.FixtureRequest, kind: Kind, real: Gateway) -> Iterator[Any]:
    """A publisher of each kind, to a real gateway and to a fake one."""
    made = publisher(kind, real.api_url) if request.param == "real" else fake_publisher(kind, FakePublisher())
    with made as found:
        yield found


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A group that no other test has."""
    return f"g{abs(hash(request.node.nodeid))}"


def port_of(gateway: Gateway) -> int:
    return int(gateway.api_url.rpartition(":")[2])


def journal(gateway: Gateway, group: str) -> list[Any]:
    """What was pushed to the group."""
    with Publisher(gateway.api_url) as asking:
        return [message.data for message in asking.history(group=group, limit=1000).messages]


def bodies(between: Between) -> list[Any]:
    return [json.loads(request.partition(b"\r\n\r\n")[2]) for request in between.seen]


def offsets(failed: PushFailed) -> dict[int, int]:
    return {place: position.offset for place, position in failed.positions.items() if position is not None}


def heads(between: Between, header: str) -> list[str | None]:
    found = []
    for request in between.seen:
        lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        found.append(next((line.partition(": ")[2] for line in lines if line.lower().startswith(header.lower())), None))
    return found


# What both promise, and fakes too


def test_a_push_returns_its_position(pub: Any, name: str) -> None:
    one = pub.push(group=name, data={"n": 1})
    two = pub.push(group=name, data=[None, "é😀", 1.5])
    assert (one.stream, one.offset, two.offset, one.epoch) == (f"group:{name}", 1, 2, two.epoch)
    assert pub.push(client=name, data=0).stream == f"client:{name}"
    assert pub.push(all=True, data=0).stream == "all"
    found = pub.history(group=name)
    assert [(message.offset, message.data) for message in found.messages] == [(1, {"n": 1}), (2, [None, "é😀", 1.5])]
    assert (found.top, found.more, found.end) == (2, False, two)


def test_a_batch_returns_positions_in_its_order(pub: Any, name: str) -> None:
    pushes = [{"group": name, "data": 1}, Push(client=name, data=2), {"group": name, "data": 3, "key": "k"}]
    assert [(found.stream, found.offset) for found in pub.push_many(pushes)] == [
        (f"group:{name}", 1),
        (f"client:{name}", 1),
        (f"group:{name}", 2),
    ]
    assert pub.push_many([]) == []


def test_a_key_is_pushed_once_and_never_for_other_data(pub: Any, name: str) -> None:
    first = pub.push(group=name, data=1, key="order 17/é")
    assert pub.push(group=name, data=1, key="order 17/é") == first
    with pytest.raises(Refused) as refused:
        pub.push(group=name, data=2, key="order 17/é")
    assert (refused.value.code, refused.value.status, refused.value.of_item) == ("key_reused", 409, False)
    with pytest.raises(PushFailed) as failed:
        pub.push_many([Push(group=name, data=n, key=key) for n, key in ((1, None), (2, "order 17/é"), (3, None))])
    assert {place: error.code for place, error in failed.value.failures.items()} == {1: "key_reused"}
    assert offsets(failed.value) == {0: 2, 2: 3}
    assert getattr(failed.value.failures[1], "of_item", False)


def test_a_history_is_read_in_pages(pub: Any, name: str) -> None:
    pub.push_many([{"group": name, "data": n} for n in range(5)])
    start = pub.push(group=name, data=5)._replace(offset=1)
    page = pub.history(group=name, position=start, limit=2)
    assert ([message.data for message in page.messages], page.more, page.top) == ([1, 2], True, 6)
    page = pub.history(group=name, position=page.end)
    assert ([message.data for message in page.messages], page.more) == ([3, 4, 5], False)


def test_members_and_presence(pub: Any, name: str) -> None:
    assert pub.add_member(name, "alice") is True
    assert pub.add_member(name, "alice") is False
    assert pub.remove_member(name, "alice") is True
    assert pub.remove_member(name, "alice") is False
    assert pub.presence(name) == (name, [], 0)
    assert pub.disconnect("alice") == []


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"data": 1}, "bad_request"),
        ({"group": "a", "client": "b", "data": 1}, "bad_request"),
        ({"group": "a", "all": True, "data": 1}, "bad_request"),
        ({"group": "a/b", "data": 1}, "bad_request"),
        ({"client": "..", "data": 1}, "bad_request"),
        ({"group": "a", "data": float("nan")}, "bad_request"),
        ({"group": "a", "data": "\ud83d"}, "bad_request"),
        ({"group": "a", "data": Json('{"a":1')}, "bad_request"),
        ({"group": "a", "data": 1, "key": ""}, "bad_request"),
        ({"group": "a", "data": 1, "key": "a\nb"}, "bad_request"),
        ({"group": "a", "data": 1, "key": "k" * 129}, "bad_request"),
        ({"group": "a", "data": 1, "conflate": ""}, "bad_request"),
        ({"group": "a", "data": 1, "conflate": "a b"}, "bad_request"),
        ({"group": "a", "data": 1, "traceparent": SPAN.upper()}, "bad_request"),
        ({"group": "a", "data": 1, "traceparent": ""}, "bad_request"),
        ({"group": "a", "data": 1, "traceparent": f"{SPAN}-more"}, "bad_request"),
        ({"group": "a", "data": "x" * 65535}, "too_large"),
        ({"group": "a", "data": Json("[" * 64 + "]" * 64)}, "too_deep"),
        ({"group": "a", "data": Json("[" * 100_000)}, "too_deep"),
    ],
    ids=str,
)
def test_what_can_never_be_taken_is_not_sent(pub: Any, name: str, wrong: dict[str, Any], code: str) -> None:
    with pytest.raises(BadPush) as bad:
        pub.push(**wrong)
    assert bad.value.code == code
    with pytest.raises(BadPush, match="push number 1: "):
        pub.push_many([{"group": name, "data": 1}, wrong])
    assert pub.history(group=name).messages == []


def test_data_that_is_no_json_is_a_type_error_unless_somebody_writes_it(kind: Kind, real: Gateway, name: str) -> None:
    with publisher(kind, real.api_url) as pub, pytest.raises(TypeError):
        pub.push(group=name, data=Path("a"))
    with publisher(kind, real.api_url, json_default=str) as pub:
        pub.push(group=name, data=Path("a"))
    assert journal(real, name) == ["a"]


def test_json_text_arrives_byte_for_byte(real: Gateway, name: str) -> None:
    texts = ['{"a": 1, "a":1e400}', "-0", "123456789012345678901234567890", r'"\ud83d\ude00\u0000"', " [ ] "]
    with Publisher(real.api_url) as pub:
        pub.push_many([Push(group=name, data=Json(text)) for text in texts])
        pub.push(group=name, data=Json(b'"as bytes"'))
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port_of(real))
    connection.request("GET", f"/api/groups/{name}/history")
    raw = connection.getresponse().read().decode()
    connection.close()
    at = 0
    for text in [*(text.strip() for text in texts), '"as bytes"']:
        at = raw.index(f'"data":{text}', at) + 1


# Attempts


def test_a_push_whose_answer_is_lost_is_repeated_and_not_doubled(kind: Kind, real: Gateway, name: str) -> None:
    with Between(port_of(real), "lose", "lose") as between, publisher(kind, f"http://127.0.0.1:{between.port}") as pub:
        position = pub.push(group=name, data={"n": 1})
    assert position.offset == 1
    assert journal(real, name) == [{"n": 1}]
    assert len(between.seen) == 3
    assert len(set(bodies_as_sent(between))) == 1
    assert len(set(heads(between, "Idempotency-Key"))) == 1


def bodies_as_sent(between: Between) -> list[bytes]:
    return [request.partition(b"\r\n\r\n")[2] for request in between.seen]


def test_a_push_without_a_key_whose_answer_is_lost_is_not_repeated(kind: Kind, real: Gateway, name: str) -> None:
    with Between(port_of(real), "lose") as between, publisher(kind, f"http://127.0.0.1:{between.port}") as pub:
        with pytest.raises(NotConfirmed) as unknown:
            pub.push(group=name, data=1, key=False)
    assert (unknown.value.code, unknown.value.may_be_taken, unknown.value.key) == ("cut", True, None)
    assert journal(real, name) == [1]
    assert heads(between, "Idempotency-Key") == [None]


def test_a_push_that_is_not_answered_in_time_is_repeated(kind: Kind, real: Gateway, name: str) -> None:
    with (
        Between(port_of(real), "hang") as between,
        publisher(kind, f"http://127.0.0.1:{between.port}", timeout_s=0.3) as pub,
    ):
        assert pub.push(group=name, data=1).offset == 1
    assert journal(real, name) == [1]
    assert len(between.seen) == 2


@pytest.mark.parametrize("key", [None, False])
def test_a_gateway_that_starts_late_is_waited_for(kind: Kind, key: Any) -> None:
    port = free_port()
    ready, stop = threading.Event(), threading.Event()

    def late() -> None:
        ready.wait()
        with gateway(internal={"port": port}):
            stop.wait()

    thread = threading.Thread(target=late)
    thread.start()
    timer = threading.Timer(0.2, ready.set)
    timer.start()
    try:
        with publisher(kind, f"http://127.0.0.1:{port}") as pub:
            assert pub.push(group="news", data=1, key=key).offset == 1
    finally:
        ready.set()
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("status", "code", "key", "repeated"),
    [
        (429, "too_fast", None, True),
        (429, "too_fast", False, True),
        (503, "draining", False, True),
        (503, "broker_down", None, True),
        (503, "broker_down", False, False),
        (502, "", None, True),
        (502, "", False, False),
        (401, "unauthorized", None, False),
        (500, "internal_error", None, False),
        (301, "", None, False),
    ],
)
def test_what_may_pass_is_repeated(
    kind: Kind, real: Gateway, name: str, status: int, code: str, key: Any, repeated: bool
) -> None:
    body = json.dumps({"error": {"code": code, "message": "no"}}) if code else "<html>"
    said = answer(status, body, "Retry-After: 0", "Location: /elsewhere")
    with Between(port_of(real), said) as between, publisher(kind, f"http://127.0.0.1:{between.port}") as pub:
        if repeated:
            assert pub.push(group=name, data=1, key=key).offset == 1
        else:
            with pytest.raises((Refused, NotConfirmed)) as no:
                pub.push(group=name, data=1, key=key)
            assert no.value.code == code or not code
    assert len(between.seen) == 1 + repeated


def test_retry_after_is_kept(kind: Kind, real: Gateway, name: str) -> None:
    said = answer(503, '{"error":{"code":"broker_down","message":"no"}}', "Retry-After: 1")
    with Between(port_of(real), said) as between, publisher(kind, f"http://127.0.0.1:{between.port}") as pub:
        begun = time.monotonic()
        pub.push(group=name, data=1)
        assert 1 <= time.monotonic() - begun < 3


def test_nobody_waits_longer_than_the_deadline(kind: Kind, real: Gateway, name: str) -> None:
    said = answer(503, '{"error":{"code":"broker_down","message":"Redis did not confirm"}}')
    with (
        Between(port_of(real), *[said] * 1000) as between,
        publisher(kind, f"http://127.0.0.1:{between.port}", deadline_s=0.6) as pub,
    ):
        begun = time.monotonic()
        with pytest.raises(NotConfirmed) as unknown:
            pub.push(group=name, data=1, key="k1")
        assert time.monotonic() - begun < 3
        assert (unknown.value.code, unknown.value.key, unknown.value.may_be_taken) == ("broker_down", "k1", True)
        assert len(between.seen) > 2
        with pytest.raises(PushFailed) as failed:
            pub.push_many([{"group": name, "data": n} for n in range(2)])
        assert [error.code for error in failed.value.failures.values()] == ["broker_down"] * 2


def test_questions_are_repeated(kind: Kind, real: Gateway, name: str) -> None:
    with Between(port_of(real), "lose", "lose") as between, publisher(kind, f"http://127.0.0.1:{between.port}") as pub:
        assert pub.add_member(name, "alice") is False, "the first attempt had made it a member"
        assert pub.remove_member(name, "alice") is True


def test_the_key_is_for_this_gateway_alone(kind: Kind, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    secret = "a-key-of-the-http-api-for-this-test"
    with gateway(internal={"api_keys": [secret]}) as keyed:
        with publisher(kind, keyed.api_url, api_key=secret + "\n") as pub:
            pub.push(group=name, data=1)
        with publisher(kind, keyed.api_url, api_key="another-key-of-16-characters-or-more") as pub:
            with pytest.raises(Refused) as refused:
                pub.push(group=name, data=1)
            assert refused.value.code == "unauthorized"
            assert secret not in str(refused.value)
            with pytest.raises(PushFailed) as failed:
                pub.push_many([Push(group=name, data=n) for n in range(1500)])
            assert len(failed.value.failures) == 1500
            assert not any(getattr(error, "of_item", True) for error in failed.value.failures.values())


# Traces


def spans(gateway: Gateway, name: str, count: int) -> list[str | None]:
    """What the gateway's trace has of the first messages of a group."""
    with httpx.Client(base_url=gateway.api_url) as http:
        asked = [
            http.get("/api/trace", params={"stream": f"group:{name}", "offset": n + 1}).json() for n in range(count)
        ]
    return [found["journal"].get("traceparent") for found in asked]


def test_a_span_goes_with_a_push_and_with_those_of_a_batch(kind: Kind, real: Gateway, name: str) -> None:
    with publisher(kind, real.api_url) as pub:
        pub.push(group=name, data=1, traceparent=SPAN)
        pub.push(group=name, data=2)
        pub.push_many([{"group": name, "data": 3, "traceparent": OTHER}, Push(group=name, data=4)])
    assert spans(real, name, 4) == [SPAN, None, OTHER, None]


def test_a_function_gives_the_spans_of_pushes_that_name_none(kind: Kind, real: Gateway, name: str) -> None:
    given = iter([SPAN, None, OTHER, SPAN])
    with publisher(kind, real.api_url, traceparent=lambda: next(given)) as pub:
        pub.push(group=name, data=1)
        pub.push(group=name, data=2)
        pub.push_many([Push(group=name, data=3), Push(group=name, data=4, traceparent=OTHER), Push(group=name, data=5)])
    assert spans(real, name, 5) == [SPAN, None, OTHER, OTHER, SPAN]


@pytest.mark.parametrize("wrong", [SPAN.upper(), "", b"00", 1 / 3])
def test_a_push_does_not_fail_because_a_function_gives_no_span(kind: Kind, wrong: Any) -> None:
    with fake_publisher(kind, FakePublisher(), traceparent=lambda: wrong) as pub:
        pub.push(all=True, data=1)
        assert [push.traceparent for push in pub.gateway.pushed] == [None]


def test_a_function_that_raises_is_in_the_log_and_fails_no_push(kind: Kind, expected_logs: Logs) -> None:
    expected_logs.expect("traceparent failed; the push goes without one")
    with fake_publisher(kind, FakePublisher(), traceparent=lambda: str(1 // 0)) as pub:
        pub.push(all=True, data=1)
        assert [push.data for push in pub.gateway.pushed] == [1]


# Batches


def test_a_word_goes_with_a_push_and_with_those_of_a_batch(kind: Kind, real: Gateway, name: str) -> None:
    with Between(port_of(real)) as between, publisher(kind, f"http://127.0.0.1:{between.port}") as pub:
        pub.push(group=name, data=1, conflate="north")
        pub.push_many([{"group": name, "data": 2, "conflate": "south"}, Push(group=name, data=3)])
        one, batch = bodies(between)
        assert one == {"data": 1, "conflate": "north"}
        assert [push.get("conflate") for push in batch["pushes"]] == ["south", None]


def test_a_batch_above_the_limits_is_split_and_keeps_its_order(kind: Kind, real: Gateway, name: str) -> None:
    groups = [f"{name}-{n % 3}" for n in range(1200)]
    pushes = [Push(group=group, data=[n, "x" * 2000]) for n, group in enumerate(groups)]
    with Between(port_of(real)) as between, publisher(kind, f"http://127.0.0.1:{between.port}") as pub:
        positions = pub.push_many(pushes)
    assert max(map(len, bodies_as_sent(between))) <= 1048576
    assert max(len(body["pushes"]) for body in bodies(between)) <= 1000
    assert len(between.seen) == 3
    for n in range(3):
        assert [at.offset for at in positions if at.stream == f"group:{name}-{n}"] == list(range(1, 401))


def test_a_batch_of_many_small_pushes_is_split_by_number(kind: Kind, real: Gateway, name: str) -> None:
    with Between(port_of(real), "pass", "lose") as between:
        with publisher(kind, f"http://127.0.0.1:{between.port}") as pub:
            positions = pub.push_many([Push(group=name, data=n) for n in range(2500)])
    assert [position.offset for position in positions] == list(range(1, 2501))
    assert [len(body["pushes"]) for body in bodies(between)] == [1000, 1000, 1000, 500]


def test_pushes_of_a_batch_that_were_not_tried_are_repeated_in_order(kind: Kind, real: Gateway, name: str) -> None:
    def error(code: str) -> dict[str, Any]:
        return {"error": {"code": code, "message": "no"}}

    accepted = {"stream": f"group:{name}-other", "epoch": "e", "offset": 7}
    said = answer(200, json.dumps({"results": [error("broker_down"), accepted, error("not_tried"), error("too_deep")]}))
    groups = [name, f"{name}-other", name, name]
    with Between(port_of(real), said) as between, publisher(kind, f"http://127.0.0.1:{between.port}") as pub:
        with pytest.raises(PushFailed) as failed:
            pub.push_many([Push(group=group, data=n) for n, group in enumerate(groups)])
    assert {at: error.code for at, error in failed.value.failures.items()} == {3: "too_deep"}
    assert offsets(failed.value) == {0: 1, 1: 7, 2: 2}
    first, second = (body["pushes"] for body in bodies(between))
    assert second == [first[0], first[2]], "with their keys and bytes"
    assert journal(real, name) == [0, 2]


def test_a_push_of_unknown_end_holds_those_behind_it_in_its_stream(kind: Kind, real: Gateway, name: str) -> None:
    with Between(port_of(real), "lose") as between, publisher(kind, f"http://127.0.0.1:{between.port}") as pub:
        with pytest.raises(PushFailed) as failed:
            pub.push_many(
                [
                    Push(group=name, data=0),
                    Push(group=name, data=1, key=False),
                    Push(group=name, data=2),
                    Push(group=f"{name}-other", data=3),
                ]
            )
    found: dict[int, Any] = failed.value.failures
    assert {at: (error.code, error.may_be_taken) for at, error in found.items()} == {
        1: ("cut", True),
        2: ("not_tried", True),
    }
    assert found[2].key is not None
    assert sorted(failed.value.positions) == [0, 3]
    assert journal(real, name) == [0, 1, 2]


def test_a_closed_publisher_opens_again(kind: Kind, real: Gateway, name: str) -> None:
    with publisher(kind, real.api_url) as pub:
        pub.push(group=name, data=1)
        pub.close() if kind == "sync" else pub._runner.run(pub._publisher.close())
        pub.push(group=name, data=2)
    assert journal(real, name) == [1, 2]


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("localhost:8001", {}),
        ("ftp://localhost", {}),
        ("http://", {}),
        ("http://user:password@localhost", {}),
        ("http://localhost:port", {}),
        ("http://localhost", {"api_key": "é"}),
        ("redis://localhost:port", {}),
        ("http://localhost:8001", {"deadline_s": 300}),
        ("http://localhost:8001", {"timeout_s": 0}),
        ("redis://localhost", {"api_key": "k"}),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(url: str, options: dict[str, Any]) -> None:
    for made in (Publisher, AsyncPublisher):
        with pytest.raises(ValueError, match=r"url|deadline_s|timeout_s|api_key|[Pp]ort"):
            made(url, **options)
