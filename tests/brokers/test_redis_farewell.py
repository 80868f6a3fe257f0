"""Everything is stopped in order and started again, Redis too: nobody is reset where nothing can be missing, and
everybody is where something may be. Source: docs/decisions/0084."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from tests.brokers.contract import info, push
from tests.brokers.nodes import Node, now_ms, shorter, slow_beats
from tests.brokers.server import RedisServer
from tests.brokers.test_redis_life import WENT_BACK, told_that_all_is_well
from tests.support import Logs, eventually
from tidegate.brokers.redis.pipeline import Pipeline
from tidegate.brokers.redis.server import Disk, ServerInfo
from tidegate.core.model import Position

SNAPSHOTS: dict[str, Any] = {"save": "3600 1"}
LOG: dict[str, Any] = {"appendonly": "yes", "appendfsync": "everysec"}
SYNCED: dict[str, Any] = {"appendonly": "yes", "appendfsync": "always"}
LIFE = "tidegate:life"
SLOW = pytest.mark.slow
QUICK = shorter(vote_s=0.2)  # where nobody is there to vote


@pytest.fixture
def went_back(expected_logs: Logs) -> None:
    expected_logs.expect(WENT_BACK)


async def one_push(server: RedisServer) -> Position:
    """Of a node that comes, and leaves in order."""
    async with Node(server, "n1") as node:
        (position,) = await push(node.broker, "group:a", b"1")
    return position


async def is_well(server: RedisServer, position: Position) -> bool:
    async with Node(server, "n9", timing=QUICK) as node:
        return await told_that_all_is_well(node, "group:a", position)


def restarted(server: RedisServer) -> None:
    server.stop()
    server.start()


def restored(server: RedisServer) -> None:
    """It begins with what was copied."""
    server.kill()
    server.restore()
    server.start()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(SNAPSHOTS, id="snapshots"),
        pytest.param(LOG, id="log"),
        pytest.param(SYNCED, id="synced", marks=SLOW),
    ],
)
async def test_a_restart_of_everything_changes_no_epoch(options: dict[str, Any]):
    with RedisServer(**options) as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            await push(one.broker, "group:a", b"1")
            (position,) = await push(two.broker, "group:a", b"2")
        restarted(server)
        async with Node(server, "n3") as one, Node(server, "n4") as two:
            assert server.command("HMGET", LIFE, "parted", "unsaved") == [None, None]
            for node in (one, two):
                assert await told_that_all_is_well(node, "group:a", position)


@pytest.mark.slow
async def test_a_kill_of_a_server_that_synced_the_farewell_changes_no_epoch():
    with RedisServer(**SYNCED) as server:
        position = await one_push(server)
        server.restart()
        assert await is_well(server, position)


@pytest.mark.slow
async def test_a_farewell_that_redis_lost_is_none(went_back: None):
    with RedisServer(**SNAPSHOTS) as server:
        async with Node(server, "n1") as node:
            (position,) = await push(node.broker, "group:a", b"1")
            server.command("SAVE")
        server.restart()
        assert not await is_well(server, position)


@pytest.mark.parametrize(
    ("options", "redis_too"),
    [
        pytest.param(SNAPSHOTS, True, id="snapshots, all"),
        pytest.param(LOG, True, id="log, all", marks=SLOW),
        pytest.param(SNAPSHOTS, False, id="snapshots, nodes", marks=SLOW),
        pytest.param(LOG, False, id="log, nodes", marks=SLOW),
    ],
)
async def test_what_was_served_after_a_farewell_and_lost_is_told(
    went_back: None, options: dict[str, Any], redis_too: bool
):
    """The disk has the farewell, a node comes and serves, and all lose their power: were the farewell still the last
    that the disk has, the next to come would believe it."""
    with RedisServer(**options) as server:
        await one_push(server)
        if redis_too:
            restarted(server)
        elif options is SNAPSHOTS:
            server.command("SAVE")
        server.copy()  # what the disk has if nobody sees to it that it gets more
        node = Node(server, "n2")
        await node.broker.start(node.heard, info("n2"))
        if differs(server):
            server.copy()
        (lost,) = await push(node.broker, "group:a", b"lost")
        await node.die()
        restored(server)
        async with Node(server, "n3", timing=QUICK) as node:
            await push(node.broker, "group:a", b"other", b"more")
            assert not await told_that_all_is_well(node, "group:a", lost)


def differs(server: RedisServer) -> bool:
    """Whether the server has written its data anew since it was copied: that is what a loss of power leaves."""
    made = server.folder.with_suffix(".copy")
    names = ["dump.rdb"] if server.options["appendonly"] == "no" else ["appendonlydir/appendonly.aof.manifest"]
    return any((made / name).read_bytes() != (server.folder / name).read_bytes() for name in names)


@pytest.mark.slow
async def test_who_comes_second_does_not_serve_before_the_disk_has_the_first(
    went_back: None, monkeypatch: pytest.MonkeyPatch
):
    has_all = Disk.has_all
    asked: list[Disk] = []

    async def not_for_the_first(self: Disk) -> bool:
        asked.append(self)
        return self is not asked[0] and await has_all(self)

    monkeypatch.setattr(Disk, "has_all", not_for_the_first)
    with RedisServer(**SNAPSHOTS) as server:
        await one_push(server)
        restarted(server)
        one, two = Node(server, "n2"), Node(server, "n3")
        begins = asyncio.ensure_future(one.broker.start(one.heard, info("n2")))  # noqa: TID251 - awaited below
        await eventually(lambda: asked)
        await two.broker.start(two.heard, info("n3"))
        (lost,) = await push(two.broker, "group:a", b"lost")
        await begins
        await one.die()
        await two.die()
        server.restart()  # what the disk has is what was saved
        async with Node(server, "n4", timing=QUICK) as node:
            await push(node.broker, "group:a", b"other", b"more")
            assert not await told_that_all_is_well(node, "group:a", lost)


@pytest.mark.slow
async def test_a_node_that_starts_waits_for_the_disk_however_long_that_takes(monkeypatch: pytest.MonkeyPatch):
    """Longer than it may take to begin."""
    asked = 0
    has_all = Disk.has_all

    async def late(self: Disk) -> bool:
        nonlocal asked
        asked += 1
        return asked > 9 and await has_all(self)

    monkeypatch.setattr(Disk, "has_all", late)
    with RedisServer(**SNAPSHOTS) as server:
        position = await one_push(server)
        restarted(server)
        node = Node(server, "n2", timing=shorter(start_s=0.5))
        await node.broker.start(node.heard, info("n2"))
        assert asked > 9
        assert await told_that_all_is_well(node, "group:a", position)
        await node.broker.stop()


@pytest.mark.slow
async def test_who_was_killed_says_no_farewell_and_neither_do_the_others_for_it(went_back: None):
    with RedisServer(**SYNCED) as server:
        async with Node(server, "n1") as one:
            async with Node(server, "n2") as two:
                (position,) = await push(two.broker, "group:a", b"1")
                await one.die()
        assert server.command("HGET", LIFE, "parted") is None
        restarted(server)
        assert not await is_well(server, position)


@pytest.mark.slow
async def test_no_farewell_is_said_to_a_redis_whose_data_may_not_be_whole():
    """Another incarnation has been found, and nobody has voted yet."""
    with RedisServer(**SYNCED) as server:
        async with Node(server, "n1", timing=slow_beats()):
            server.command("HSET", LIFE, "incarnation", "another")
        assert server.command("HGET", LIFE, "parted") is None


@pytest.mark.slow
@pytest.mark.parametrize("off_ms", [-1_000_000, 1_000_000], ids=["too old", "of a clock that went back"])
async def test_a_farewell_is_believed_for_its_time_alone(went_back: None, off_ms: int):
    with RedisServer(**SYNCED) as server:
        position = await one_push(server)
        said, until, *rest = server.command("HGET", LIFE, "parted").split()
        server.command("HSET", LIFE, "parted", " ".join([str(int(said) + off_ms), str(int(until) + off_ms), *rest]))
        restarted(server)
        assert not await is_well(server, position)


@pytest.mark.slow
@pytest.mark.parametrize("field", ["roster", "writes"])
async def test_a_farewell_that_somebody_passed_over_is_none(went_back: None, field: str):
    """As 0.2.0 does, which knows of none: it joins, serves, and leaves."""
    with RedisServer(**SYNCED) as server:
        position = await one_push(server)
        server.command("HINCRBY", LIFE, field, 1)
        restarted(server)
        assert not await is_well(server, position)


@pytest.mark.slow
async def test_a_node_that_is_on_the_roster_has_said_no_farewell(went_back: None):
    with RedisServer(**SYNCED) as server:
        position = await one_push(server)
        server.command("HSET", "tidegate:nodes", "n0", f"{now_ms(server)} 1")
        restarted(server)
        assert not await is_well(server, position)


@pytest.mark.slow
async def test_what_a_node_remembers_goes_before_a_farewell(went_back: None):
    """Redis was restored from a copy of while everything had been stopped, and a node ran on."""
    with RedisServer(**SYNCED) as server:
        await one_push(server)
        server.copy()
        async with Node(server, "n2") as node:
            (lost,) = await push(node.broker, "group:a", b"lost")
            restored(server)
            await node.up()
            await push(node.broker, "group:a", b"other")
            assert not await told_that_all_is_well(node, "group:a", lost)


@pytest.mark.slow
async def test_a_replica_that_takes_over_is_not_believed(went_back: None):
    """It may lack what came after the farewell."""
    with RedisServer(**SYNCED) as master, RedisServer(**SYNCED) as replica:
        async with Node(master, "n1") as node:
            (position,) = await push(node.broker, "group:a", b"1")
            replica.command("REPLICAOF", "127.0.0.1", str(master.port))
            await eventually(lambda: replica.client.info("replication")["master_link_status"] == "up", 10)
            present = master.client.info("replication")["master_replid"]  # changes as the first replica comes
            await eventually(lambda: node.broker.membership.incarnation.endswith(present))
            await node.up()
        assert master.command("HGET", LIFE, "parted") is None, "said beside a replica"
        master.command("HSET", LIFE, "parted", farewell(master))
        await eventually(lambda: replica.command("HGET", LIFE, "parted"))
        replica.command("REPLICAOF", "NO", "ONE")
        assert not await is_well(replica, position)


def farewell(server: RedisServer) -> str:
    """One that would be believed."""
    writes, roster = server.command("HMGET", LIFE, "writes", "roster")
    return f"{now_ms(server)} {now_ms(server) + 600_000} {writes} {roster}"


async def test_a_server_that_keeps_nothing_is_asked_for_nothing():
    """No snapshot of its own making appears on its disk, to be read at a later start."""
    with RedisServer() as server:
        position = await one_push(server)
        assert server.command("HGET", LIFE, "parted") is None
        assert await is_well(server, position)
        assert not (server.folder / "dump.rdb").exists()


@pytest.mark.parametrize("refused", ["-bgsave", "-config|get"])
async def test_whoever_may_not_ask_the_disk_says_no_farewell(refused: str):
    """Else the next start would wait for an answer that never comes."""
    with RedisServer(**SNAPSHOTS) as server:
        server.command("ACL", "SETUSER", "default", refused)
        position = await one_push(server)
        assert server.command("HGET", LIFE, "parted") is None
        assert await is_well(server, position)


@pytest.mark.slow
async def test_a_copy_is_not_believed_once_its_farewell_was_taken_away(went_back: None):
    """What docs/upgrading.md has an operator do who restores a copy of while everything was stopped."""
    with RedisServer(**SYNCED) as server:
        await one_push(server)
        server.copy()
        async with Node(server, "n2") as node:
            (lost,) = await push(node.broker, "group:a", b"lost")
        restored(server)
        assert server.command("HDEL", LIFE, "parted") == 1
        async with Node(server, "n3", timing=QUICK) as node:
            await push(node.broker, "group:a", b"other", b"more")
            assert not await told_that_all_is_well(node, "group:a", lost)


class Newer:
    """Answers as Redis 7.2 does, which is not here: ``synced`` is what WAITAOF says, one after the other."""

    def __init__(self, *synced: int) -> None:
        self._synced = list(synced)
        self.asked: list[str] = []

    async def call(self, name: str, *args: Any) -> Any:
        self.asked.append(name)
        match name:
            case "INFO":
                return b"aof_enabled:1\r\naof_rewrite_in_progress:0\r\naof_last_bgrewrite_status:ok\r\n"
            case "WAITAOF":
                return [self._synced.pop(0), 0]
            case "BGREWRITEAOF":
                return b"Background append only file rewriting started"
            case _:
                raise AssertionError(name)


@pytest.mark.parametrize(
    ("synced", "calls", "rewrites"),
    [([1], 1, 0), ([0, 0, 1], 3, 0), ([0] * 6, 8, 1)],
    ids=["at once", "within a second", "where nothing syncs"],
)
async def test_a_newer_redis_is_asked_what_is_on_its_disk(synced: list[int], calls: int, rewrites: int):
    newer = Newer(*synced)
    disk = Disk(cast(Pipeline, newer), ServerInfo.of({}, None))
    answers: list[bool] = []
    while not answers or not answers[-1]:
        answers.append(await disk.has_all())
    assert len(answers) == calls
    assert newer.asked.count("BGREWRITEAOF") == rewrites


async def test_a_newer_redis_keeps_more_than_could_be_written_anew():
    server = ServerInfo.of({"used_memory": str(1 << 40), "connected_slaves": "0"}, [b"appendonly", b"yes"])
    assert await Disk(cast(Pipeline, Newer(0)), server).could_tell()
