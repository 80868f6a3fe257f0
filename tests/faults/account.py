"""What is known of one message that a client never got, by time: enough to tell a fault of the gateway from one of the
runner without a second run, which would not be the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime

from tests.faults.ledger import Ledger, Push, Reader

BEFORE_S = 3.0  # of the first time that it was asked for
AFTER_S = 10.0
NEIGHBOURS = 3  # messages of its stream that came before, and after
TOLD_OF = ("redis.", "ingress.", "broker.", "service.")  # by a node's log


def account(ledger: Ledger, readers: Iterable[Reader], nodes: Iterable[Sequence[str]], at: tuple[Reader, Push]) -> str:
    """``nodes`` are the lines that each has logged; ``at``: who lacks which message."""
    reader, push = at
    known = _of_push(ledger, push) + _of_others(readers, reader, push) + _of_reader(reader, push)
    first_s = min([push.asked_s, *(asked_s for asked_s, _, _ in push.refusals)])
    known += [
        (second, text)
        for second, text in [*reader.visits, *_of_nodes(ledger, nodes)]
        if first_s - BEFORE_S <= second <= first_s + AFTER_S
    ]
    head = f"{reader.name} {push.stream} message {push.id}, number {push.number} of {push.pusher}:"
    return "\n".join([head, *(f"{second:9.3f} {text}" for second, text in sorted(known))])


def _of_push(ledger: Ledger, push: Push) -> list[tuple[float, str]]:
    known = []
    for asked_s, answered_s, text in push.refusals:
        known += [(asked_s, "asked"), (answered_s, f"refused: {text}")]
    known.append((push.asked_s, "asked"))
    if push.accepted_s is not None:
        known.append((push.accepted_s, f"accepted as {push.position or push.entry}"))
    for flush in ledger.flushes:
        known += [(flush.begun_s, "a flush begins"), (flush.end_s, f"a flush has ended, done at {flush.redis_ms}")]
    return known


def _of_others(readers: Iterable[Reader], reader: Reader, push: Push) -> list[tuple[float, str]]:
    known = []
    for other in readers:
        told = other.told.get(push.stream)
        if told is None or other is reader:
            continue
        if push.id in told.heard:
            second, epoch, offset = told.heard[push.id]
            known.append((second, f"came to {other.name} as {epoch}/{offset}"))
        else:
            known += [(reset_s, f"a reset for {other.name}, to whom it never came either") for reset_s in told.resets_s]
    return known


def _of_reader(reader: Reader, push: Push) -> list[tuple[float, str]]:
    told = reader.told[push.stream]
    heard = sorted(
        (second, f"message {id} came as {epoch}/{offset}") for id, (second, epoch, offset) in told.heard.items()
    )
    before = [line for line in heard if line[0] <= push.asked_s]
    after = [line for line in heard if line[0] > push.asked_s]
    return [*told.history, *before[-NEIGHBOURS:], *after[:NEIGHBOURS]]


def _of_nodes(ledger: Ledger, nodes: Iterable[Sequence[str]]) -> Iterable[tuple[float, str]]:
    for lines in nodes:
        for line in lines:
            if line.startswith("{"):
                record = json.loads(line)
                if record["event"].startswith(TOLD_OF):
                    second = datetime.fromisoformat(record.pop("ts")).timestamp() - ledger.begun_wall_s
                    yield second, " ".join(f"{name}={value}" for name, value in record.items() if name != "level")
