"""What every broker bounds. A test module's class inherits ``LimitsContract`` beside ``Contract``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tidegate.brokers.contract import Broker
from tidegate.core.model import Position

AT = {"all": Position("e", 1)}


class LimitsContract:
    """``node`` and ``lapse`` are ``Contract``'s. ``records_of``: how many records a client has."""

    node: Any
    lapse: Any
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
