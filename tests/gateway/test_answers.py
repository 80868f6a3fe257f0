"""Large answers to commands: free for whoever asks now and then, one after the other for those who never stop."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from tests.gateway.test_slow import flood, session
from tests.peer import Peer
from tests.service_fixture import running
from tests.support import eventually
from tidegate.app import App
from tidegate.gateway import answers
from tidegate.gateway.answers import BYTES_PER_S, FREE_BYTES, WINDOW_S, Answers

KIB = 1024
LARGE = FREE_BYTES // 4


@pytest.fixture
def now() -> list[float]:
    return [100.0]


@pytest.fixture
def spaced(now: list[float]) -> Answers:
    return Answers(lambda: now[0])


def test_what_is_free_is_not_waited_for_and_what_follows_is(spaced: Answers) -> None:
    for _ in range(FREE_BYTES // LARGE):
        assert spaced.wait_s("a") == 0
        spaced.made("a", LARGE)
    assert spaced.wait_s("a") == 0
    spaced.made("a", LARGE)
    assert spaced.wait_s("a") == pytest.approx(LARGE / BYTES_PER_S)
    assert spaced.wait_s("a") == 0, "each is waited for once"


def test_those_who_ask_too_much_wait_for_each_other_and_nobody_for_them(spaced: Answers) -> None:
    for name in "abc":
        spaced.made(name, FREE_BYTES + LARGE)
    one_s = (FREE_BYTES + LARGE) / BYTES_PER_S
    assert [spaced.wait_s(name) for name in "abc"] == pytest.approx([one_s, 2 * one_s, 3 * one_s])
    spaced.made("modest", LARGE)
    assert spaced.wait_s("modest") == 0


def test_small_answers_add_up(spaced: Answers) -> None:
    spaced.made("a", FREE_BYTES)
    total = 0.0
    for _ in range(100):
        spaced.made("a", KIB)
        total = spaced.wait_s("a")
    assert total == pytest.approx(100 * KIB / BYTES_PER_S)


def test_a_second_later_it_is_free_again_and_nothing_is_kept(spaced: Answers, now: list[float]) -> None:
    spaced.made("a", 2 * FREE_BYTES)
    now[0] += WINDOW_S
    spaced.made("b", LARGE)
    assert spaced.wait_s("a") == 0
    assert set(spaced._made) == {"b"}
    assert not spaced._owed


def command(app: App, kind: str) -> dict[str, Any]:
    if kind == "history":
        return {"type": "history", "group": "news", "limit": 100}
    return {"type": "join", "group": "news", "epoch": app.hub.audiences["group:news"].position.epoch, "offset": 0}


@pytest.mark.parametrize("kind", ["history", "join"])
async def test_who_never_stops_asking_is_slowed_down_and_a_neighbour_is_not(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "BYTES_PER_S", 16 * FREE_BYTES)
    count = 14
    async with (
        running() as app,
        Peer(app.public_port, client="flooder", groups="news") as flooder,
        Peer(app.public_port, client="bob", groups="news") as bob,
    ):
        await flood(app, "group:news", 20, 13_000)
        begun = monotonic()
        for number in range(count):
            flooder.send(id=number, **command(app, kind))
        flooder.send(type="ping", id="last")
        bob.send(id="only", **command(app, kind))
        await bob.until(lambda event: event.get("id") == "only")
        bob_s = monotonic() - begun
        await flooder.until(lambda event: event["type"] == "pong")
        assert [event["id"] for event in flooder.seen if event["type"] == "reply"] == list(range(count))
        # A quarter of a MiB each: four are free, the fifth is owed for, and nobody waits after the last.
        assert monotonic() - begun > (count - 5) / 4 / 16
        assert bob_s < (count - 5) / 4 / 16 / 2
        assert app.metrics.shares_used["answers",] >= count - 6
        await eventually(lambda: not session(app, "flooder").tracks)
