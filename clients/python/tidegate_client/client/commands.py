"""Commands that wait for their answer, and what becomes of them when a connection ends. Source: clients/README.md, The
machine, 9 and 10."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tidegate_client.client.errors import AnswerTimeout, ClientError, CommandRefused, UnknownOutcome
from tidegate_client.client.model import Limits
from tidegate_client.client.timing import Deadline


class Sends(Protocol):
    def send(self, text: str) -> None: ...


@dataclass(eq=False)
class _Command:
    number: int
    text: str
    size: int
    data_size: int
    repeats: bool
    answer: asyncio.Future[dict[str, Any]]
    sent_by: Sends | None = None


class Commands:
    def __init__(self, answer_timeout_s: float) -> None:
        self.limits = Limits()
        self._timeout_s = answer_timeout_s
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Command] = {}
        self._link: Sends | None = None

    def next_number(self) -> int:
        """An id that no other command of this client has."""
        return next(self._numbers)

    async def ask(
        self, kind: str, *, repeats: bool, data: Any = None, has_data: bool = False, **keys: Any
    ) -> dict[str, Any]:
        """The answer to a command, as the gateway sent it; ``keys`` that are None are left out. ``repeats``: it may
        be sent again after a cut. Raises CommandRefused, UnknownOutcome, AnswerTimeout, and what ``end`` was given;
        ValueError for data that is no JSON."""
        number = self.next_number()
        command = {"type": kind, "id": number} | {key: value for key, value in keys.items() if value is not None}
        text, data_size = to_json(command), 0
        if has_data:
            data_text = to_json(data)
            data_size = len(data_text.encode())
            text = f'{text[:-1]},"data":{data_text}}}'
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        waiting = _Command(number, text, len(text.encode()), data_size, repeats, answer)
        if (refusal := self._too_large(waiting)) is not None:
            raise refusal
        self._waiting[number] = waiting
        deadline = Deadline(self._timeout_s, lambda: _fail(waiting, AnswerTimeout(f"no answer to {kind}")))
        self._send(waiting)
        try:
            reply = await answer
        finally:
            deadline.cancel()
            self._waiting.pop(number, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen, also where this task was cancelled meanwhile
        if reply.get("type") == "error":
            raise CommandRefused(str(reply.get("code")), str(reply.get("message", "")))
        return reply

    def answered(self, event: Mapping[str, Any]) -> None:
        number = event.get("id")
        waiting = self._waiting.get(number) if type(number) is int else None
        if waiting is not None and waiting.sent_by is not None and not waiting.answer.done():
            waiting.answer.set_result(dict(event))

    def welcomed(self, link: Sends, limits: Limits) -> None:
        """From now on commands go there. Those that a former one has been given wait for its answer, until ``cut``."""
        self._link, self.limits = link, limits
        for waiting in list(self._waiting.values()):
            if waiting.sent_by is None:
                self._send(waiting)

    def awaits(self, link: Sends) -> bool:
        return any(waiting.sent_by is link and not waiting.answer.done() for waiting in self._waiting.values())

    def cut(self, link: Sends) -> None:
        """No answers will come from ``link`` any more."""
        if self._link is link:
            self._link = None
        for waiting in list(self._waiting.values()):
            if waiting.sent_by is not link:
                continue
            waiting.sent_by = None
            if waiting.repeats:
                self._send(waiting)
            else:
                _fail(waiting, UnknownOutcome("the connection broke before the answer came"))

    def end(self, error: Callable[[], ClientError]) -> None:
        for waiting in list(self._waiting.values()):
            _fail(waiting, error())

    def _send(self, waiting: _Command) -> None:
        if self._link is None or waiting.answer.done():
            return
        if (refusal := self._too_large(waiting)) is not None:
            _fail(waiting, refusal)
            return
        waiting.sent_by = self._link
        self._link.send(waiting.text)

    def _too_large(self, waiting: _Command) -> CommandRefused | None:
        for what, size, limit in (
            ("data", waiting.data_size, self.limits.data_bytes),
            ("the message", waiting.size, self.limits.message_bytes),
        ):
            if size > limit:
                return CommandRefused("too_large", f"{what} has {size} bytes; the limit is {limit}")
        return None


def to_json(value: Any) -> str:
    """Raises ValueError (or TypeError) for what is no JSON: NaN, half a surrogate pair."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    text.encode()
    return text


def _fail(waiting: _Command, error: ClientError) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
