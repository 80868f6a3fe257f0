"""Follows one message or one client across all nodes: asks the journal, asks every node (traced.py), and says in words
what comes of it (verdicts.py). Source: docs/decisions/0066."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from tidegate import log
from tidegate.brokers.contract import Broker
from tidegate.config.trace import TraceSettings
from tidegate.core.errors import BrokerDown, Refused
from tidegate.core.hub import Hub
from tidegate.core.model import Position
from tidegate.gateway import verdicts
from tidegate.gateway.step_words import words_of
from tidegate.gateway.traced import GOOD, Answer, Question, Traced, read_answer
from tidegate.gateway.verdicts import Asked, Journal, JournalState, Verdict
from tidegate.trace import Step, Trace

STREAMS = 20  # of a client, whose newest message is looked up
ONE = 1  # of what the journal still has, to learn where it begins


def make_trace(settings: TraceSettings) -> Trace:
    """What a node remembers by."""
    return Trace(messages=settings.messages * settings.enabled, steps=settings.steps * settings.enabled)


class Tracing:
    """Each method gives what the API answers. None raises where the broker is down: then this node answers alone."""

    def __init__(self, broker: Broker, trace: Trace, hub: Hub, node: str) -> None:
        self._broker = broker
        self._traced = Traced(trace, hub, node)
        broker.meet(self._traced)

    async def message(
        self, stream: str, epoch: str | None, offset: int | None, client: str | None, limit: int
    ) -> dict[str, Any]:
        """Of the message at this position: None for the present epoch, and for the newest message. Where a node
        remembers an epoch before it that had such an offset, that is meant if the present one has none, else said."""
        position, journal = await self._journal(stream, epoch, offset)
        asked = Question("message", limit, client, stream, position.epoch, position.offset, journal.time)
        asked.earlier = epoch is None and (journal.state == "none" or offset is not None)
        answers, silent = await self._ask(asked)
        earlier = [each for each in (answer.earlier for answer in answers) if each and each.offset >= position.offset]
        if earlier and journal.state == "none":
            position = Position(earlier[0].epoch, position.offset or earlier[0].offset)
            journal = Journal("reset", journal.top)
            answers, silent = await self._ask(
                Question("message", limit, client, stream, position.epoch, position.offset)
            )
        deliveries = [(answer.node, each) for answer in answers for each in answer.deliveries]
        counts = _summed(answer.counts for answer in answers)
        steps = _merged(answers)
        result = Asked(
            stream=stream,
            epoch=position.epoch,
            offset=position.offset,
            client=client,
            journal=journal,
            deliveries=[each for _, each in deliveries],
            counts=counts,
            steps=steps,
            followers=sum(answer.heard.followers for answer in answers if answer.heard is not None),
            not_heard=[answer.node for answer in answers if _is_behind(answer, position)] if journal.time else (),
            silent=silent,
            since_ms=max(answer.since_ms for answer in answers),
            connected=[each.connection for answer in answers for each in answer.connections],
        )
        deliveries.sort(key=lambda found: found[1].state in GOOD)
        timeline = sorted([*steps, *_of_message(result, answers)], key=lambda step: step.time_ms)[-limit:]
        return {
            "stream": stream,
            "epoch": position.epoch,
            "offset": position.offset,
            "journal": journal,
            "nodes": [
                {
                    "node": answer.node,
                    "answered": True,
                    "since_ms": answer.since_ms,
                    "follows": answer.follows,
                    "offset": answer.position and answer.position.offset,
                    "heard_ms": answer.heard and answer.heard.time_ms,
                    "followers": answer.heard and answer.heard.followers,
                }
                for answer in answers
            ]
            + _silent(silent),
            "connections": [
                {
                    "client": each.client,
                    "connection": each.connection,
                    "node": node,
                    "state": each.state,
                    "replayed": each.replayed,
                    "worker": each.worker,
                    "closed": each.ended_ms and {"time_ms": each.ended_ms, "code": each.code},
                }
                for node, each in deliveries[:limit]
            ],
            "counts": counts,
            "workers": _summed(answer.workers for answer in answers),
            "more": sum(counts.values()) > len(deliveries[:limit]),
            "verdicts": [*_off(answers), *verdicts.of_message(result), *verdicts.namesake(result, earlier)],
            "steps": [_shown(step) for step in timeline],
        }

    async def client(self, client: str, limit: int) -> dict[str, Any]:
        answers, silent = await self._ask(Question("client", limit, client))
        steps = _merged(answers)
        connections = [(answer.node, each) for answer in answers for each in answer.connections]
        return {
            "client": client,
            "connections": [
                {
                    "connection": each.connection,
                    "node": node,
                    "since_ms": each.since_ms,
                    "worker": each.worker,
                    "device": each.device,
                    "unsent_bytes": each.unsent_bytes,
                    "positions": each.positions,
                }
                for node, each in connections
            ],
            "verdicts": [
                *_off(answers),
                *await self._behind(client, answers, steps),
                *verdicts.of_client(client, [each.connection for _, each in connections], steps, silent),
            ],
            "nodes": _answered(answers) + _silent(silent),
            "steps": [_shown(step) for step in steps[-limit:]],
        }

    async def _behind(self, client: str, answers: Sequence[Answer], steps: Sequence[Step]) -> list[Verdict]:
        """Of each of its connections, or where there is none of the one that ended last."""
        places = {
            each.connection: {stream: Position(at.epoch, at.offset) for stream, at in each.positions.items()}
            for answer in answers
            for each in answer.connections
        }
        if not places:
            ended = [step for step in steps if step.kind == "ended" and step.client == client]
            places = {str(step.connection): step.streams or {} for step in ended[-1:]}
        tops: dict[str, Position] = {}
        for stream in list({stream: None for place in places.values() for stream in place})[:STREAMS]:
            with contextlib.suppress(Refused):
                tops[stream] = await self._broker.top(stream)
        return [each for name, place in places.items() for each in verdicts.behind(client, name, place, tops)]

    async def refusals(self, limit: int) -> dict[str, Any]:
        """Refused handshakes, newest first."""
        answers, silent = await self._ask(Question("refusals", limit))
        return {
            "refusals": [
                {
                    "time_ms": step.time_ms,
                    "node": step.node,
                    "status": step.status,
                    "code": step.code,
                    "message": step.message,
                    "client": step.client,
                    "claimed": step.client is not None,
                    "address": step.address,
                }
                for step in reversed(_merged(answers)[-limit:])
            ],
            "nodes": _answered(answers) + _silent(silent),
        }

    async def _journal(self, stream: str, epoch: str | None, offset: int | None) -> tuple[Position, Journal]:
        """Where the message is, and what the journal says of it."""
        try:
            newest = await self._broker.top(stream)
            position = Position(epoch or newest.epoch, newest.offset if offset is None else offset)
            if position.epoch != newest.epoch:
                return position, Journal("reset", newest.offset)
            if not 0 < position.offset <= newest.offset:
                return position, Journal("none", newest.offset)
            message = await self._broker.entry(stream, position)
            if message is None:
                page = await self._broker.history(stream, None, messages=ONE, size=ONE)
                state: JournalState = "trimmed" if page.start.epoch == position.epoch else "reset"
                return position, Journal(state, page.top, page.start.offset + 1)
        except Refused as exc:
            known = await self._traced.place(stream)
            place = Position(epoch or known.epoch, known.offset if offset is None else offset)
            return place, Journal("unknown", error=exc.message)
        return position, Journal(
            "kept",
            newest.offset,
            time=message.time_ms,
            bytes=len(message.data),
            client=message.client,
            traceparent=message.traceparent,
        )

    async def _ask(self, question: Question) -> tuple[list[Answer], list[str]]:
        """What all nodes answer, this one first, and those that do not."""
        raw: dict[str, bytes | None] = {}
        try:
            if question.client is not None:
                await self._broker.connections(question.client)  # those of a node that died are found by that
            raw = await self._broker.ask(msgspec.json.encode(question))
        except BrokerDown as exc:
            log.info("trace.alone", error=str(exc))
        answers = [await self._traced.answer(question)]
        silent: list[str] = []
        for node, said in raw.items():
            try:
                if said is None:
                    raise msgspec.DecodeError("no answer")
                answers.append(read_answer(said))
            except msgspec.MsgspecError:
                silent.append(node)
        return answers, silent


def _is_behind(answer: Answer, position: Position) -> bool:
    """It follows the stream, and has not heard the message."""
    at = answer.position
    return answer.follows and at is not None and at.epoch == position.epoch and at.offset < position.offset


def _summed(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for some in counts:
        total.update(some)
    return dict(total)


def _off(answers: Sequence[Answer]) -> list[Verdict]:
    """Nodes that remember nothing."""
    words = "node {} remembers nothing, because trace.enabled is false there: what follows is what it sees now"
    return [Verdict("off", words.format(answer.node)) for answer in answers if answer.off]


def _merged(answers: Sequence[Answer]) -> list[Step]:
    """All their steps, each with its node, in the order of their times."""
    steps = [msgspec.structs.replace(step, node=answer.node) for answer in answers for step in answer.steps]
    return sorted(steps, key=lambda step: step.time_ms)


def _of_message(asked: Asked, answers: Sequence[Answer]) -> list[Step]:
    """The message's own steps, for the timeline."""
    where = {"stream": asked.stream, "epoch": asked.epoch, "offset": asked.offset}
    steps = [
        Step(time_ms=answer.heard.time_ms, kind="heard", node=answer.node, code=answer.heard.followers, **where)  # type: ignore[arg-type]
        for answer in answers
        if answer.heard is not None
    ]
    if asked.journal.time is not None:
        steps.insert(0, Step(time_ms=asked.journal.time, kind="journalled", **where))  # type: ignore[arg-type]
    return steps


def _answered(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    return [{"node": answer.node, "answered": True, "since_ms": answer.since_ms} for answer in answers]


def _silent(nodes: Sequence[str]) -> list[dict[str, Any]]:
    return [{"node": node, "answered": False, "since_ms": None} for node in nodes]


def _shown(step: Step) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(step)
    return {"time_ms": step.time_ms, "node": step.node or None, "kind": step.kind, "words": words_of(step), **fields}
