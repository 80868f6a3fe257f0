"""Three real nodes, one real Redis, pushes, clients that come and go with cursors, and faults on a seeded schedule.

``await Scenario(seed, seconds, folder).run()`` raises AssertionError with every complaint; the schedule is in ``log``.
``python -m tests.faults.runner SEED SECONDS [--edge VARIANT] [--faults NAME…] [--plant PLANT]`` does so from a shell;
``--last-release --faults swap_version …`` with nodes of two releases.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import os
import random
import secrets
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import redis.asyncio
import uvloop
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.faults.account import account
from tests.faults.cluster import DRAIN_S, NODES, RETENTION, TROUBLE
from tests.faults.hazards import FAULTS, NODE_FAULTS, WITH
from tests.faults.ledger import ALL, Ledger, Reader
from tests.faults.pushers import Pushers
from tests.faults.stalls import CALM_S, RCVBUF, READ_S, STALL_S, QuietGroups
from tests.faults.visitor import TROUBLE as HANDSHAKE_TROUBLE
from tests.faults.visitor import Visitor, visit
from tests.support import eventually, scaled
from tests.upgrades.release import Release, last_release

PUSHERS = 20
CHECKED_PER_S = 20  # pushes in a second, while there were faults, that a run must have made to mean anything
ACCOUNTS = 3  # of messages that never came
SETTLED_S = 3.0  # after its welcome: nothing of a client is under way that an edge with trunks could not move


class Scenario(Pushers):
    """``faults`` are weights, ``most`` how many there are in all, ``every_s`` the mean time between two. Each of
    ``groups`` has ``members`` clients, who are in ``others`` too; ``rate`` is pushes per second in all, a
    fifth of them through Redis, ``to_all`` those to everybody, and what a fault held up is made up for; a client stays
    ``churn_s`` on average. Where some ``stall``, each third stops to read now and then, one message in 25 is large, and
    there are ``quiet`` groups beside, whose clients all do so.
    ``quiet_s`` is what everything has to come right again. With an ``edge`` clients come through it; with trunks
    none may be closed who has nothing under way, unless something else than nodes is at fault."""

    def __init__(
        self,
        seed: int,
        seconds: float,
        folder: Path,
        *,
        plant: str = "none",
        edge: str | None = None,
        fsync: str = "always",
        nodes: int = NODES,
        drain_s: float = DRAIN_S,
        faults: dict[str, int] | None = None,
        most: int = 1000,
        every_s: float = 1.5,
        groups: int = 8,
        members: int = 3,
        others: int = 1,
        rate: float = 80,
        to_all: float = 0,
        churn_s: float = 4.0,
        quiet_s: float = 40.0,
        quiet: int = 2,
        stall: bool = True,
        before: Release | None = None,
    ) -> None:
        super().__init__(
            folder,
            random.Random(seed),
            plant=plant,
            edge=edge,
            fsync=fsync,
            with_=frozenset(WITH[name] for name in faults or () if name in WITH),
            nodes=nodes,
            drain_s=drain_s,
            quiet_s=quiet_s,
            before=before,
        )
        self.seed = seed
        self.seconds = seconds
        self.pushes_per_second = 0.0
        self.latest_s = 0.0  # how late a message came, while there were faults
        self.resets = 0  # how often every epoch has changed
        self.busy_share = 0.0  # of all cores, whoever used them
        self.ledger = Ledger()
        self._faults = FAULTS if faults is None else faults
        self._must_stay = self.has_trunk and self._faults.keys() <= NODE_FAULTS.keys()
        self._most = most
        self._every_s = every_s
        self._churn_s = churn_s
        self._rate = rate
        self._to_all = to_all
        self._groups = [f"g{i}" for i in range(groups)]
        self._members = members
        self._others = others
        self._stall = stall
        self._calm_s = 0.0  # since then no fault is under way
        self._here: dict[Reader, Visitor] = {}
        quiet_members = {
            f"q{i}": [Reader(f"q{i}-{j}", self.ledger) for j in range(members)] for i in range(quiet * stall)
        }
        self.quiet = QuietGroups(
            self.ledger, quiet_members, self._here, self._push_one, lambda: self._calm_s, random.Random(seed)
        )
        self._quiet_members = quiet_members
        self.readers: list[Reader] = []
        self.ends: dict[int | None, int] = {}  # how visits were ended by others: code, None for a cut
        self._pushing = True
        self._leaving = False
        self._tasks: list[asyncio.Task[None]] = []
        self._pushers: list[asyncio.Task[None]] = []
        self._session: Any = None
        self._client: Any = None

    def now_s(self) -> float:
        return self.ledger.now_s()

    async def run(self) -> None:
        try:
            with self._disk(), self._store:
                await self._start()
                await self._play()
                await self._settle()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._stop_cluster()
            self.resets = self._count_resets()
            if self._session is not None:
                await self._session.close()
                await self._client.aclose()
        if self.ledger.wrong:
            count = len(self.ledger.wrong)
            nodes = [node.lines() for node in self._nodes + self._old]
            accounts = [account(self.ledger, self.readers, nodes, at) for at in self.ledger.missing[:ACCOUNTS]]
            raise AssertionError(
                "\n".join([f"seed {self.seed}: {count} complaints", *self.ledger.wrong[:20], *self.log, *accounts])
            )

    # Beginning

    async def _start(self) -> None:
        await self._start_cluster()
        self.ledger.begin()
        names, thirds = iter(range(10_000)), itertools.cycle(range(3))
        for group in self._groups:
            for _ in range(self._members):
                others = self._chance.sample(self._groups, self._others)
                self._enter(Reader(f"c{next(names)}", self.ledger), {group, *others}, self._stall and next(thirds) == 0)
        for group, readers in self._quiet_members.items():
            for reader in readers:
                self._enter(reader, {group}, True)
        await eventually(lambda: all(reader.told for reader in self.readers), 30)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=8))
        self._client = self._make_client()
        pushers = min(PUSHERS, len(self._groups))
        for i in range(pushers):
            mine = self._groups[i::pushers]
            chance = random.Random(self._chance.random())
            self._pushers.append(self._spawn(self._push(f"p{i}", mine, i % 5 == 4, self._rate / pushers, chance)))
        if self._to_all:
            self._pushers.append(self._spawn(self._push("pa", [ALL], False, self._to_all, self._chance)))
        self._pushers += [self._spawn(self._push_bursts(group)) for group in self._quiet_members]

    def _enter(self, reader: Reader, groups: set[str], stalls: bool) -> None:
        self.readers.append(reader)
        self._spawn(self._visit(reader, sorted(groups), stalls, random.Random(self._chance.random())))

    def _make_client(self) -> Any:
        return redis.asyncio.Redis(
            port=self._redis.port, protocol=2, socket_timeout=2, retry=Retry(NoBackoff(), 0), max_connections=100
        )

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(work)  # noqa: TID251 - held here
        self._tasks.append(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.ledger.complain(f"the runner failed: {error!r}")

    # Clients

    async def _visit(self, reader: Reader, groups: Sequence[str], stalls: bool, chance: random.Random) -> None:
        """Comes with its cursor, stays a while, goes, and comes back to any node."""
        while True:
            cursor, index = reader.cursor(), self._choose(chance)
            query: dict[str, Any] = {"groups": ",".join(groups)} if cursor is None else {"cursor": cursor}
            try:
                reader.visit(f"comes to node {index} with {reader.positions()}")
                rcvbuf = chance.randint(*RCVBUF) if stalls else None
                visitor = await visit(self._door(index), reader, query, rcvbuf)
            except HANDSHAKE_TROUBLE as exc:
                reader.visit(repr(exc))
                await asyncio.sleep(0.1 + chance.random() / 5)
                continue
            self._here[reader] = visitor
            try:
                await self._stay(visitor, chance.expovariate(1 / self._churn_s), chance if stalls else None)
            finally:
                await visitor.cut()
                reader.visit(f"gone {visitor.code}")
            self._closed(reader, visitor)
            if visitor.error is not None:
                self.ledger.complain(f"{reader.name}: {visitor.error!r}")
                return
            await asyncio.sleep(chance.random() * (0 if self._leaving else self._churn_s / 4))

    def _closed(self, reader: Reader, visitor: Visitor) -> None:
        """Who ends a visit, and why, where there is no reason that it should end."""
        if visitor.ended_s is None:
            return
        self.ends[visitor.code] = self.ends.get(visitor.code, 0) + 1
        # Who has read nothing for a while may be replaying for longer, and then hears 1012 when its node goes.
        is_excused = visitor.ended_s <= SETTLED_S or (visitor.has_stalled and visitor.code == 1012)
        if self._must_stay and not is_excused:
            at_s = self.now_s()
            self.ledger.complain(f"{reader.name}: closed with {visitor.code} after {visitor.ended_s:.1f} s, {at_s:.3f}")

    async def _stay(self, visitor: Visitor, stay_s: float, stalls: random.Random | None) -> None:
        """So long, or until the node ends it; at the end of the scenario everybody stays, and reads."""
        until_s = time.monotonic() + stay_s
        while not visitor.gone.is_set() and (time.monotonic() < until_s or self._leaving):
            read_s = 0.5
            if stalls is not None and not self._leaving:
                visitor.stall()
                await asyncio.sleep(stalls.uniform(*STALL_S))
                visitor.go_on()
                read_s = stalls.uniform(*READ_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(read_s):
                    await visitor.gone.wait()

    # Faults

    async def _play(self) -> None:
        pushing_s, idle_s = time.monotonic(), _idle_s()
        names, weights = list(self._faults), list(self._faults.values())
        end_s = time.monotonic() + self.seconds
        while (
            names
            and sum(self.done.values()) < self._most
            and (wait_s := self._chance.uniform(0.5, 1.5) * self._every_s) < end_s - time.monotonic()
        ):
            await asyncio.sleep(wait_s)
            (name,) = self._chance.choices(names, weights)
            self.done[name] = self.done.get(name, 0) + 1
            fault: Callable[[], Awaitable[None]] = getattr(self, f"_{name}")
            self._calm_s = math.inf
            await fault()
            self._calm_s = self.now_s() + CALM_S
        if self._most > sum(self.done.values()):
            await asyncio.sleep(max(0, end_s - time.monotonic()))
        self.latest_s = self.ledger.latest_s(self.readers)
        pushing_s, idle_s = time.monotonic() - pushing_s, _idle_s() - idle_s
        self.pushes_per_second = len(self.ledger.pushes) / pushing_s
        self.busy_share = 1 - idle_s / pushing_s / (os.cpu_count() or 1)
        # A Redis whose disk was full waits with its log for as long as its clock was set back meanwhile; it refuses all
        # writes until then (flushAppendOnlyFile in its aof.c).
        self._clocks["redis"].set(0)
        # The last messages come while nobody listens: only looking finds them.
        self._say("kill_pubsub, then the last messages")
        self._redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        self._pushing = False
        await asyncio.wait_for(self._push_each("last", self._groups, False, self._chance), scaled(self._quiet_s))

    async def _failed_over(self, begun_s: float, redis_ms: int) -> None:
        before, self._client = self._client, self._make_client()
        await before.aclose()
        self.ledger.flushed(begun_s, redis_ms)

    async def _flush_redis(self) -> None:
        self._say("flush Redis")
        begun_s = self.ledger.now_s()
        with self._redis.client.pipeline(transaction=True) as step:
            step.flushall()
            step.time()
            _, done = step.execute()
        self.ledger.flushed(begun_s, _ms(*done))

    async def _flush_before_answer(self) -> None:
        """A push is accepted and lost in one step, and its answer read when clients have been told of the loss."""
        self._say("flush Redis behind a push that is not answered yet")
        push = self.ledger.push("late", self._chance.choice(self._groups))
        followers = [told for reader in self.readers if (told := reader.told.get(push.stream)) is not None]
        connection = await self._client.connection_pool.get_connection()
        try:
            self.ledger.asked(push)
            add = ("XADD", "tidegate:push", "*", "group", push.group, "data", json.dumps(push.data))
            step = [("MULTI",), add, ("FLUSHALL",), ("TIME",), ("EXEC",)]
            await connection.send_packed_command(connection.pack_commands(step))
            await eventually(lambda: any(told.resets_s and told.resets_s[-1] > push.asked_s for told in followers), 20)
            *_, (entry, _, done) = [await connection.read_response() for _ in step]
        finally:
            await self._client.connection_pool.release(connection)
        self.ledger.accepted(push, entry=entry.decode())
        self.ledger.flushed(push.asked_s, _ms(*done))

    # End

    async def _settle(self) -> None:
        """Faults are over: everything comes right by itself, and then is looked at."""
        try:
            for index in self._indexes:
                await self._ready(index)
            await asyncio.wait_for(asyncio.gather(*self._pushers), scaled(self._quiet_s))
            await eventually(lambda: self._redis.command("XLEN", "tidegate:push") == 0, self._quiet_s)
            self._leaving = True  # from here on everybody stays
            await self.quiet.burst_at_last(self._quiet_s)
            tops, kept = {}, {}
            groups = [*self._groups, *self._quiet_members]
            for stream, path in (("all", "all"), *((f"group:{group}", f"groups/{group}") for group in groups)):
                tops[stream], kept[stream] = await self._journal(path)
        except (AssertionError, TimeoutError) as exc:
            self.ledger.complain(f"did not come right: {exc!r}")
            return
        if self._count_resets():
            self.ledger.resets_allowed_s.append(self.ledger.now_s())

        def behind() -> list[str]:
            return [
                f"{reader.name} {stream} {told.epoch}/{told.offset} of {tops[stream]}"
                for reader in self.readers
                for stream, told in reader.told.items()
                if stream in tops and (told.epoch, told.offset) != tops[stream]
            ]

        with contextlib.suppress(AssertionError):
            await eventually(lambda: not behind(), self._quiet_s)
        self.ledger.wrong += [f"deaf: {text}" for text in behind()]
        for reader in self.readers:
            offsets = {stream: offset for stream, (_, offset) in tops.items()} | {f"client:{reader.name}": 0}
            reader.settle(RETENTION, offsets, kept)
        rejected = self._redis.command("XLEN", "tidegate:push:rejected")
        if rejected:
            self.ledger.complain(f"{rejected} entries were rejected")
        self.ledger.wrong += [f"logged: {line}" for line in self._complaints()]

    def _count_resets(self) -> int:
        """How often every epoch has changed."""
        return sum(line.count('"redis.went_back"') for node in self._nodes + self._old for line in node.lines())

    async def _journal(self, path: str) -> tuple[tuple[str, int], set[int]]:
        """Its top, and the ids of all that it still holds."""
        url = f"http://127.0.0.1:{self._internal[0]}/api/{path}/history"
        body: dict[str, Any] = {}
        ids: set[int] = set()

        async def read() -> bool:
            """Page by page: an answer is cut where it gets too large."""
            nonlocal body
            query = {"limit": "1000"}
            if body.get("messages"):
                query |= {"epoch": body["epoch"], "offset": str(body["messages"][-1]["offset"])}
            with contextlib.suppress(*TROUBLE):
                async with self._session.get(url, params=query) as answer:
                    body = await answer.json()
                    ids.update(message["data"]["id"] for message in body.get("messages", ()))
            return body.get("more") is False

        try:
            await eventually(read, self._quiet_s)
        except AssertionError:
            raise AssertionError(f"{path}: {str(body)[:200]}") from None
        return (body["epoch"], body["top"]), ids


def _ms(seconds: bytes | int, microseconds: bytes | int) -> int:
    return int(seconds) * 1000 + int(microseconds) // 1000


def _idle_s() -> float:
    """Seconds that the machine's cores have had nothing to do, all together (proc(5))."""
    fields = Path("/proc/stat").read_text().split(maxsplit=6)
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")


