"""What every broker promises of the word by which a message is conflated: it goes wherever the message goes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from tests.brokers.contract import Heard
from tests.support import eventually
from tidegate.brokers.contract import Broker
from tidegate.core.model import Message, Position, Publication

WORDS = (None, "north", None, "x" * 128, "A.b_c@-9")
CLIENTS = (None, None, "bob", "bob", None)


class Words:
    """For a test class that is a ``Contract`` as well."""

    node: Callable[..., contextlib.AbstractAsyncContextManager[tuple[Broker, Heard]]]

    async def test_the_word_of_a_message_is_heard_and_kept_with_it(self):
        async with self.node() as (broker, heard):
            before = await broker.subscribe("group:a")
            publications = [
                Publication("group:a", b"%d" % number, None, client, word)
                for number, (word, client) in enumerate(zip(WORDS, CLIENTS, strict=True))
            ]
            assert all(isinstance(answer, Position) for answer in await broker.publish(publications))
            await eventually(lambda: len(heard.events) == len(WORDS))
            kept = await broker.history("group:a", None, messages=10, size=10_000)
            page = await broker.history("group:a", before, messages=10, size=10_000)
            for messages in (heard.events, kept.messages, page.messages):
                said = [(event.conflate, event.client) for event in messages if isinstance(event, Message)]
                assert said == list(zip(WORDS, CLIENTS, strict=True))

    async def test_a_repetition_with_its_key_is_the_first_message_with_the_first_word(self):
        async with self.node() as (broker, _):
            (first,) = await broker.publish([Publication("group:a", b"1", "k", None, "north")])
            assert await broker.publish([Publication("group:a", b"1", "k", None, "south")]) == [first]
            kept = await broker.history("group:a", None, messages=10, size=10_000)
            assert [message.conflate for message in kept.messages] == ["north"]
