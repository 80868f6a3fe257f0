"""The memory broker keeps the contract of a broker, and a limit on all that it keeps."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.brokers.contract import WIDE, Contract, Heard, connection, info
from tests.brokers.contract_limits import LimitsContract
from tests.brokers.contract_words import Words
from tidegate.brokers.contract import Broker
from tidegate.brokers.memory.broker import SWEEP_EACH, TURN_PUSHES, MemoryBroker
from tidegate.core.errors import Full, KeyReused, Refused
from tidegate.core.model import Gap, NodeInfo, Position, Publication, Retention


class Clock:
    """Monotonic seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class TestContract(LimitsContract, Contract, Words):
    def make(self, node: str, *, retention: Retention = WIDE, meta_age_s: float = 1000, **options: Any) -> MemoryBroker:
        self.clock, self.meta_age_s = Clock(), meta_age_s
        return MemoryBroker(
            epoch="e1",
            retention=lambda stream: retention,
            meta_age_s=meta_age_s,
            journal_bytes=1 << 20,
            wall=lambda: time.time() + self.clock.now_s - 1000,
            clock=self.clock,
            **options,
        )

    def cost(self, broker: Broker) -> int:
        assert isinstance(broker, MemoryBroker)
        return broker.journal_bytes

    def records_of(self, broker: Broker, client: str) -> int:
        assert isinstance(broker, MemoryBroker)
        return sum(owner == client for owner, _ in broker._records._records)

    def stored(self, broker: Broker) -> Any:
        assert isinstance(broker, MemoryBroker)
        streams = broker._streams
        return broker.journal_bytes, len(streams._journals), len(streams._tops), len(streams._beginning)

    async def age(self, broker: Broker) -> None:
        assert isinstance(broker, MemoryBroker)
        self.clock.now_s += self.meta_age_s / 2
        broker.sweep()

    async def outlast(self, broker: Broker) -> None:
        await self.age(broker)

    async def expire(self, broker: Broker, stream: str) -> None:
        assert isinstance(broker, MemoryBroker)
        broker._streams._drop_messages(broker._streams._journals[stream])
        self.clock.now_s += self.meta_age_s
        broker.sweep()

    async def lapse(self, broker: Broker, seconds: float) -> None:
        self.clock.now_s += seconds
        broker.sweep()


# What it keeps is counted, bounded, and given up in order


LIMIT = 1 << 20


def broker_of(clock: Clock, limit: int = LIMIT, age_s: float = 3600) -> MemoryBroker:
    return MemoryBroker(
        epoch="e1",
        retention=lambda stream: Retention(1000, age_s),
        meta_age_s=100_000,
        journal_bytes=limit,
        wall=clock,
        clock=clock,
    )


async def publish(broker: MemoryBroker, stream: str, data: bytes = b"1", key: str | None = None) -> Position | Refused:
    (answer,) = await broker.publish([Publication(stream, data, key)])
    return answer


async def journals(broker: MemoryBroker, clock: Clock, count: int) -> None:
    for i in range(count):
        await publish(broker, f"group:some.name.{i}", b'{"n":%d}' % i)


