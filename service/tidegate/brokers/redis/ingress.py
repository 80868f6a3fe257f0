"""Push through Redis: ``XADD tidegate:push '*' group news data '{"n":1}'`` becomes a push.

One node at a time reads, under a lease that every write of its round is fenced by (``ingress.lua``, ``publish.lua``).
An entry is journalled, then acknowledged and deleted. One that was journalled by a node that died before it could
acknowledge is known by its id, which is remembered until then. Within a stream an entry that fails holds up those
behind it; what can never be taken is rejected.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from time import monotonic

import msgspec
from redis.exceptions import ResponseError

from tidegate import log
from tidegate.brokers.redis import scripts as redis_scripts
from tidegate.brokers.redis.backlog import REASON, Backlog
from tidegate.brokers.redis.membership import ClusterMembership
from tidegate.brokers.redis.pipeline import TROUBLE, Address, Argument, Pipeline
from tidegate.brokers.redis.streams import KEY_MS, RedisStreams
from tidegate.core.errors import BadPush, BrokerDown, InternalError, KeyReused, NotTried, Refused
from tidegate.core.model import Position, Publication
from tidegate.core.push import NAME_BYTES, PushLimits, check_data, publication

ENTRIES = 200
FAILURES = 5
REJECTED_BYTES = 1024  # of its data
BLOCK_MS = 1000

_decode = msgspec.json.decode


class Entry(msgspec.Struct):
    """One entry of the stream; ``reason`` says why it can never be taken."""

    id: str
    size: int
    publication: Publication
    address: str
    reason: str = ""


class Ingress:
    """``observe(stream, outcome)`` is told of every entry that was settled; ``stream`` is empty where it names none."""

    def __init__(
        self,
        membership: ClusterMembership,
        streams: RedisStreams,
        address: Address,
        limits: PushLimits,
        observe: Callable[[str, str], None],
        backlog: Backlog,
    ) -> None:
        self._observe = observe
        self._membership = membership
        self._streams = streams
        self._address = address
        self._limits = limits
        self._backlog = backlog
        self._token = ""
        self._last = b"0-0"
        self._entries: dict[str, Entry] = {}  # taken and not settled, in the order of their ids
        self._blocking: Pipeline | None = None

    async def run(self) -> None:
        try:
            while True:
                await self._membership.up.wait()
                try:
                    await self._rounds()
                except Refused as exc:
                    log.info("ingress.stopped", error=str(exc))
                self._token = ""
                self._entries = {}
                self._backlog.forget()
                await asyncio.sleep(self._membership.timing.lease_s / 5)
        finally:
            if self._blocking is not None:
                self._blocking.end("stopped")

    async def stop(self) -> None:
        """Gives the lease away at once."""
        if self._token and self._membership.up.is_set():
            with contextlib.suppress(Refused):  # it ends by itself
                await self._membership.commands(("PEXPIRE", self._membership.keys.push_lease, 1))

    async def _rounds(self) -> None:
        """Until another node has the lease, or Redis is lost, which raises BrokerDown."""
        done: list[Entry] = []
        failed: list[Entry] = []
        while True:
            rejected = [entry for entry in self._entries.values() if entry.reason]
            more = await self._round(done, rejected, failed)
            if not self._token:
                return
            for stream in await self._backlog.keep_to_most(self._token, monotonic(), REJECTED_BYTES):
                self._observe(stream, "rejected")
                self._backlog.note_rejected(REASON)
            for entry in done:
                self._observe(entry.publication.stream, "accepted")
            for entry in rejected:
                self._observe(entry.publication.stream, "rejected")
                self._backlog.note_rejected(entry.reason)
                log.info("ingress.rejected", id=entry.id, stream=entry.address, reason=entry.reason)
            done, failed = [], []
            waiting = [entry for entry in self._entries.values() if not entry.reason]
            if waiting:
                done, failed = await self._journal(waiting)
                for entry in done:
                    del self._entries[entry.id]
                if failed:
                    await asyncio.sleep(0.1)
            elif not more and not self._entries:
                await self._wait()

    async def _round(self, done: list[Entry], rejected: list[Entry], failed: list[Entry]) -> bool:
        """Settles, and takes what comes next. True if something came."""
        keys = self._membership.keys
        names = [keys.push, keys.push_lease, keys.push_failures, keys.push_rejected]
        args: list[Argument] = [
            self._token,
            int(self._membership.timing.lease_s * 1000),
            ENTRIES - len(self._entries) + len(rejected),
            max(self._limits.data_bytes, NAME_BYTES),
            KEY_MS,
            len(done),
        ]
        for entry in done:
            key = entry.publication.key
            kind = ("id", entry.id) if key is None else ("key", key)
            names.append(keys.dedup_key(entry.publication.stream, *kind))
            args += [entry.id, int(key is not None)]
        args.append(len(rejected))
        for entry in rejected:
            data = entry.publication.data[:REJECTED_BYTES]
            args += [entry.id, entry.address, entry.size, entry.reason, data]
        args.append(len(failed))
        args += [entry.id for entry in failed]
        token, last, counts, found = await self._membership.run(redis_scripts.INGRESS, names, *args)
        if self._token and token.decode() != self._token:
            raise BrokerDown("the ingress lease is gone, or another node has it")
        self._token, self._last = token.decode(), last
        for entry in rejected:
            del self._entries[entry.id]
        for entry, count in zip(failed, counts, strict=True):
            if int(count) >= FAILURES:
                entry.reason = entry.reason or f"failed {FAILURES} times"
        for id, size, fields in found:
            entry = self._read(id.decode(), int(size), fields)
            self._entries[entry.id] = entry
        return bool(found)

    async def _journal(self, entries: list[Entry]) -> tuple[list[Entry], list[Entry]]:
        """Those that are in a journal, and those that failed by themselves. Raises BrokerDown for a failure that will
        pass: then nothing goes on."""
        answers = await self._streams.publish(
            [entry.publication for entry in entries], ids=[entry.id for entry in entries], token=self._token
        )
        done: list[Entry] = []
        failed: list[Entry] = []
        down: BrokerDown | None = None
        for entry, answer in zip(entries, answers, strict=True):
            match answer:
                case Position():
                    done.append(entry)
                case KeyReused():
                    entry.reason = answer.code
                case NotTried():
                    pass
                case BrokerDown():
                    down = answer
                case InternalError() | Refused():
                    failed.append(entry)
        if down is not None and not done:
            raise down
        return done, failed

    async def _wait(self) -> None:
        """Until there may be an entry, or the lease must be renewed."""
        try:
            if self._blocking is None or self._blocking.error is not None:
                connection = await self._address.connect(self._membership.timing.operation_s)
                self._membership.vitals.connected("ingress")
                self._blocking = Pipeline(connection, self._membership.timing.operation_s + BLOCK_MS / 1000)
            wait_ms = min(BLOCK_MS, int(self._membership.timing.lease_s * 200))
            await self._blocking.call(
                "XREAD", "COUNT", 1, "BLOCK", wait_ms, "STREAMS", self._membership.keys.push, self._last
            )
        except (BrokerDown, ResponseError, *TROUBLE):
            await asyncio.sleep(0.1)  # rounds go on without a bell

    def _read(self, id: str, size: int, fields: list[bytes]) -> Entry:
        """An entry as it came; where it can't be taken, with its reason. What is too long came cut."""
        names, values = [name.decode(errors="replace") for name in fields[::2]], fields[1::2]
        data = next((value for name, value in zip(names, values, strict=True) if name == "data"), b"")
        entry = Entry(id, size, Publication("", data), "")
        try:
            entry.publication = _publication(names, values)
            entry.address = entry.publication.stream
            check_data(data, self._limits)
            _decode(data)
        except BadPush as exc:
            entry.reason = exc.reason
        except Refused as exc:
            entry.reason = exc.code
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            entry.reason = "bad JSON"
        return entry


def _publication(names: list[str], values: list[bytes]) -> Publication:
    """Raises BadPush."""
    if not set(names) <= {"client", "group", "all", "data", "key", "conflate", "traceparent"}:
        raise _bad("unknown field")
    if len(set(names)) < len(names):
        raise _bad("field given twice")
    fields = dict(zip(names, values, strict=True))
    data, everyone, key = fields.pop("data", None), fields.pop("all", None), fields.pop("key", None)
    conflate, traceparent = fields.pop("conflate", None), fields.pop("traceparent", None)
    address = {kind: id.decode(errors="replace") for kind, id in fields.items()}
    try:
        push = publication(
            data or b"",
            client=address.get("client"),
            group=address.get("group"),
            all=everyone is not None,
            key=None if key is None else key.decode(),
            conflate=None if conflate is None else conflate.decode(errors="replace"),
            traceparent=None if traceparent is None else traceparent.decode(errors="replace"),
        )
    except UnicodeError:
        raise _bad("bad key") from None
    if data is None:
        raise _bad("no data")
    if everyone not in (None, b"1"):
        raise _bad("all must be 1")
    return push


def _bad(reason: str) -> BadPush:
    return BadPush(reason, reason)
