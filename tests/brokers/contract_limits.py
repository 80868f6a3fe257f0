"""What every broker bounds. A test module's class inherits ``LimitsContract`` beside ``Contract``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.brokers.contract import push
from tidegate.brokers.contract import Broker
from tidegate.core.model import Position, Retention

AT = {"all": Position("e", 1)}


class LimitsContract:
    """``node``, ``stored`` and ``lapse`` are ``Contract``'s. ``cost``: bytes of all that it keeps beyond connections.
    ``records_of``: how many records a client has."""

    node: Any
    stored: Any
    lapse: Any
    cost: Callable[[Broker], int]
    records_of: Callable[[Broker, str], int]

    async def test_a_client_with_too_many_devices_loses_the_one_not_used_for_the_longest_time(self):
        async with self.node(records_per_client=3) as (broker, _):
            assert (await broker.claim("bob", "d0", "n1-9")).record is None
            assert await broker.save("bob", "d0", "n1-9", AT)
            for number in range(3):
                await broker.claim("alice", f"d{number}", f"n1-{number}")
                assert await broker.save("alice", f"d{number}", f"n1-{number}", AT)
                await self.lapse(broker, 1)
            assert await broker.save("alice", "d0", "n1-0", AT)
            await self.lapse(broker, 1)
            await broker.claim("alice", "d3", "n1-3")  # in the place of d1
            assert not await broker.save("alice", "d1", "n1-1", AT)
            assert (await broker.claim("alice", "d0", "n1-4")).record == AT
            assert (await broker.claim("alice", "d2", "n1-5")).record == AT
            assert (await broker.claim("bob", "d0", "n1-6")).record == AT  # the neighbour notices nothing

    async def test_a_device_that_comes_back_takes_no_others_place(self):
        async with self.node(records_per_client=2) as (broker, _):
            for device in ("d0", "d1"):
                await broker.claim("alice", device, f"n1-{device}")
                assert await broker.save("alice", device, f"n1-{device}", AT)
            for number in range(3):
                for device in ("d0", "d1"):
                    assert (await broker.claim("alice", device, f"n1-{number}")).record == AT

    async def test_hundreds_of_devices_leave_no_more_records_than_a_client_may_have(self):
        async with self.node(records_per_client=5) as (broker, _):
            for number in range(200):
                await broker.claim("alice", f"d{number}", f"n1-{number}")
            assert self.records_of(broker, "alice") == 5

    async def test_of_a_stream_whose_messages_are_too_old_its_epoch_alone_is_kept(self):
        async with self.node(retention=Retention(1000, 5)) as (broker, _):
            before = self.cost(broker)
            streams = [f"group:of-some-length-{number}" for number in range(100)]
            tops = {stream: (await push(broker, stream, b"1" * 200, b"2" * 200))[-1] for stream in streams}
            full = self.cost(broker) - before
            await self.lapse(broker, 6)
            assert (self.cost(broker) - before) / len(streams) <= 300 < full / len(streams) / 3
            for stream, top in tops.items():
                assert await broker.top(stream) == top
                page = await broker.history(stream, top, messages=10, size=1000)
                assert (page.gap, page.messages) == (None, [])  # whoever had all of it has missed nothing
            page = await broker.history(streams[0], Position(tops[streams[0]].epoch, 1), messages=10, size=1000)
            assert page.gap is not None
            assert (page.gap.reason, page.gap.first, page.gap.last) == ("expired", 2, 2)

    async def test_who_followed_a_stream_without_messages_leaves_no_more_behind(self):
        async with self.node(retention=Retention(1000, 5)) as (broker, _):
            await push(broker, "group:old", b"1")
            await self.lapse(broker, 6)
            before = self.stored(broker), self.cost(broker)
            for stream in ("group:old", *(f"group:empty{number}" for number in range(50))):
                await broker.subscribe(stream)
                await broker.unsubscribe(stream)
            await self.lapse(broker, 0)
            assert (self.stored(broker), self.cost(broker)) == before
