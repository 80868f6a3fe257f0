"""The record of a scene: what it complains of."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.application import Record
from tests.faults.ledger import Ledger

JOINED = {"heard": "joined", "stream": "group:g", "offset": 4}


def message(id: int, offset: int, epoch: str = "e") -> dict[str, Any]:
    return {"heard": "message", "stream": "group:g", "epoch": epoch, "offset": offset, "data": {"id": id}}


def gap(first: int | None, last: int, reason: str, epoch: str = "e") -> dict[str, Any]:
    return {"heard": "gap", "stream": "group:g", "epoch": epoch, "from": first, "to": last, "reason": reason}


def complaints(*lines: dict[str, Any], pushes: int = 3, kept: frozenset[int] = frozenset()) -> list[str]:
    """Of one client who was told these ``lines``, when the messages 0, 1, … were pushed to offsets 5, 6, …"""
    ledger = Ledger()
    record = Record("alice", ledger)
    record.take(JOINED)
    for id in range(pushes):
        push = ledger.push("w", "g")
        ledger.asked(push)
        ledger.accepted(push, ("e", 5 + id))
    for line in lines:
        record.take(line)
    record.settle(100, {"group:g": 4 + pushes}, {"group:g": set(kept)})
    return ledger.wrong


@pytest.mark.parametrize(
    "lines",
    [
        [message(0, 5), message(1, 6), message(2, 7)],
        [message(0, 5), JOINED, message(1, 6), JOINED, message(2, 7)],
        [message(0, 5), gap(None, 6, "reset", "f"), message(2, 7, "f")],
    ],
)
def test_what_is_told_once_and_in_order_or_by_a_gap_is_right(lines: list[dict[str, Any]]) -> None:
    assert [text for text in complaints(*lines) if "although Redis lost nothing" not in text] == []


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([message(0, 5), message(2, 7)], "after e/5 came e/7"),
        ([message(0, 5), message(0, 5), message(1, 6), message(2, 7)], "came twice"),
        ([message(1, 6), message(0, 5), message(2, 7)], "after e/4 came e/6"),
        ([message(0, 5), message(1, 6)], "message 2 of w never came"),
        ([message(0, 5), gap(6, 6, "hole"), message(2, 7)], "none that this gateway could be the reason of"),
        ([message(0, 5), gap(6, 6, "expired"), message(2, 7)], "said to be expired up to 6"),
        ([message(0, 5), gap(None, 4, "reset", "f"), message(1, 5, "f"), message(2, 6, "f")], "a reset, although"),
        ([message(1, 5), message(0, 6), message(2, 7)], "stands for"),
    ],
)
def test_what_is_lost_repeated_or_out_of_order_is_complained_of(lines: list[dict[str, Any]], complaint: str) -> None:
    assert any(complaint in text for text in complaints(*lines)), complaints(*lines)


def test_what_comes_before_the_join_is_complained_of() -> None:
    ledger = Ledger()
    Record("alice", ledger).take(message(0, 5))
    assert "before it was joined" in ledger.wrong[0]
