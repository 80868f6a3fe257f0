"""The ledger's own rules: what it must complain of, and what it must not. Each case is told in the order in which the
runner would see it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.faults.account import account
from tests.faults.ledger import Ledger, Push, Reader

STREAM = "group:a"
TOP = {STREAM: 1, "client:x": 0}
NOW_MS = 1_800_000_000_000  # of Redis
NEVER_CAME = ["x group:a: message 0 of p never came"]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def reader(ledger: Ledger) -> Reader:
    """Who follows ``STREAM`` from the beginning of its first journal."""
    reader = Reader("x", ledger)
    reader.take({"type": "welcome", "streams": {STREAM: {"epoch": "g1.e1", "offset": 0, "top": 0}}})
    return reader


def asked(ledger: Ledger) -> Push:
    push = ledger.push("p", "a")
    ledger.asked(push)
    return push


def reset(epoch: str, to: int = 0) -> dict[str, Any]:
    return {"type": "gap", "stream": STREAM, "epoch": epoch, "from": None, "to": to, "reason": "reset"}


def message(push: Push, epoch: str, offset: int) -> dict[str, Any]:
    return {"type": "message", "stream": STREAM, "epoch": epoch, "offset": offset, "time": 0, "data": push.data}


def complaints(ledger: Ledger, reader: Reader, *kept: Push) -> list[str]:
    """At the end, with these in the journal."""
    reader.settle(200, TOP, {STREAM: {push.id for push in kept}})
    return ledger.wrong


def test_a_push_whose_answer_is_read_behind_the_reset_for_its_loss_was_lost_in_the_flush(ledger, reader):
    push = asked(ledger)
    ledger.flushed(ledger.now_s(), NOW_MS)
    reader.take(reset("g2.e1"))
    ledger.accepted(push)
    assert complaints(ledger, reader) == []


@pytest.mark.parametrize(("entry", "complaint"), [(f"{NOW_MS}-0", []), (f"{NOW_MS + 1}-0", NEVER_CAME)])
def test_the_id_of_an_entry_says_on_which_side_of_a_flush_it_was_accepted(ledger, reader, entry, complaint):
    push = asked(ledger)
    ledger.flushed(ledger.now_s(), NOW_MS)
    reader.take(reset("g2.e1"))
    ledger.accepted(push, entry=entry)
    assert complaints(ledger, reader) == complaint


def test_what_was_asked_before_a_flush_and_accepted_after_it_must_come_if_it_is_in_the_journal(ledger, reader):
    push = asked(ledger)
    ledger.flushed(ledger.now_s(), NOW_MS)
    reader.take(reset("g2.e1"))
    ledger.accepted(push)
    assert complaints(ledger, reader, push) == NEVER_CAME


def test_what_was_accepted_in_the_last_epoch_must_come(ledger, reader):
    push = asked(ledger)
    ledger.flushed(ledger.now_s(), NOW_MS)
    reader.take(reset("g2.e1"))
    ledger.accepted(push, ("g2.e1", 1))
    assert complaints(ledger, reader) == NEVER_CAME


def test_what_was_asked_after_the_flush_must_come_although_the_reset_is_told_later(ledger, reader):
    ledger.flushed(ledger.now_s(), NOW_MS)
    push = asked(ledger)
    ledger.accepted(push)
    reader.take(reset("g2.e1"))
    assert complaints(ledger, reader) == NEVER_CAME


def test_a_flush_that_a_client_was_not_told_of_excuses_nothing(ledger, reader):
    push = asked(ledger)
    ledger.accepted(push)
    ledger.flushed(ledger.now_s(), NOW_MS)
    assert complaints(ledger, reader) == NEVER_CAME


def test_a_reset_that_leaves_the_journal_as_it_was_excuses_nothing(ledger, reader):
    push = asked(ledger)
    ledger.accepted(push)
    ledger.resets_allowed_s.append(ledger.now_s())
    reader.take(reset("g2.e1"))
    assert complaints(ledger, reader) == NEVER_CAME


def test_a_reset_that_goes_on_behind_what_a_client_had_excuses_what_is_no_longer_kept(ledger, reader):
    push = asked(ledger)
    ledger.accepted(push)
    ledger.resets_allowed_s.append(ledger.now_s())
    reader.take(reset("g2.e1", to=1))
    assert complaints(ledger, reader) == []


def test_an_account_has_all_that_is_known_of_a_message_that_never_came(ledger, reader):
    other = Reader("y", ledger)
    other.take({"type": "welcome", "streams": {STREAM: {"epoch": "g1.e1", "offset": 0, "top": 0}}})
    reader.visit("comes to node 2")
    push = asked(ledger)
    ledger.refused(push, "broker_down")
    ledger.asked(push)
    ledger.accepted(push, ("g1.e1", 1))
    other.take(message(push, "g1.e1", 1))
    assert complaints(ledger, reader) == NEVER_CAME
    line = '{"ts":"%s","level":"info","event":"redis.lost","node":"n1"}'
    nodes = [[line % _ts(ledger.begun_wall_s), "not JSON"]]
    text = account(ledger, [reader, other], nodes, ledger.missing[0])
    head, *lines = text.splitlines()
    assert head == "x group:a message 0, number 1 of p:"
    for known in [
        "comes to node 2",
        "asked",
        "refused: broker_down",
        "accepted as ('g1.e1', 1)",
        "came to y as g1.e1/1",
        "event=redis.lost node=n1",
    ]:
        assert [line for line in lines if line.endswith(known)], (known, text)


def _ts(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_who_reads_and_lacks_what_was_accepted_waits(ledger, reader):
    push = asked(ledger)
    reader.reads(True)
    assert reader.waits_s(push, 0) == 0  # not accepted yet
    ledger.begun_s -= 10  # ten seconds go by
    ledger.accepted(push, ("g1.e1", 1))
    ledger.begun_s -= 5
    assert reader.waits_s(push, 0) == pytest.approx(5, abs=0.5)
    assert reader.waits_s(push, ledger.now_s() - 2) == pytest.approx(2, abs=0.5)
    assert reader.waits_s(push, float("inf")) == 0
    reader.reads(False)
    assert reader.waits_s(push, 0) == 0
    reader.reads(True)
    ledger.begun_s -= 3
    assert reader.waits_s(push, 0) == pytest.approx(3, abs=0.5)
    reader.take(message(push, "g1.e1", 1))
    ledger.begun_s -= 3
    assert reader.waits_s(push, 0) == 0


def test_a_message_that_is_not_what_was_pushed_is_complained_of(ledger, reader):
    push = ledger.push("p", "a", 10)
    event = message(push, "g1.e1", 1)
    event["data"]["fill"] = event["data"]["fill"][1:]
    reader.take(event)
    assert ledger.wrong == ["x group:a: message 0 is not what was pushed"]
