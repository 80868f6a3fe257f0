"""What one node asks of all others, and what they answer: over pub/sub, and stored nowhere.

A question goes out on the channel on which nodes hear of orders; a node of a version that knows of no questions takes
it for a wake-up, and does not answer. Answers come on a channel of the node that asks, which it begins to hear with its
first question. Who is not heard in time, or was not hearing, has not answered.
"""

from __future__ import annotations

import asyncio
import itertools

import msgspec

from tidegate import log
from tidegate.brokers.contract import ANSWER_S, Neighbour
from tidegate.brokers.redis.membership import ClusterMembership
from tidegate.brokers.redis.pubsub import PubSub
from tidegate.core.errors import BrokerDown, InternalError
from tidegate.tasks import Tasks

MARK = b"?"  # before a question; an order's wake-up is empty, a roster's a word
AT_ONCE = 8  # questions of others that are being answered


class _Question(msgspec.Struct):
    number: int
    channel: str  # for the answer
    asked: msgspec.Raw


class _Answer(msgspec.Struct):
    number: int
    node: str
    said: msgspec.Raw


class Questions:
    def __init__(self, membership: ClusterMembership, wakeups: PubSub, tasks: Tasks) -> None:
        self.channel = membership.keys.answers_channel.encode()
        self.neighbour: Neighbour | None = None
        self._membership = membership
        self._wakeups = wakeups
        self._tasks = tasks
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[dict[str, bytes | None], asyncio.Event]] = {}
        self._begins: asyncio.Lock = asyncio.Lock()
        self._hears = False
        self._answering = 0

    async def ask(self, question: bytes) -> dict[str, bytes | None]:
        """By node; None: no answer in time. Raises BrokerDown."""
        membership = self._membership
        async with self._begins:
            if not self._hears:
                await self._wakeups.add(self.channel)
                self._hears = True
        try:
            known = await membership.known_nodes()
        except InternalError as exc:
            raise BrokerDown(exc.message) from exc
        answers: dict[str, bytes | None] = {info.node: None for info in known if info.node != membership.node}
        if not answers:
            return answers
        number, all_said = next(self._numbers), asyncio.Event()
        self._waiting[number] = answers, all_said
        try:
            raw = msgspec.json.encode(_Question(number, membership.keys.answers_channel, msgspec.Raw(question)))
            await membership.commands(("PUBLISH", membership.keys.nodes_channel, MARK + raw))
            async with asyncio.timeout(ANSWER_S):
                await all_said.wait()
        except TimeoutError:
            pass  # with those that are there
        except InternalError as exc:
            raise BrokerDown(exc.message) from exc
        finally:
            del self._waiting[number]
        return answers

    def on_question(self, payload: bytes) -> None:
        """Another node's, or this one's own. Too many at once go without an answer."""
        try:
            question = msgspec.json.decode(payload[len(MARK) :], type=_Question)
        except msgspec.MsgspecError:
            return  # of another version of this program
        if self.neighbour is None or question.channel == self._membership.keys.answers_channel:
            return
        if self._answering < AT_ONCE:
            self._answering += 1
            self._tasks.spawn(self._answer(self.neighbour, question), "answer")

    async def _answer(self, neighbour: Neighbour, question: _Question) -> None:
        try:
            said = await neighbour.on_question(bytes(question.asked))
            raw = msgspec.json.encode(_Answer(question.number, self._membership.node, msgspec.Raw(said)))
            await self._membership.commands(("PUBLISH", question.channel, raw))
        except msgspec.MsgspecError as exc:
            log.info("question.not_understood", error=str(exc))  # of another version of this program
        except (BrokerDown, InternalError):
            pass  # who asked does not wait
        finally:
            self._answering -= 1

    def on_answer(self, payload: bytes) -> None:
        try:
            answer = msgspec.json.decode(payload, type=_Answer)
        except msgspec.MsgspecError:
            return
        waiting = self._waiting.get(answer.number)
        if waiting is None:
            return  # too late
        answers, all_said = waiting
        answers[answer.node] = bytes(answer.said)
        if None not in answers.values():
            all_said.set()
