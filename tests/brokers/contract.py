"""What every broker promises (``brokers/contract.py``). A test module has a class of its own that inherits ``Contract``
and says how a broker is made."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.support import eventually
from tidegate.brokers.contract import Broker, CloseOrder, MembershipOrder, Order
from tidegate.core.errors import KeyReused, TooManyGroups
from tidegate.core.model import ConnectionInfo, Gap, History, Message, NodeInfo, Position, Publication, Retention

WIDE = Retention(1000, 3600)


class Heard:
    """A receiver that remembers: ``events`` of streams in their order, ``orders``."""

    def __init__(self) -> None:
        self.events: list[Message | Gap] = []
        self.moved: dict[str, list[Position]] = {}
        self.orders: list[Order] = []
        self.positions: dict[str, Position] = {}  # where a gap said that the stream goes on

    def on_message(self, message: Message) -> None:
        self.events.append(message)

    def on_gap(self, gap: Gap, position: Position) -> None:
        self.events.append(gap)
        self.positions[gap.stream] = position

    def on_moved(self, stream: str, position: Position) -> None:
        self.moved.setdefault(stream, []).append(position)

    def on_order(self, order: Order) -> None:
        self.orders.append(order)

    def of(self, stream: str) -> list[Message | Gap]:
        return [event for event in self.events if event.stream == stream]

    def data(self, stream: str) -> list[bytes]:
        return [event.data for event in self.of(stream) if isinstance(event, Message)]

    def offsets(self, stream: str) -> list[int]:
        return [event.offset for event in self.of(stream) if isinstance(event, Message)]

    def gaps(self, stream: str) -> list[Gap]:
        return [event for event in self.of(stream) if isinstance(event, Gap)]


def info(node: str, **changes: Any) -> NodeInfo:
    fields: dict[str, Any] = {
        "version": "1.0",
        "started_ms": 1,
        "connections": 0,
        "draining": False,
        "lag_ms": None,
    }
    return NodeInfo(node, **(fields | changes))


def connection(name: str, client: str, *groups: str) -> ConnectionInfo:
    return ConnectionInfo(name, name.rpartition("-")[0], client, 1, groups)


async def push(broker: Broker, stream: str, *data: bytes, **options: Any) -> list[Position]:
    """Their positions; all must be accepted."""
    answers = await broker.publish([Publication(stream, item, **options) for item in data])
    assert all(isinstance(answer, Position) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, Position)]


class Contract:
    """``make(node, retention, meta_age_s)`` gives a broker that was not started. ``stored``: what it keeps, to compare,
    without what a node says of itself. ``age``: half of the common epoch's time passes; ``outlast``: the other half
    too; ``expire``: so much time passes that the stream is forgotten. ``lapse``: so many seconds pass for what is
    kept for a time, the common epoch aside."""

    make: Callable[..., Broker]
    stored: Callable[[Broker], Any]
    age: Callable[[Broker], Awaitable[None]]
    outlast: Callable[[Broker], Awaitable[None]]
    expire: Callable[[Broker, str], Awaitable[None]]
    lapse: Callable[[Broker, float], Awaitable[None]]

    @contextlib.asynccontextmanager
    async def node(self, name: str = "n1", **options: Any) -> AsyncIterator[tuple[Broker, Heard]]:
        broker, heard = self.make(name, **options), Heard()
        await broker.start(heard, info(name))
        try:
            yield broker, heard
        finally:
            await broker.stop()

    # Publishing

    async def test_offsets_are_dense_and_start_at_one(self):
        async with self.node() as (broker, _):
            positions = await push(broker, "group:news", b"1", b"2") + await push(broker, "group:news", b"3")
            assert [position.offset for position in positions] == [1, 2, 3]
            assert len({position.epoch for position in positions}) == 1

    async def test_the_first_push_continues_the_epoch_that_was_told_before_it(self):
        async with self.node() as (broker, _):
            top = await broker.top("group:news")
            assert top.offset == 0
            assert await push(broker, "group:news", b"1") == [Position(top.epoch, 1)]
            assert await broker.top("group:news") == Position(top.epoch, 1)

    async def test_a_batch_answers_each_of_its_items_in_order(self):
        async with self.node() as (broker, _):
            answers = await broker.publish(
                [Publication("group:a", b"1"), Publication("client:x", b"2"), Publication("group:a", b"3")]
            )
            assert [answer.offset for answer in answers if isinstance(answer, Position)] == [1, 1, 2]
            assert await broker.publish([]) == []

    async def test_a_key_makes_a_push_happen_once(self):
        async with self.node() as (broker, heard):
            await broker.subscribe("group:a")
            first = await push(broker, "group:a", b"1", key="k")
            assert await push(broker, "group:a", b"1", b"1", key="k") == first * 2
            await push(broker, "group:a", b"2")
            await eventually(lambda: heard.data("group:a") == [b"1", b"2"])

    async def test_a_key_is_of_its_stream(self):
        async with self.node() as (broker, _):
            await push(broker, "group:a", b"1", key="k")
            assert [position.offset for position in await push(broker, "group:b", b"2", key="k")] == [1]

    async def test_a_key_with_another_body_is_refused_and_stops_nothing(self):
        async with self.node() as (broker, _):
            await push(broker, "group:a", b"1", key="k")
            reused, other = await broker.publish([Publication("group:a", b"2", "k"), Publication("group:a", b"3")])
            assert isinstance(reused, KeyReused)
            assert isinstance(other, Position)
            assert other.offset == 2

    async def test_a_key_is_known_for_five_minutes_and_no_longer(self):
        async with self.node() as (broker, _):
            first = await push(broker, "group:a", b"1", key="k")
            await self.lapse(broker, 290)
            assert await push(broker, "group:a", b"1", key="k") == first
            await self.lapse(broker, 11)
            assert [position.offset for position in await push(broker, "group:a", b"1", key="k")] == [2]
            (other,) = await broker.publish([Publication("group:a", b"2", "k")])
            assert isinstance(other, KeyReused), "and it is a key anew"

    # Where a stream begins

    async def test_asking_for_streams_that_have_no_message_stores_nothing(self):
        async with self.node() as (broker, _):
            await push(broker, "group:some", b"1")
            before = self.stored(broker)
            for i in range(20):
                stream = f"group:{i}"
                position = await broker.subscribe(stream)
                assert await broker.top(stream) == position
                for since in (None, position, Position("other", 3)):
                    await broker.history(stream, since, messages=10, size=1000)
                await broker.unsubscribe(stream)
                assert (await broker.history(stream, position, messages=10, size=1000)).gap is None
            assert self.stored(broker) == before

    async def test_streams_begin_in_one_epoch_and_each_takes_it_over(self):
        async with self.node() as (broker, _):
            a, b = await broker.top("group:a"), await broker.top("group:b")
            assert a == b
            assert await push(broker, "group:a", b"1") == await push(broker, "group:b", b"1") == [Position(a.epoch, 1)]
            page = await broker.history("group:a", a, messages=10, size=1000)
            assert (page.start, page.gap, [message.data for message in page.messages]) == (a, None, [b"1"])

    @pytest.mark.parametrize("pushed", [False, True])
    async def test_a_beginning_is_continued_after_the_common_epoch_has_changed(self, pushed):
        async with self.node() as (broker, _):
            told = await broker.top("group:a")
            await self.age(broker)
            begun = await broker.top("group:a")
            assert (begun.epoch == told.epoch, begun.offset) == (False, 0)
            if pushed:
                assert await push(broker, "group:a", b"1") == [Position(begun.epoch, 1)]
            for since in (told, begun):
                page = await broker.history("group:a", since, messages=10, size=1000)
                assert (page.start, page.gap, page.top) == (begun, None, int(pushed))
            above = await broker.history("group:a", Position(told.epoch, 1), messages=10, size=1000)
            assert above.gap == Gap("group:a", begun.epoch, None, 0, "reset")

    async def test_a_beginning_of_which_nothing_can_be_known_any_more_is_a_reset(self):
        async with self.node() as (broker, _):
            told = await broker.top("group:a")
            await self.age(broker)
            await self.outlast(broker)
            begun = await broker.top("group:a")
            page = await broker.history("group:a", told, messages=10, size=1000)
            assert page.gap == Gap("group:a", begun.epoch, None, 0, "reset")

    async def test_a_follower_is_moved_to_the_new_common_epoch_and_misses_nothing(self):
        async with self.node() as (broker, heard):
            await broker.subscribe("group:a")
            (pushed,) = await push(broker, "group:pushed", b"0")
            await broker.subscribe("group:pushed")
            await self.age(broker)
            begun = await broker.top("group:other")
            await eventually(lambda: heard.moved == {"group:a": [begun]})
            assert await broker.top("group:a") == begun
            assert await push(broker, "group:a", b"1", b"2") == [Position(begun.epoch, 1), Position(begun.epoch, 2)]
            assert await push(broker, "group:pushed", b"1") == [Position(pushed.epoch, 2)]
            await eventually(lambda: (heard.data("group:a"), heard.data("group:pushed")) == ([b"1", b"2"], [b"1"]))
            assert (heard.gaps("group:a"), heard.gaps("group:pushed")) == ([], [])

    async def test_a_push_right_after_the_common_epoch_has_changed_is_heard_without_a_gap(self):
        async with self.node() as (broker, heard):
            for round in range(5):
                stream = f"group:{round}"
                told = await broker.subscribe(stream)
                await self.age(broker)
                (position,) = await push(broker, stream, b"1")
                await eventually(functools.partial(heard.data, stream))
                assert heard.gaps(stream) == []
                known = [told.epoch, *(moved.epoch for moved in heard.moved.get(stream, []))]
                assert known[-1] == position.epoch

    async def test_a_stream_that_was_forgotten_begins_in_an_epoch_that_it_never_had(self):
        async with self.node() as (broker, _):
            positions = await push(broker, "group:a", b"1", b"2")
            await self.age(broker)
            await self.outlast(broker)
            await self.expire(broker, "group:a")
            begun = await broker.top("group:a")
            assert (begun.offset, begun.epoch == positions[0].epoch) == (0, False)
            for since in (Position(positions[0].epoch, 0), *positions):
                assert (await broker.history("group:a", since, messages=10, size=1000)).gap is not None
            assert await push(broker, "group:a", b"3") == [Position(begun.epoch, 1)]

    async def test_a_stream_is_known_for_its_time_after_its_messages_are_gone_and_then_has_another_epoch(self):
        async with self.node(retention=Retention(10, 20), meta_age_s=1000) as (broker, _):
            (position,) = await push(broker, "group:a", b"1")
            await self.age(broker)
            await self.outlast(broker)
            await self.lapse(broker, 21)
            assert await broker.top("group:a") == position
            page = await broker.history("group:a", Position(position.epoch, 0), messages=10, size=100)
            assert page.gap == Gap("group:a", position.epoch, 1, 1, "expired")
            await self.lapse(broker, 1021)
            begun = await broker.top("group:a")
            assert (begun.offset, begun.epoch == position.epoch) == (0, False)
            page = await broker.history("group:a", position, messages=10, size=100)
            assert page.gap == Gap("group:a", begun.epoch, None, 0, "reset")

    # Following

    async def test_a_follower_hears_what_comes_after_its_position_byte_for_byte(self):
        async with self.node() as (broker, heard):
            await push(broker, "group:a", b"1")
            position = await broker.subscribe("group:a")
            assert position.offset == 1
            data = '{"ä": [1, 2.50, "\\u0041\\n"] }'.encode()
            await push(broker, "group:a", data, client="bob")
            message = (await eventually(lambda: heard.of("group:a")))[0]
            assert (message.epoch, message.offset, message.data) == (position.epoch, 2, data)
            assert message.client == "bob"
            assert message.time_ms > 1_700_000_000_000

    async def test_a_follower_hears_everything_once_and_in_order(self):
        async with self.node() as (broker, heard):
            await broker.subscribe("group:a")
            await asyncio.gather(*(push(broker, "group:a", b"%d" % i, b"0") for i in range(200)))
            await eventually(lambda: len(heard.of("group:a")) >= 400)
            assert heard.offsets("group:a") == list(range(1, 401))

    async def test_nothing_is_heard_before_subscribe_has_returned_nor_missed_after_it(self):
        async with self.node() as (broker, heard):
            for round in range(20):
                stream = f"group:{round}"
                pushing = asyncio.gather(*(push(broker, stream, b"1") for _ in range(20)))
                position = await broker.subscribe(stream)
                assert heard.of(stream) == []
                await pushing
                expected = list(range(position.offset + 1, 21))
                await eventually(functools.partial(self._heard_as_many, heard, stream, expected))
                assert heard.offsets(stream) == expected

    @staticmethod
    def _heard_as_many(heard: Heard, stream: str, expected: list[int]) -> bool:
        return len(heard.of(stream)) >= len(expected)

    async def test_who_has_unsubscribed_hears_nothing_more(self):
        async with self.node() as (broker, heard):
            await broker.subscribe("group:a")
            await broker.subscribe("group:b")
            await broker.unsubscribe("group:a")
            await push(broker, "group:a", b"1")
            await push(broker, "group:b", b"1")
            await eventually(lambda: heard.of("group:b"))
            assert heard.of("group:a") == []

    async def test_who_subscribes_again_starts_where_the_stream_is(self):
        async with self.node() as (broker, heard):
            await broker.subscribe("group:a")
            await broker.unsubscribe("group:a")
            await push(broker, "group:a", b"1")
            assert (await broker.subscribe("group:a")).offset == 1
            await push(broker, "group:a", b"2")
            await eventually(lambda: heard.data("group:a") == [b"2"])

    # History

    async def test_history_follows_a_position(self):
        async with self.node() as (broker, _):
            await push(broker, "group:a", b"1", b"2", b"3", client="bob")
            epoch = (await broker.top("group:a")).epoch
            page = await broker.history("group:a", Position(epoch, 1), messages=10, size=1000)
            assert page.start == Position(epoch, 1)
            assert [(m.offset, m.data, m.client) for m in page.messages] == [(2, b"2", "bob"), (3, b"3", "bob")]
            assert (page.top, page.complete, page.gap) == (3, True, None)

    async def test_history_without_a_position_begins_with_the_oldest(self):
        async with self.node() as (broker, _):
            await push(broker, "group:a", b"1", b"2")
            page = await broker.history("group:a", None, messages=10, size=1000)
            assert (page.start.offset, len(page.messages), page.gap) == (0, 2, None)

    @pytest.mark.parametrize("follow", [False, True])
    async def test_history_of_no_messages_is_the_position(self, follow):
        async with self.node(retention=Retention(2, 60)) as (broker, heard):
            if follow:
                await broker.subscribe("group:a")
            empty = await broker.history("group:a", None, messages=0, size=1000)
            assert empty == History(await broker.top("group:a"), 0, [])
            await push(broker, "group:a", b"1", b"2", b"3")
            if follow:
                await eventually(lambda: len(heard.of("group:a")) == 3)
            top = await broker.top("group:a")
            assert await broker.history("group:a", None, messages=0, size=1000) == History(top, 3, [])
            at = Position(top.epoch, 2)
            assert await broker.history("group:a", at, messages=0, size=1000) == History(at, 3, [])
            lost = await broker.history("group:a", Position("other", 2), messages=0, size=1000)
            assert (lost.messages, lost.gap and lost.gap.reason) == ([], "reset")

    @pytest.mark.parametrize("follow", [False, True])
    async def test_history_comes_in_pages_by_count_and_by_size(self, follow):
        async with self.node() as (broker, heard):
            if follow:
                await broker.subscribe("group:a")
            await push(broker, "group:a", *[b"%05d" % i for i in range(1, 101)])
            if follow:
                await eventually(lambda: len(heard.of("group:a")) == 100)
            position = Position((await broker.top("group:a")).epoch, 0)
            seen: list[bytes] = []
            sizes = [(7, 10_000), (1000, 21), (1000, 1), (50, 10_000)]
            while len(seen) < 100:
                messages, size = sizes[len(seen) % len(sizes)]
                page = await broker.history("group:a", position, messages=messages, size=size)
                assert 1 <= len(page.messages) <= messages
                assert page.gap is None
                assert page.complete == (page.end.offset == 100)
                seen += [message.data for message in page.messages]
                position = page.end
            assert seen == [b"%05d" % i for i in range(1, 101)]

    @pytest.mark.parametrize("follow", [False, True])
    async def test_what_the_journal_has_forgotten_by_count_is_a_gap(self, follow):
        async with self.node(retention=Retention(5, 3600)) as (broker, heard):
            if follow:
                await broker.subscribe("group:a")
            await push(broker, "group:a", *[b"%d" % i for i in range(1, 21)])
            if follow:
                await eventually(lambda: len(heard.of("group:a")) == 20)
            epoch = (await broker.top("group:a")).epoch
            page = await broker.history("group:a", Position(epoch, 3), messages=10, size=1000)
            assert page.gap == Gap("group:a", epoch, 4, 15, "expired")
            assert page.start == Position(epoch, 15)
            assert [message.offset for message in page.messages] == [16, 17, 18, 19, 20]
            edge = await broker.history("group:a", Position(epoch, 15), messages=10, size=1000)
            assert (edge.gap, len(edge.messages)) == (None, 5)

    async def test_what_the_journal_has_forgotten_by_age_is_a_gap_and_offsets_go_on(self):
        async with self.node(retention=Retention(100, 0.2)) as (broker, _):
            await push(broker, "group:a", b"1", b"2")
            epoch = (await broker.top("group:a")).epoch

            async def forgotten() -> bool:
                return not (await broker.history("group:a", None, messages=10, size=1000)).messages

            await eventually(forgotten)
            page = await broker.history("group:a", Position(epoch, 1), messages=10, size=1000)
            assert page.gap == Gap("group:a", epoch, 2, 2, "expired")
            assert (page.start, page.top) == (Position(epoch, 2), 2)
            assert (await broker.history("group:a", Position(epoch, 2), messages=10, size=1000)).gap is None
            assert await push(broker, "group:a", b"3") == [Position(epoch, 3)]

    async def test_old_messages_go_by_age_while_new_ones_stay(self):
        async with self.node(retention=Retention(100, 0.5)) as (broker, _):
            await push(broker, "group:a", *[b"old"] * 30)

            async def first() -> int:
                await push(broker, "group:a", b"new")
                return (await broker.history("group:a", None, messages=100, size=10_000)).start.offset

            async def some_are_gone() -> bool:
                return await first() >= 30

            await eventually(some_are_gone)
            page = await broker.history("group:a", None, messages=1000, size=100_000)
            assert [message.offset for message in page.messages] == list(range(page.start.offset + 1, page.top + 1))
            assert page.messages

    async def test_another_epoch_is_a_reset_and_what_is_kept_follows(self):
        async with self.node() as (broker, _):
            await push(broker, "group:a", b"1", b"2")
            epoch = (await broker.top("group:a")).epoch
            page = await broker.history("group:a", Position("other", 1), messages=10, size=1000)
            assert page.gap == Gap("group:a", epoch, None, 0, "reset")
            assert [message.data for message in page.messages] == [b"1", b"2"]

    async def test_a_position_above_the_top_is_a_reset(self):
        async with self.node() as (broker, _):
            await push(broker, "group:a", b"1")
            epoch = (await broker.top("group:a")).epoch
            page = await broker.history("group:a", Position(epoch, 2), messages=10, size=1000)
            assert page.gap == Gap("group:a", epoch, None, 0, "reset")

    async def test_the_top_is_recovered_also_of_an_empty_stream(self):
        async with self.node() as (broker, _):
            top = await broker.top("group:a")
            page = await broker.history("group:a", top, messages=10, size=1000)
            assert (page.start, page.top, page.messages, page.gap) == (top, 0, [], None)

    # Presence

    async def test_presence_follows_a_connection(self):
        async with self.node() as (broker, _):
            await broker.presence_join(connection("n1-1", "alice", "a", "b"))
            await broker.presence_join(connection("n1-2", "alice", "b"))
            await broker.presence_join(connection("n1-1", "alice", "b", "c"))
            assert await broker.present("a") == []
            assert sorted(await broker.present("b")) == [("alice", "n1-1"), ("alice", "n1-2")]
            found = {item.connection: item for item in await broker.connections("alice")}
            assert found["n1-1"] == connection("n1-1", "alice", "b", "c")
            await broker.presence_leave(connection("n1-1", "alice"))
            assert await broker.present("c") == []
            assert await broker.present("b") == [("alice", "n1-2")]
            assert [item.connection for item in await broker.connections("alice")] == ["n1-2"]
            await broker.presence_leave(connection("n1-1", "alice"))

    async def test_nodes_are_as_they_said(self):
        async with self.node() as (broker, _):
            assert await broker.nodes() == [info("n1")]
            broker.report(info("n1", connections=7, draining=True))

            async def told() -> bool:
                return await broker.nodes() == [info("n1", connections=7, draining=True)]

            await eventually(told)

    async def test_a_canary_passes(self):
        async with self.node() as (broker, heard):
            lag_ms = [await broker.canary() for _ in range(3)]
            assert all(0 < each < 60_000 for each in lag_ms)
            assert heard.events == [], "nobody else's"

    async def test_canaries_leave_nothing_behind_that_grows(self):
        async with self.node() as (broker, _):
            await push(broker, "group:a", b"1")
            await broker.canary()
            before = self.stored(broker)
            for _ in range(20):
                await broker.canary()
            assert self.stored(broker) == before
            assert await push(broker, "group:a", b"2") == [Position((await broker.top("group:a")).epoch, 2)]

    # Lasting membership

    async def test_membership_lasts_and_is_ordered(self):
        async with self.node() as (broker, heard):
            assert await broker.memberships("alice") == frozenset()
            assert await broker.add_member("a", "alice", most=2)
            assert not await broker.add_member("a", "alice", most=2)
            assert await broker.add_member("b", "alice", most=2)
            assert await broker.memberships("alice") == {"a", "b"}
            assert await broker.remove_member("a", "alice")
            assert not await broker.remove_member("a", "alice")
            expected = [("a", True), ("a", True), ("b", True), ("a", False), ("a", False)]
            await eventually(
                lambda: heard.orders == [MembershipOrder("alice", group, is_in) for group, is_in in expected]
            )

    async def test_a_client_has_a_limited_number_of_memberships(self):
        async with self.node() as (broker, _):
            await broker.add_member("a", "alice", most=1)
            with pytest.raises(TooManyGroups):
                await broker.add_member("b", "alice", most=1)
            assert await broker.memberships("alice") == {"a"}

    # Records

    async def test_a_record_has_one_owner(self):
        async with self.node() as (broker, _):
            first = await broker.claim("alice", "", "n1-1")
            assert (first.record, first.previous) == (None, None)
            record = {"client:alice": Position("e", 3), "all": Position("f", 0)}
            assert await broker.save("alice", "", "n1-1", record)
            second = await broker.claim("alice", "", "n2-1")
            assert (second.record, second.previous) == (record, "n1-1")
            assert not await broker.save("alice", "", "n1-1", {})
            assert await broker.save("alice", "", "n2-1", {"all": Position("f", 1)})
            assert (await broker.claim("alice", "", "n1-2")).record == {"all": Position("f", 1)}

    async def test_devices_and_clients_have_records_of_their_own(self):
        async with self.node() as (broker, _):
            await broker.claim("alice", "phone", "n1-1")
            await broker.save("alice", "phone", "n1-1", {"all": Position("e", 1)})
            assert (await broker.claim("alice", "tablet", "n1-2")).record is None
            assert (await broker.claim("bob", "phone", "n1-3")).record is None

    async def test_a_record_that_was_never_saved_is_none(self):
        async with self.node() as (broker, _):
            await broker.claim("alice", "", "n1-1")
            again = await broker.claim("alice", "", "n1-2")
            assert (again.record, again.previous) == (None, "n1-1")
            assert not await broker.save("bob", "", "n1-1", {})

    async def test_an_earlier_term_does_not_take_its_record_back_from_a_later_one(self):
        async with self.node() as (broker, _):
            await broker.claim("alice", "", "n1-1")
            assert await broker.reclaim("alice", "", "n1-1", "n1-1#2") == {}
            assert await broker.reclaim("alice", "", "n1-1", "n1-1#1") is None
            assert await broker.save("alice", "", "n1-1#2", {"all": Position("f", 1)})
            assert not await broker.save("alice", "", "n1-1#1", {"all": Position("f", 0)})
            assert await broker.reclaim("alice", "", "n1-1", "n1-1#10") == {"all": Position("f", 1)}
            assert await broker.reclaim("alice", "", "n1-10", "n1-10#11") is None

    async def test_a_record_ends_when_it_was_not_used_for_its_time(self):
        async with self.node(meta_age_s=1000) as (broker, _):
            record = {"all": Position("e", 1)}
            await broker.claim("alice", "", "n1-1")
            for _ in range(2):
                assert await broker.save("alice", "", "n1-1", record)
                await self.lapse(broker, 900)
            assert (await broker.claim("alice", "", "n1-2")).record == record
            await self.lapse(broker, 900)
            assert (await broker.claim("alice", "", "n1-3")).record == record
            assert await broker.save("alice", "", "n1-3", record)
            await self.lapse(broker, 1001)
            assert not await broker.save("alice", "", "n1-3", record)
            again = await broker.claim("alice", "", "n1-4")
            assert (again.record, again.previous) == (None, None)

    async def test_a_membership_enters_the_record_until_its_owner_has_joined(self):
        async with self.node() as (broker, _):
            await broker.claim("alice", "", "n1-1")
            await broker.save("alice", "", "n1-1", {"all": Position("e", 1)})
            (position,) = await push(broker, "group:a", b"1")
            await broker.add_member("a", "alice", most=5)
            # A save that was under way does not know of it.
            assert await broker.save("alice", "", "n1-1", {"all": Position("e", 2)})
            claim = await broker.claim("alice", "", "n1-2")
            assert claim.record == {"all": Position("e", 2), "group:a": position}
            await broker.save("alice", "", "n1-2", {"group:a": Position(position.epoch, 5)})
            await broker.save("alice", "", "n1-2", {"all": Position("e", 3)})
            assert (await broker.claim("alice", "", "n1-3")).record == {"all": Position("e", 3)}

    async def test_a_membership_enters_a_record_that_was_saved_again_and_again(self):
        async with self.node(meta_age_s=1000) as (broker, _):
            await broker.claim("alice", "", "n1-1")
            for _ in range(2):
                await broker.save("alice", "", "n1-1", {"all": Position("e", 1)})
                await self.lapse(broker, 900)
            await broker.add_member("a", "alice", most=5)
            claim = await broker.claim("alice", "", "n1-2")
            assert claim.record is not None
            assert claim.record.keys() == {"all", "group:a"}

    async def test_a_membership_that_ended_leaves_the_record(self):
        async with self.node() as (broker, _):
            await broker.claim("alice", "", "n1-1")
            await broker.save("alice", "", "n1-1", {"all": Position("e", 1), "group:b": Position("e", 1)})
            await broker.add_member("a", "alice", most=5)
            await broker.remove_member("a", "alice")
            await broker.remove_member("b", "alice")
            assert (await broker.claim("alice", "", "n1-2")).record == {"all": Position("e", 1)}

    async def test_a_membership_does_not_move_a_position_that_the_record_has(self):
        async with self.node() as (broker, _):
            await broker.claim("alice", "", "n1-1")
            await broker.save("alice", "", "n1-1", {"group:a": Position("e", 7)})
            await broker.add_member("a", "alice", most=5)
            assert (await broker.claim("alice", "", "n1-2")).record == {"group:a": Position("e", 7)}

    # Orders

    async def test_an_order_is_heard_here_too(self):
        async with self.node() as (broker, heard):
            orders: list[Order] = [
                CloseOrder("alice", None, 4501),
                CloseOrder("bob", "n1-3", 4502),
                MembershipOrder("eve", "a", True),
            ]
            for order in orders:
                await broker.order(order)
            await eventually(lambda: heard.orders == orders)
