"""What every broker promises of the word by which a message is conflated: it goes wherever the message goes. And of the
span that pushed it: the journal has it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from tests.brokers.contract import Heard
from tests.support import eventually
from tidegate.brokers.contract import Broker
from tidegate.core.model import Message, Position, Publication

WORDS = (None, "north", None, "x" * 128, "A.b_c@-9")
CLIENTS = (None, None, "bob", "bob", None)
SPAN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


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

    async def test_the_span_that_pushed_a_message_is_kept_with_it_for_who_asks_the_journal(self):
        async with self.node() as (broker, heard):
            await broker.subscribe("group:a")
            asked = [
                Publication("group:a", b"1", None, None, None, SPAN),
                Publication("group:a", b"2", None, "bob", "north", SPAN),
                Publication("group:a", b"3", None, None, "south"),
            ]
            positions = await broker.publish(asked)
            await eventually(lambda: len(heard.events) == len(asked))
            for publication, position in zip(asked, positions, strict=True):
                assert isinstance(position, Position)
                kept = await broker.entry("group:a", position)
                assert kept is not None
                assert (kept.epoch, kept.offset) == (position.epoch, position.offset)
                for name in ("stream", "data", "client", "conflate", "traceparent"):
                    assert getattr(kept, name) == getattr(publication, name)
            page = await broker.history("group:a", None, messages=10, size=10_000)
            for messages in (heard.events, page.messages):
                said = [(event.conflate, event.client) for event in messages if isinstance(event, Message)]
                assert said == [(publication.conflate, publication.client) for publication in asked]
            last = positions[-1]
            assert isinstance(last, Position)
            for gone in (Position(last.epoch, 4), Position(last.epoch, 0), Position("another", 1)):
                assert await broker.entry("group:a", gone) is None
            assert await broker.entry("group:never", last) is None