async def _main(args: argparse.Namespace) -> None:
    """The folder with what the nodes have logged stays where something was wrong."""
    folder = Path(tempfile.mkdtemp(prefix="tidegate-faults-"))
    faults = dict.fromkeys(args.faults, 1) or None
    options = {"plant": args.plant, "edge": args.edge, "fsync": args.fsync, "faults": faults, "most": args.most}
    scenario = Scenario(
        args.seed, args.seconds, folder, before=last_release() if args.last_release else None, **options
    )
    try:
        await scenario.run()
        shutil.rmtree(folder)
    finally:
        pushes, ends, resets = len(scenario.ledger.pushes), scenario.ends, scenario.resets
        print(f"seed {args.seed}, {pushes} pushes, faults {scenario.done}, ends {ends}, resets {resets}, {folder}")
    print("\n".join(scenario.log))


def run(folder: Path, seconds: float, *, seed: int | None = None, **options: Any) -> Scenario:
    """On a loop of its own; the seed is in the output and in what fails."""
    scenario = Scenario(secrets.randbelow(1_000_000) if seed is None else seed, seconds, folder, **options)
    print(f"seed {scenario.seed}")
    uvloop.run(scenario.run())
    assert scenario.pushes_per_second >= CHECKED_PER_S
    return scenario


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("seed", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--plant", default="none")
    parser.add_argument("--edge")
    parser.add_argument("--fsync", default="always")
    parser.add_argument("--faults", nargs="*", default=[])
    parser.add_argument("--most", type=int, default=1000)
    parser.add_argument("--last-release", action="store_true", help="what all nodes are of at first")
    asyncio.run(_main(parser.parse_args()))
