"""A lock per name: one holder at a time, in order, and nothing left behind."""

import asyncio

import pytest

from tidegate.locks import Locks
from tidegate.tasks import Tasks


async def test_one_at_a_time_in_order_and_who_gives_up_waiting_is_passed_over() -> None:
    locks = Locks()
    inside: list[int] = []
    came: list[int] = []

    async def use(number: int) -> None:
        async with locks.of("a"):
            inside.append(number)
            assert inside == [number]
            came.append(number)
            await asyncio.sleep(0)
            inside.remove(number)

    all_tasks = Tasks()
    tasks = [all_tasks.spawn(use(number), "use") for number in range(5)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    await asyncio.wait(tasks)
    assert came == [0, 1, 3, 4]
    assert not locks._locks


async def test_names_do_not_wait_for_each_other() -> None:
    locks = Locks()
    async with locks.of("a"), asyncio.timeout(1), locks.of("b"):
        assert set(locks._locks) == {"a", "b"}
    assert not locks._locks


async def test_a_failure_inside_lets_the_next_one_in() -> None:
    locks = Locks()
    with pytest.raises(ValueError, match="inside"):
        async with locks.of("a"):
            raise ValueError("inside")
    async with asyncio.timeout(1), locks.of("a"):
        pass
    assert not locks._locks
