from __future__ import annotations

import asyncio
import gc
import weakref

from tests.support import Logs, eventually
from tidegate.tasks import Tasks


async def test_a_spawned_task_gives_its_result_to_who_awaits_it():
    async def answer() -> int:
        return 42

    tasks = Tasks()
    assert await tasks.spawn(answer(), "answer") == 42


async def test_a_task_survives_a_garbage_collection_that_nobody_else_would_let_it_survive():
    class Waiting:
        """Is awaited by a task that only ``Tasks`` holds: its future is in a cycle with it, and nowhere else."""

        def __init__(self) -> None:
            self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def run(self) -> None:
            await self.future

    waiting = Waiting()
    seen = weakref.ref(waiting)
    tasks = Tasks()
    tasks.spawn(waiting.run(), "wait")
    del waiting
    await asyncio.sleep(0)  # one turn of the loop: the task has begun to wait

    gc.collect()
    assert seen() is not None
    await tasks.cancel_all()


async def test_a_failure_is_logged_with_the_name_of_the_task(expected_logs: Logs):
    async def fail() -> None:
        raise ValueError("no such thing")

    expected_logs.expect("^task.failed$")
    tasks = Tasks()
    tasks.spawn(fail(), "look for it")
    (record,) = await eventually(lambda: expected_logs.seen("task.failed"))
    assert record.levelname == "ERROR"
    fields = vars(record)["fields"]
    assert fields["task"] == "look for it"
    assert isinstance(fields["error"], ValueError)
    assert len(tasks) == 0


async def test_ended_tasks_are_forgotten():
    async def end() -> None:
        pass

    tasks = Tasks()
    tasks.spawn(end(), "end")
    assert len(tasks) == 1
    await eventually(lambda: len(tasks) == 0)


async def test_cancel_all_waits_until_each_has_cleaned_up():
    cleaned = []

    async def clean_up(number: int) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            cleaned.append(number)

    tasks = Tasks()
    for number in range(3):
        tasks.spawn(clean_up(number), f"task {number}")
    await asyncio.sleep(0)  # one turn of the loop: all have begun
    await tasks.cancel_all()
    assert sorted(cleaned) == [0, 1, 2]
    assert len(tasks) == 0


async def test_cancel_all_also_ends_a_task_that_was_spawned_while_it_waited():
    tasks = Tasks()

    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    async def stubborn() -> None:
        try:
            await forever()
        finally:
            tasks.spawn(forever(), "last will")

    tasks.spawn(stubborn(), "stubborn")
    await asyncio.sleep(0)
    await tasks.cancel_all()
    assert len(tasks) == 0


async def test_a_task_that_cancels_all_is_spared_itself():
    tasks = Tasks()

    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    async def end_the_others() -> str:
        await tasks.cancel_all()
        return "still here"

    other = tasks.spawn(forever(), "other")
    assert await tasks.spawn(end_the_others(), "end the others") == "still here"
    assert other.cancelled()


async def test_a_cancelled_task_is_not_a_failure():
    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    tasks = Tasks()
    tasks.spawn(forever(), "forever").cancel()
    await eventually(lambda: len(tasks) == 0)
