"""A node's life with Redis: the connection, who is on the roster, and whether Redis still knows what it knew.

Theory of operation (the argument is in docs/decisions/0010). An *incarnation* is one Redis process in one time as
master; its data cannot go back. Redis holds the *generation* (the first part of every epoch), the incarnation in which
its data was last found whole, a count of writes, and the roster of nodes. A node remembers the generation, the highest
count it has seen, and the roster.

    DOWN -> BEGINNING   connected: the server is a master, new enough, and not evicting
    BEGINNING -> UP     ``begin.lua``: same incarnation; or another one and everybody on the roster has voted that
                        nothing is missing; or else the generation has changed, and with it every epoch.
                        A node that was not on the roster waits until the others have seen it there
                        Where everybody had left in an orderly way, nobody need vote
    UP -> BEGINNING     a script said STALE, or a beat found another incarnation
    any -> DOWN         the connection ended, or an answer was late

Every script is given generation and node, and does nothing for one that is stale.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import Callable
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from tidegate import log
from tidegate.brokers.contract import NodeChange
from tidegate.brokers.redis import scripts as redis_scripts
from tidegate.brokers.redis.pipeline import TROUBLE, Address, Argument, ConnectionLost, Pipeline
from tidegate.brokers.redis.scripts import KeyNames, Script
from tidegate.brokers.redis.server import SETTINGS, Disk, ServerInfo, fields
from tidegate.brokers.redis.vitals import Vitals
from tidegate.core.errors import BrokerDown, InternalError
from tidegate.core.model import NodeInfo
from tidegate.tasks import Tasks


class Timing(msgspec.Struct, frozen=True):
    """Seconds. ``sure_s`` must be less than ``silent_s`` (docs/decisions/0010)."""

    operation_s: float = 3.0  # until a command must be answered
    wait_s: float = 1.0  # of an operation for Redis to come back
    start_s: float = 5.0  # until the first exchange must have been
    beat_s: float = 1.0
    sure_s: float = 3.0  # after its last beat a node knows that nobody unknown to it has written
    synced_s: float = 60.0  # after its last beat it knows that a server which syncs is still the one to ask
    gone_s: float = 1.5  # without a beat, and with nobody on its pub/sub connection: its process has ended
    silent_s: float = 4.0  # after which a node that joins need not be seen by another
    dead_s: float = 10.0  # without a beat: off the roster, its connections gone from presence
    vote_s: float = 3.0  # until everybody must have voted
    farewell_s: float = 600.0  # after everybody has left it is believed that nothing came since (docs/decisions/0084)
    check_s: float = 5.0  # in which the tops of all followed streams are looked at
    pulse_s: float = 3.0  # without one the pub/sub connection is made anew
    lease_s: float = 5.0  # of the node that reads the ingress


_TRANSIENT = ("OOM ", "MISCONF ", "LOADING ", "READONLY ", "NOREPLICAS ", "MASTERDOWN ", "BUSY ", "FENCED ", "NOAUTH ")
_UNSAVED = "Redis has not yet written to its disk that nodes are back"
_ANOTHER_SERVER = ("READONLY ", "MASTERDOWN ", "LOADING ", "NOAUTH ")  # this one is no longer the one to ask


class ClusterMembership:
    """``common_s``: how long a common epoch may be used (docs/decisions/0013). ``on_up(changed)`` is called each time
    Redis may be used again; ``changed`` where what this node had written about itself may be gone."""

    def __init__(
        self,
        address: Address,
        keys: KeyNames,
        node: str,
        timing: Timing,
        tasks: Tasks,
        *,
        events: int,
        common_s: float,
        on_up: Callable[[bool], None],
    ) -> None:
        self.keys = keys
        self.node = node
        self.timing = timing
        self.generation = ""
        self.incarnation = ""
        self.members: dict[str, int] = {}  # node -> its last beat, Redis' ms
        self.info = NodeInfo(node, "", 0, 0, False, None)
        self.clock_off_ms: float | None = None  # this machine's time of day less Redis', at the last beat
        self.on_node: Callable[[str, NodeChange], None] = lambda node, what: None
        self._known: dict[str, int] | None = None  # the members of whom ``on_node`` was told
        self._on_up = on_up
        self.up = asyncio.Event()
        self.up_since_s = 0.0
        self.vitals = Vitals(self.up.is_set)
        self._outage: tuple[float, str] | None = None  # since when Redis is away, and what ended it
        self._address = address
        self._tasks = tasks
        self._events = events
        self._common_ms = int(common_s * 1000)
        self._pipeline: Pipeline | None = None
        self._writes = 0
        self._roster = 0  # as last seen
        self._gone_ms = 0  # the newest last beat of those who were taken off it because their process had ended
        self._now_ms = 0  # Redis' time at the last beat
        self._beaten_s = -math.inf  # when the last answered beat was sent, or a vote
        self._synced_beats: int | None = None  # how many there were at that one, of all nodes; None: it was not synced
        self._vouches = False  # the incarnation that it knows has ended before anything could pass it by
        self._beat_due = asyncio.Event()
        self._is_stale = False
        self._may_ask = True  # for the server's settings: it has not refused
        self._leaves = asyncio.Event()
        self._error = "not connected"
        self._patience: asyncio.Timeout | None = None  # of who waits for the start

    @property
    def may_ask(self) -> bool:
        """Whether the server tells this user its settings."""
        return self._may_ask

    # Asking

    async def run(self, script: Script, keys: list[str], *args: Argument) -> Any:
        """The script's answer. Raises BrokerDown, and Internal for what Redis finds wrong with the data."""
        deadline_s = _now_s() + self.timing.operation_s
        while True:
            pipeline = await self._ready(deadline_s)
            try:
                return await pipeline.evaluate(
                    script, [self.keys.life, self.keys.nodes, *keys], [self.generation, self.node, *args]
                )
            except ResponseError as exc:
                if not str(exc).startswith("STALE"):
                    raise self._judge(exc, pipeline) from exc
                if pipeline is self._pipeline:
                    self._become_stale()

    async def commands(self, *commands: tuple[Argument, ...]) -> list[Any]:
        """Their answers; all leave in one write. Raises as ``run``."""
        pipeline = await self._ready(_now_s() + self.timing.operation_s)
        answers = [pipeline.call(*command) for command in commands]
        found: list[Any] = []
        failed: BaseException | None = None
        for answer in answers:
            try:
                found.append(await answer)
            except ResponseError as exc:
                failed = failed or self._judge(exc, pipeline)
            except BrokerDown as exc:
                failed = failed or exc
        if failed is not None:
            raise failed
        return found

    def note(self, writes: int) -> None:
        """A count seen in an answer or a wake-up of this generation."""
        if writes > self._writes:
            self._writes = writes

    def alive(self, node: str) -> bool:
        """Whether ``node`` has beaten lately, as far as is known here."""
        beat = self.members.get(node)
        return node == self.node or (beat is not None and self._now_ms - beat <= self.timing.dead_s * 1000)

    def _judge(self, exc: ResponseError, pipeline: Pipeline) -> BrokerDown | InternalError:
        text = str(exc)
        if text.startswith(_ANOTHER_SERVER):
            pipeline.end(text)
        if text.startswith(_TRANSIENT):
            return BrokerDown(f"Redis refuses: {text[:200]}")
        log.warning("redis.refused", error=text[:200])
        return InternalError(f"Redis refuses: {text[:100]}")

    async def _ready(self, deadline_s: float) -> Pipeline:
        if not self.up.is_set():
            wait_s = min(self.timing.wait_s, deadline_s - _now_s())
            try:
                async with asyncio.timeout(max(wait_s, 0)):
                    await self.up.wait()
            except TimeoutError:
                raise BrokerDown(f"Redis is not there: {self._error}") from None
        elif _now_s() > deadline_s:
            raise BrokerDown("Redis changes too fast")
        assert self._pipeline is not None
        return self._pipeline

    # Living

    async def start(self) -> None:
        """Raises BrokerDown or ValueError."""
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks.spawn(self._live(first), "redis life")
        try:
            async with asyncio.timeout(self.timing.start_s) as self._patience:
                await first
        except TimeoutError:
            raise BrokerDown(self._error) from None
        finally:
            self._patience = None

    async def stop(self) -> None:
        """Leaves the roster, if Redis is there. The tasks are the caller's to end."""
        pipeline = self._pipeline
        if pipeline is not None and self.up.is_set():
            self._leaves.set()  # a beat behind it would join again
            with contextlib.suppress(BrokerDown, ResponseError):  # its lease ends
                await self._leave(pipeline)
        self.up.clear()
        if pipeline is not None:
            pipeline.end("stopped")

    async def _leave(self, pipeline: Pipeline) -> None:
        """The last of all nodes says farewell, where who comes next could know that the disk has its coming."""
        server = await self.inspect(pipeline)
        is_fit = server.owns_its_data and await Disk(pipeline, server).could_tell()
        farewell_ms = int(self.timing.farewell_s * 1000) if is_fit else 0
        await pipeline.evaluate(
            redis_scripts.LEAVE,
            [self.keys.life, self.keys.nodes, self.keys.infos],
            [self.generation, self.node, server.incarnation, self.keys.nodes_channel, farewell_ms],
        )

    async def _live(self, first: asyncio.Future[None]) -> None:
        pause_s = 0.02
        while True:
            try:
                await self._session(first)
            except BrokerDown as exc:
                self._error = str(exc)
                if isinstance(exc, ConnectionLost) and self._beaten_within(self.timing.sure_s):
                    self._vouches = True
            except (ResponseError, *TROUBLE) as exc:
                self._error = str(exc)
            except ValueError as exc:
                self._error = str(exc)
                if not first.done():
                    first.set_exception(exc)
                    return
                log.error("redis.unusable", error=str(exc))
            pause_s = 0.02 if self.up.is_set() else min(pause_s * 2, 0.5)
            if self.up.is_set():
                self.up.clear()
                self._outage = _now_s(), self._error
                self.vitals.lost()
                log.info("redis.lost", error=self._error)
            await asyncio.sleep(pause_s)

    async def _session(self, first: asyncio.Future[None]) -> None:
        """From connect until the link ends, which raises BrokerDown."""
        connection = await self._address.connect(self.timing.operation_s)
        self.vitals.connected("commands")
        pipeline = Pipeline(
            connection, self.timing.operation_s, on_end=self._beat_due.set, on_answer=self.vitals.seconds.observe
        )
        self._may_ask = True
        try:
            server = await self.inspect(pipeline)
            self._check(server, strict=not first.done())
            for script in redis_scripts.ALL:
                await pipeline.call("SCRIPT", "LOAD", script.text)
            while True:
                changed = await self._begin(pipeline, server)
                self._pipeline = pipeline
                self.up_since_s = _now_s()
                self.up.set()
                if not first.done():
                    first.set_result(None)
                self._on_up(changed)
                await self._beat_on(pipeline, server)
                self.up.clear()
                server = await self.inspect(pipeline)
                self._check(server, strict=False)
        finally:
            pipeline.end("ended")

    async def inspect(self, pipeline: Pipeline) -> ServerInfo:
        """Which server this is. Raises BrokerDown if it is not a master that may be asked."""
        calls = [pipeline.call("INFO", section) for section in ("server", "replication", "memory")]
        if self._may_ask:
            calls.append(pipeline.call("CONFIG", "GET", *SETTINGS))
        # Each is looked at: of several that fail, the first would hide that this was cancelled.
        answers = await asyncio.gather(*calls, return_exceptions=True)
        config = answers.pop() if self._may_ask else None
        info: dict[str, str] = {}
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            info |= fields(answer)
        self._may_ask = isinstance(config, list)
        self.vitals.inspected(info)
        server = ServerInfo.of(info, config if isinstance(config, list) else None)
        if server.role != "master":
            raise BrokerDown("this Redis is no master")
        return server

    def _check(self, server: ServerInfo, *, strict: bool) -> None:
        """Raises ValueError for a server that cannot be used."""
        server.check()
        if server.policy != "noeviction":
            text = f"Redis has maxmemory-policy {server.policy}, which throws journals away; set noeviction"
            if strict:
                raise ValueError(text)
            log.warning("redis.evicts", message=text)

    async def _begin(self, pipeline: Pipeline, server: ServerInfo) -> bool:
        """Returns when Redis may be used; True where what this node had written about itself may be gone."""
        sure = "1" if self._vouches or self._beaten_within(self.timing.sure_s) else "0"
        if sure == "0" and not server.was_replica and self._beaten_within(self.timing.synced_s):
            sure = "synced"
        self._vouches = False  # what has ended has a successor, or has not ended
        self._is_stale = False
        while True:
            if sure == "1" and server.incarnation != self.incarnation:
                self._beaten_s = _now_s()  # without its vote the others do not go on
            answer = await pipeline.evaluate(
                redis_scripts.BEGIN,
                [self.keys.life, self.keys.nodes, self.keys.infos, self.keys.votes(server.incarnation)],
                [
                    secrets.token_hex(4),
                    self.node,
                    server.incarnation,
                    self.generation,
                    self._writes,
                    sure,
                    " ".join([self.node, *self.members]),
                    msgspec.json.encode(self.info),
                    int(self.timing.vote_s * 1000),
                    self.keys.nodes_channel,
                    self._common_ms,
                    "" if self._synced_beats is None else self._synced_beats,
                    "1" if server.owns_its_data else "0",
                ],
            )
            outcome = answer[0].decode()
            if outcome != "wait":
                break
            await asyncio.sleep(min(0.1, self.timing.vote_s / 10))
        generation, joined = answer[1].decode(), int(answer[3])
        if outcome == "lost":
            message = "acknowledged writes may be lost: every epoch changes"
            why = answer[5].decode()
            self.vitals.went_back(why)
            log.warning("redis.went_back", message=message, why=why)
        elif outcome == "new" and self.generation:
            self.vitals.emptied()
        changed = generation != self.generation or joined > 0
        if generation != self.generation:
            self._writes = 0
            self.members = {}
        self.generation, self.incarnation = generation, server.incarnation
        self.note(int(answer[2]))
        if joined:
            self._roster = joined
            await self._be_seen(pipeline, joined)
        else:
            await self._beat(pipeline)
        await self._be_saved(pipeline, server, answer[6].decode())
        log.info("redis.ready", outcome=outcome, generation=generation, version=server.version, **self._end_outage())
        return changed

    def _end_outage(self) -> dict[str, object]:
        """For the log: how long Redis was away, and why; nothing where it was not."""
        outage, self._outage = self._outage, None
        return {} if outage is None else {"outage_s": round(_now_s() - outage[0], 3), "error": outage[1]}

    async def _be_seen(self, pipeline: Pipeline, joined: int) -> None:
        """Returns when everybody on the roster knows of this node, so that none of them would vote without it; and who
        was taken off it would not either, should it be alive."""
        while True:
            roster = await self._beat(pipeline)
            unaware = [beat for beat, seen in roster.values() if seen < joined]
            if self._now_ms - max(self._gone_ms, *unaware, 0) > self.timing.silent_s * 1000:
                return
            await asyncio.sleep(min(0.1, self.timing.beat_s / 5))

    async def _be_saved(self, pipeline: Pipeline, server: ServerInfo, unsaved: str) -> None:
        """Returns when the farewell that is over can be believed no more: Redis' disk has what came after it, or its
        time has passed (docs/decisions/0084). At a start this takes as long as it must."""
        disk, pause_s = Disk(pipeline, server), 0.02
        while unsaved and self._now_ms <= int(unsaved):
            if await disk.has_all():
                await self._beat(pipeline, saved=unsaved)
                return
            if await pipeline.call("HGET", self.keys.life, "unsaved") != unsaved.encode():
                return  # another node knows
            if pause_s == 0.02:
                log.info("redis.awaited", message=_UNSAVED)
            self._error = _UNSAVED
            if self._patience is not None and not self._patience.expired():
                self._patience.reschedule(_now_s() + self.timing.start_s)
            await self._beat(pipeline)
            pause_s = min(2 * pause_s, self.timing.beat_s)
            await asyncio.sleep(pause_s)

    async def _beat(self, pipeline: Pipeline, *, syncs: bool = False, saved: str = "") -> dict[str, tuple[int, int]]:
        """The roster: node -> (last beat, roster seen). ``syncs``: as the server has said just now."""
        sent_s, wall_s = _now_s(), time.time()
        answer = await pipeline.evaluate(
            redis_scripts.BEAT,
            [self.keys.life, self.keys.nodes, self.keys.infos, self.keys.events, self.keys.lost],
            [
                self.generation,
                self.node,
                self.incarnation,
                msgspec.json.encode(self.info),
                self._roster,
                int(self.timing.dead_s * 1000),
                self.keys.prefix,
                self._events,
                self._common_ms,
                int(self.timing.gone_s * 1000),
                saved,
            ],
        )
        self.note(int(answer[0]))
        if int(answer[1]) != self._roster:
            self._beat_due.set()  # the next beat says that it was seen
        self._roster, self._now_ms = int(answer[1]), int(answer[2])
        self.clock_off_ms = round((wall_s + time.time()) * 500 - self._now_ms, 1)
        self._synced_beats = int(answer[3]) if syncs else None
        self._gone_ms = int(answer[4])
        roster = {answer[i].decode(): (int(answer[i + 1]), int(answer[i + 2])) for i in range(5, len(answer), 3)}
        self.members = {node: beat for node, (beat, _) in roster.items()}
        self._tell_changes()
        self._beaten_s = sent_s
        return roster

    def _tell_changes(self) -> None:
        """Who was there at the first beat is no news."""
        known, self._known = self._known, self.members
        if known is None:
            return
        for node in self.members.keys() - known.keys():
            self.on_node(node, "came")
        for node, beat in known.items():
            if node not in self.members and node != self.node:
                silent = self._now_ms - beat > self.timing.dead_s * 1000
                self.on_node(node, "died" if silent or beat <= self._gone_ms else "stopped")

    async def _beat_on(self, pipeline: Pipeline, server: ServerInfo) -> None:
        """Returns in doubt. Raises BrokerDown when the link has ended."""
        while True:
            try:
                async with asyncio.timeout(self.timing.beat_s):
                    await self._beat_due.wait()
            except TimeoutError:
                pass
            if pipeline.error is not None:
                raise BrokerDown(pipeline.error)
            self._beat_due.clear()
            if self._leaves.is_set():
                continue
            if self._is_stale:
                return
            present = await self.inspect(pipeline)
            if self._leaves.is_set():
                continue
            if present.incarnation != server.incarnation:
                return
            try:
                await self._beat(pipeline, syncs=present.syncs)
            except ResponseError as exc:
                if not str(exc).startswith("STALE"):
                    raise self._judge(exc, pipeline) from exc
                return

    def _become_stale(self) -> None:
        self.up.clear()
        self._is_stale = True
        self._beat_due.set()

    def beat_now(self) -> None:
        """The roster has changed: somebody waits for this node's next beat."""
        self._beat_due.set()

    def _beaten_within(self, seconds: float) -> bool:
        """Within ``sure_s``: who it has not heard of must have waited for it."""
        return _now_s() - self._beaten_s <= seconds

    async def known_nodes(self) -> list[NodeInfo]:
        (infos,) = await self.commands(("HVALS", self.keys.infos))
        nodes = [msgspec.json.decode(raw, type=NodeInfo) for raw in infos]
        return [info for info in nodes if self.alive(info.node)]


def _now_s() -> float:
    return asyncio.get_running_loop().time()