async def tops(broker: MemoryBroker, clock: Clock, count: int) -> None:
    await journals(broker, clock, count)
    clock.now_s += 4000
    for _ in range(count // 500 + 2):
        broker.sweep()


async def messages(broker: MemoryBroker, clock: Clock, count: int) -> None:
    for i in range(count):
        await broker.publish([Publication(f"group:{i % 20}", b'{"n":%d}' % i, None, f"client.{i}")])


async def keys(broker: MemoryBroker, clock: Clock, count: int) -> None:
    for i in range(count):
        await publish(broker, "group:a", b"1", f"key-{i}")


async def records(broker: MemoryBroker, clock: Clock, count: int) -> None:
    for i in range(count):
        positions = {f"group:{i}.{j}": Position(f"e{i}", 1000 + i) for j in range(i % 12)}
        await broker.claim(f"client.{i}", "phone", f"n1-{i}")
        await broker.save(f"client.{i}", "phone", f"n1-{i}", positions)


async def memberships(broker: MemoryBroker, clock: Clock, count: int) -> None:
    for i in range(count):
        for j in range(i % 7):
            await broker.add_member(f"group.{i}.{j}", f"client.{i}", most=100)


@pytest.mark.parametrize("kind", [journals, tops, messages, keys, records, memberships])
async def test_what_is_counted_is_what_memory_holds(kind: Callable[..., Awaitable[None]]):
    clock = Clock()
    broker = broker_of(clock, 1 << 30)
    await kind(broker, clock, 10)
    counted = broker.journal_bytes
    gc.collect()
    tracemalloc.start()
    try:
        await kind(broker, clock, 3000)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 1 / 1.3 < held / (broker.journal_bytes - counted) < 1.3


async def test_nothing_that_anybody_leaves_behind_passes_the_limit():
    clock = Clock()
    broker = broker_of(clock)
    for kind in (messages, journals, records, keys, tops, journals, records):
        await kind(broker, clock, 1500)
        assert broker.journal_bytes <= LIMIT


async def test_the_least_used_streams_lose_their_messages_first_and_say_expired():
    clock = Clock()
    broker = broker_of(clock)
    (first, second) = [await publish(broker, stream, b"x" * 200_000) for stream in ("group:a", "group:b")]
    assert isinstance(first, Position)
    assert isinstance(second, Position)
    await broker.history("group:a", None, messages=1, size=1)
    for _ in range(4):
        await publish(broker, "group:c", b"x" * 200_000)
    page = await broker.history("group:b", Position(second.epoch, 0), messages=9, size=9)
    assert page.gap == Gap("group:b", second.epoch, 1, 1, "expired")
    assert (await broker.history("group:b", second, messages=9, size=9)).gap is None
    assert (await broker.history("group:a", Position(first.epoch, 0), messages=9, size=9)).gap is None
    assert broker.forgotten == 1


async def test_a_stream_that_was_forgotten_for_room_never_comes_back_in_its_epoch():
    clock = Clock()
    broker = broker_of(clock)
    told = await broker.top("group:never")
    pushed = await publish(broker, "group:a")
    assert isinstance(pushed, Position)
    await broker.subscribe("group:kept")
    kept = await publish(broker, "group:kept")
    assert isinstance(kept, Position)
    await journals(broker, clock, 6000)
    assert "group:a" not in broker._streams._tops
    again = await publish(broker, "group:a")
    assert isinstance(again, Position)
    assert (again.offset, again.epoch == pushed.epoch) == (1, False)
    for since in (Position(pushed.epoch, 0), pushed):
        page = await broker.history("group:a", since, messages=9, size=9)
        assert page.gap is not None
        assert page.gap.reason == "reset"
    # Whether it had a message can't be known any more, so its old beginning proves nothing.
    assert (await broker.history("group:never", told, messages=9, size=9)).gap is not None
    assert await broker.top("group:kept") == kept, "followed: not forgotten"


async def test_who_follows_hears_the_first_push_after_streams_were_forgotten_for_room():
    clock = Clock()
    broker, heard = broker_of(clock), Heard()
    await broker.start(heard, info("n1"))
    told = await broker.subscribe("group:quiet")
    await journals(broker, clock, 6000)
    pushed = await publish(broker, "group:quiet")
    assert pushed == Position(told.epoch, 1)
    assert (heard.data("group:quiet"), heard.gaps("group:quiet")) == ([b"1"], [])


async def test_a_key_is_kept_for_its_five_minutes_or_refused():
    clock = Clock()
    broker = broker_of(clock)
    first = await publish(broker, "group:a", b"1", "first")
    answers = [await publish(broker, "group:a", b"1", f"key-{i}") for i in range(4000)]
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    assert refused
    assert {(answer.status, answer.code) for answer in refused} == {(503, "broker_down")}
    assert len(answers) - len(refused) > LIMIT // 2 // 250, "half of the limit is for keys"
    await journals(broker, clock, 3000)
    await records(broker, clock, 1000)
    clock.now_s += 299
    assert await publish(broker, "group:a", b"1", "first") == first
    assert isinstance(await publish(broker, "group:a", b"2", "first"), KeyReused)
    assert isinstance(await publish(broker, "group:a"), Position), "a push without a key is taken"
    clock.now_s += 2
    assert isinstance(await publish(broker, "group:a", b"1", "new"), Position)
    assert (await publish(broker, "group:a", b"1", "first")) != first


async def test_a_key_ends_on_time_also_where_nothing_was_swept_since():
    clock = Clock()
    broker = broker_of(clock)
    first = await publish(broker, "group:a", b"1", "k")
    clock.now_s += 299
    assert await publish(broker, "group:a", b"1", "k") == first
    clock.now_s += 1
    again = await publish(broker, "group:a", b"2", "k")
    assert isinstance(again, Position), "with another body too"


async def test_the_least_used_record_goes_first_and_one_whose_owner_is_here_stays():
    clock = Clock()
    broker = broker_of(clock)
    for client in ("here", "away"):
        await broker.claim(client, "", "n1-1")
        await broker.save(client, "", "n1-1", {"all": Position("e", 1)})
    await broker.presence_join(connection("n1-1", "here"))
    await records(broker, clock, 1500)
    assert await broker.save("here", "", "n1-1", {"all": Position("e", 2)})
    assert (await broker.claim("away", "", "n1-2")).record is None
    clock.now_s += 200_000
    for _ in range(10):
        broker.sweep()
    assert (await broker.claim("here", "", "n1-2")).record == {"all": Position("e", 2)}
    assert not await broker.save("client.1499", "phone", "n1-1499", {})


async def test_a_large_batch_is_several_turns_of_the_loop():
    broker, loop, turns = broker_of(Clock()), asyncio.get_running_loop(), 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        loop.call_soon(turn)

    loop.call_soon(turn)
    answers = await broker.publish([Publication("group:a", b"%d" % i) for i in range(TURN_PUSHES * 3)])
    assert turns == 2
    assert [answer.offset for answer in answers if isinstance(answer, Position)] == list(range(1, 301))
    await broker.publish([Publication("group:a", b"1")] * TURN_PUSHES)
    assert turns == 2


async def test_a_sweep_does_a_bounded_part_and_comes_to_everything():
    clock = Clock()
    broker = broker_of(clock, 1 << 30, age_s=10)
    count = SWEEP_EACH * 4
    await journals(broker, clock, count)
    await records(broker, clock, count)
    for i in range(count):
        await broker.subscribe(f"group:followed.{i}")
    clock.now_s += 200_000
    streams, heard = broker._streams, Heard()
    await broker.start(heard, NodeInfo("n", "", 0, 0, False, None))
    for swept in range(1, 5):
        broker.sweep()
        assert len(streams._journals) == count - swept * SWEEP_EACH
        assert len(broker._records._records) == count - swept * SWEEP_EACH
        assert len(heard.moved) == swept * SWEEP_EACH
    assert len(streams._tops) == count
    clock.now_s += 200_000
    for _ in range(4):
        broker.sweep()
    assert broker.journal_bytes == 0
    assert not streams._round


@pytest.mark.slow
async def test_a_sweep_of_very_many_records_streams_and_keys_holds_the_loop_for_milliseconds():
    clock = Clock()
    broker = broker_of(clock, 1 << 34, age_s=1e9)
    for kind in (records, journals, keys):
        await kind(broker, clock, 132_000)
    gc.collect()
    gc.freeze()
    took_ms = []
    for _ in range(200):
        begun = time.perf_counter()
        broker.sweep()
        took_ms.append((time.perf_counter() - begun) * 1000)
    gc.unfreeze()
    print(f"a sweep: median {statistics.median(took_ms):.2f} ms, longest {max(took_ms):.2f} ms")
    assert statistics.median(took_ms) < 5


async def test_one_clients_devices_push_out_no_other_clients_record() -> None:
    broker = broker_of(Clock())
    await broker.claim("bob", "", "n1-1")
    assert await broker.save("bob", "", "n1-1", {"all": Position("e1", 0)})
    for number in range(3000):  # more than there would be room for
        await broker.claim("mallory", f"d{number}", f"n1-{number}")
    assert (await broker.claim("bob", "", "n1-2")).record == {"all": Position("e1", 0)}


async def test_a_device_that_is_connected_keeps_its_record() -> None:
    broker = broker_of(Clock())
    await broker.presence_join(connection("n1-1", "alice"))
    await broker.claim("alice", "here", "n1-1")
    for number in range(150):
        await broker.claim("alice", f"d{number}", f"n1-{number + 2}")
    assert await broker.save("alice", "here", "n1-1", {"all": Position("e1", 0)})


async def test_lasting_memberships_may_take_half_and_are_refused_beyond() -> None:
    broker = broker_of(Clock())
    await publish(broker, "group:news", b"1")
    with pytest.raises(Full):
        await memberships(broker, Clock(), 5000)
    assert LIMIT // 2 <= broker.journal_bytes <= LIMIT
    assert not await broker.add_member("group.1.0", "client.1", most=100)  # it has that already
    assert await broker.memberships("client.1") == {"group.1.0"}
    assert (await broker.history("group:news", None, messages=1, size=1)).messages
    await broker.remove_member("group.1.0", "client.1")
    await broker.remove_member("group.2.0", "client.2")
    assert await broker.add_member("new", "client.2", most=100)
    await broker.remove_member("new", "client.2")
    for number in range(5000):
        for group in await broker.memberships(f"client.{number}"):
            await broker.remove_member(group, f"client.{number}")
    assert broker._records.members_size == 0
