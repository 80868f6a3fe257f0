"""Clients, a real gateway in this process, and everything that happens to connections, in any order: what each handler
is told is the journal, once and in order, but for what gaps name."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from tests.service_fixture import running
from tests.support import eventually
from tests.test_client_gateway import push, url_of
from tidegate.app import App
from tidegate_client import Client, Gap, Message, Subscription

_GROUPS = {"short": {"messages": 15}}


class Account:
    """Of one stream, by one handler. It fails at the first message that does not follow."""

    def __init__(self, chance: random.Random) -> None:
        self.at: int | None = None
        self.messages = self.gaps = 0
        self.wrong: list[str] = []
        self._chance = chance

    async def take(self, message: Message) -> None:
        if self.at is not None and message.offset != self.at + 1:
            self.wrong.append(f"{message.offset} after {self.at}")
        if message.data != message.offset:
            self.wrong.append(f"{message.data} at {message.offset}")
        self.at = message.offset
        self.messages += 1
        if self._chance.random() < 0.3:
            await asyncio.sleep(self._chance.random() * 0.004)

    def gap(self, gap: Gap) -> None:
        assert gap.last is not None
        if self.at is not None and gap.first != self.at + 1:
            self.wrong.append(f"gap from {gap.first} after {self.at}")
        if gap.reason != "expired" or gap.stream != "group:short":
            self.wrong.append(f"{gap}: the journal has it")
        self.at = gap.last
        self.gaps += 1


async def iterate(subscription: Subscription, account: Account) -> None:
    async for item in subscription.events():
        if isinstance(item, Message):
            await account.take(item)
        elif isinstance(item, Gap):
            account.gap(item)


async def bother(client: Client, chance: random.Random, until: asyncio.Event) -> None:
    while not until.is_set():
        await asyncio.sleep(chance.random() * 0.08)
        socket = client._connection._socket if client._connection is not None else None
        match chance.randrange(6):
            case 0 | 1 if socket is not None:
                socket.transport.abort()
            case 2:
                await client.disconnect()
                await asyncio.sleep(chance.random() * 0.02)
                client.connect()
            case 3 | 4:
                client._connector.again()
            case 5:
                client.wake()


async def chaos(seed: int, seconds: float) -> tuple[int, int]:
    """How many messages and gaps were told."""
    chance = random.Random(seed)
    async with running(GROUPS=_GROUPS, HISTORY__MESSAGES=100_000) as app, contextlib.AsyncExitStack() as stack:
        accounts: dict[str, list[Account]] = {}
        tasks: list[asyncio.Task[None]] = []
        until = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in range(5):
            client = Client(
                url_of(app), client="alice", backoff_s=(0.005, 0.02), queue_limit=[10, 100, 1000][number % 3]
            )
            await stack.enter_async_context(client)
            for name in ("group:quick", "group:short", "client:alice", "all"):
                account = Account(chance)
                accounts.setdefault(name, []).append(account)
                subscribe = {"client:alice": client.direct, "all": client.all}.get(name)
                if number % 2:
                    made = subscribe() if subscribe else client.group(name.removeprefix("group:"))
                    tasks.append(loop.create_task(iterate(made, account)))
                elif subscribe:
                    subscribe(account.take, on_gap=account.gap)
                else:
                    client.group(name.removeprefix("group:"), account.take, on_gap=account.gap)
            await client.ready()
            tasks.append(loop.create_task(bother(client, chance, until)))
        tops = await _push(app, list(accounts), chance, seconds)
        until.set()

        def caught_up() -> bool:
            return all(account.at == tops[name] for name, found in accounts.items() for account in found)

        await eventually(caught_up, 20)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        found = [account for of_stream in accounts.values() for account in of_stream]
        wrong = [wrong for account in found for wrong in account.wrong]
        assert not wrong, wrong
        return sum(account.messages for account in found), sum(account.gaps for account in found)


async def _push(app: App, streams: list[str], chance: random.Random, seconds: float) -> dict[str, int]:
    tops = dict.fromkeys(streams, 0)
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end or sum(tops.values()) < 400:  # a busy machine pushes fewer in its time
        for stream in streams:
            for _ in range(chance.choice([0, 1, 1, 2, 8])):
                tops[stream] += 1
                await push(app, stream, tops[stream])
        await asyncio.sleep(chance.random() * 0.01)
    for stream in streams:
        tops[stream] += 1
        await push(app, stream, tops[stream])
    return tops


async def test_no_handler_is_told_anything_but_the_journal() -> None:
    messages, _ = await chaos(seed=1, seconds=0.6)
    assert messages > 1000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 7))
async def test_no_handler_is_told_anything_but_the_journal_for_long(seed: int) -> None:
    messages, gaps = await chaos(seed, seconds=8)
    assert messages > 1000
    assert gaps > 0
