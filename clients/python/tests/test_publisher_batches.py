"""The order of a batch, and that nothing in it is doubled or forgotten, whatever happens between."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tidegate_client.publisher.attempts import KEY_AGE_S, LONGEST_S, Patience, Send, Trouble
from tidegate_client.publisher.calls import Calls, Result
from tidegate_client.publisher.errors import NotConfirmed, PushFailed, Refused
from tidegate_client.publisher.model import Position
from tidegate_client.publisher.pushes import Item, Limits, Push, Rules

STREAMS = ("a", "b")


class Journals:
    """A gateway that knows keys, and that treats the items of each request as ``fates`` say: ``ok``, ``lost`` (taken,
    and nobody hears of it), ``down`` (not taken, and nobody knows), ``no`` (refused), ``later`` (surely not taken),
    and the request as a whole: ``cut`` before or after it."""

    def __init__(self, fates: list[str]) -> None:
        self._fates = iter(fates)
        self.journals: defaultdict[str, list[bytes]] = defaultdict(list)
        self._keys: dict[tuple[str, str], Position] = {}
        self._refused: set[bytes] = set()

    def fate(self) -> str:
        return next(self._fates, "ok")

    def one(self, item: Item) -> Any:
        return [item]

    def accepted(self, answer: Any) -> Result:
        raise NotImplementedError

    def fit(self, items: Sequence[Item]) -> int:
        return min(len(items), 3)

    def many(self, items: Sequence[Item]) -> Any:
        return list(items)

    def results(self, items: Sequence[Item], answer: Any) -> Sequence[Result]:
        if isinstance(answer, Trouble):
            return [answer] * len(items)
        found: Sequence[Result] = answer
        return found

    def answer(self, items: Sequence[Item]) -> Any:
        whole = self.fate()
        if whole == "down":
            return Trouble("cut", "before it", True)
        stuck: set[str] = set()
        results = [self._item(item, stuck) for item in items]
        return Trouble("cut", "behind it", True) if whole == "lost" else results

    def _taken(self) -> set[bytes]:
        return {data for journal in self.journals.values() for data in journal}

    def _item(self, item: Item, stuck: set[str]) -> Result:
        if item.stream in stuck:
            return Trouble("not_tried", "", False)
        fate = self.fate()
        if (fate == "no" and item.data not in self._taken()) or item.data in self._refused:
            self._refused.add(item.data)  # for the same again is refused again
            return Refused("too_deep", "", of_item=True)
        if fate == "later":
            stuck.add(item.stream)
            return Trouble("too_fast", "", False)
        if fate == "down":
            stuck.add(item.stream)
            return Trouble("broker_down", "", True)
        known = self._keys.get((item.stream, item.key)) if item.key else None
        if known is None:
            journal = self.journals[item.stream]
            journal.append(item.data)
            known = Position(item.stream, "e", len(journal))
            if item.key:
                self._keys[item.stream, item.key] = known
        if fate == "lost":
            stuck.add(item.stream)
            return Trouble("broker_down", "", True)
        return known


FATES = st.lists(st.sampled_from(["ok", "ok", "ok", "lost", "down", "no", "later"]), max_size=40)
PUSHES = st.lists(st.tuples(st.sampled_from(STREAMS), st.sampled_from([None, None, None, False])), max_size=12)


@given(FATES, PUSHES)
def test_each_stream_has_its_pushes_once_and_in_order(fates: list[str], asked: list[tuple[str, Any]]) -> None:
    gateway = Journals(fates)
    now = 0.0
    patience = Patience(30.0, 5.0, clock=lambda: now, chance=lambda: 0.5)
    calls = Calls(Rules(Limits()), gateway, lambda: patience, answers=True)
    call = calls.push_many([Push(group=group, data=n, key=key) for n, (group, key) in enumerate(asked)])
    positions: dict[int, Position | None]
    failures: dict[int, Refused | NotConfirmed] = {}
    answer: Any = None
    try:
        while True:
            step = call.send(answer)
            if isinstance(step, Send):
                assert step.timeout_s <= 5
                answer = gateway.answer(step.request)
            else:
                now += step.seconds
                answer = None
    except StopIteration as end:
        positions = dict(enumerate(end.value))
    except PushFailed as exc:
        positions, failures = exc.positions, exc.failures
    assert sorted([*positions, *failures]) == list(range(len(asked))), "each has a result"
    for stream, journal in gateway.journals.items():
        taken = [int(data) for data in journal]
        assert taken == sorted(set(taken)), "once, and in order"
        for n in taken:
            failure = failures.get(n)
            if isinstance(failure, NotConfirmed):
                assert failure.may_be_taken, "it was said that it may have been taken"
            elif failure is None:
                assert positions[n] == Position(stream, "e", taken.index(n) + 1)
    for n, position in positions.items():
        assert position is not None
        assert gateway.journals[position.stream][position.offset - 1] == str(n).encode()
    for n, failure in failures.items():
        if isinstance(failure, NotConfirmed) and failure.code != "not_tried":
            assert asked[n][1] is False, "with a key, and with time left, it is repeated until somebody says yes or no"


def test_pauses_grow_are_random_and_end_with_the_deadline() -> None:
    now = 0.0
    patience = Patience(30.0, 5.0, clock=lambda: now, chance=lambda: 1.0)
    trouble = Trouble("cut", "", True)
    pauses = []
    while (pause_s := patience.pause_s(trouble)) is not None:
        pauses.append(pause_s)
        now += pause_s
        assert patience.timeout_s == min(5.0, max(1.0, 30.0 - now))
    assert pauses[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert 25 < now < 30
    patience.renew()
    assert patience.pause_s(trouble) == 0.1


def test_retry_after_is_the_least_and_half_of_it_more_the_most() -> None:
    full = Trouble("full", "", False, 4.0)
    assert Patience(30.0, 5.0, chance=lambda: 0.0).pause_s(full) == 4.0
    assert Patience(30.0, 5.0, chance=lambda: 1.0).pause_s(full) == 6.0
    assert Patience(30.0, 5.0).pause_s(Trouble("full", "", False, 40.0)) is None, "it would be too late"


def test_no_attempt_begins_when_the_key_may_be_forgotten() -> None:
    assert LONGEST_S + 30 < KEY_AGE_S
