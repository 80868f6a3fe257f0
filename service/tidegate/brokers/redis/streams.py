"""Streams in Redis: publishing, reading, and following them without a hole.

Theory of operation. A followed stream has the position up to which it was heard here. A wake-up carries the message
itself. One that follows is passed on at once; anything else (a hole, another epoch) starts a *repair*: the journal is
read from the position on, what is announced meanwhile is held, and passed on behind it. Where nothing is announced, a
look at the top of every followed stream finds it: after each reconnect at once, else within ``check_s``.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterable, Sequence

from tidegate import log
from tidegate.brokers.contract import StreamReceiver
from tidegate.brokers.redis import scripts as redis_scripts
from tidegate.brokers.redis.membership import ClusterMembership
from tidegate.brokers.redis.pipeline import Argument
from tidegate.brokers.redis.pubsub import PubSub
from tidegate.brokers.redis.tail import Tail, Tails
from tidegate.core.errors import BrokerDown, InternalError, KeyReused, NotTried, Refused
from tidegate.core.model import (
    Gap,
    GapReason,
    History,
    Message,
    Position,
    Publication,
    Retention,
    RetentionOf,
    kind_of,
)
from tidegate.tasks import Tasks

KEY_MS = 300_000
ITEMS_AT_ONCE = 100  # of one stream in one script
BYTES_AT_ONCE = 1024 * 1024
PAGE_MESSAGES = 500
PAGE_BYTES = 512 * 1024
HELD_MESSAGES = 1000
TOPS_AT_ONCE = 100
REPAIRS_AT_ONCE = 16
NODE_META_MS = 60_000


class Followed:
    """A stream that this node listens to. ``held`` is None while wake-ups are passed on as they come."""

    __slots__ = (
        "channel",
        "epoch",
        "held",
        "offset",
        "overrun",
        "receiver",
        "repairing",
        "stream",
        "tail",
    )

    def __init__(self, stream: str, channel: bytes, tail: Tail, receiver: StreamReceiver) -> None:
        self.stream = stream
        self.channel = channel
        self.tail = tail
        self.receiver = receiver
        self.epoch = ""
        self.offset = 0
        self.held: list[Message] | None = []  # until the first position is known
        self.overrun = False  # more came than could be held
        self.repairing = False

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.offset)

    def move(self, epoch: str) -> None:
        """It had no message, and its beginning is in another common epoch now."""
        self.epoch = epoch
        self.receiver.on_moved(self.stream, self.position)


class RedisStreams:
    def __init__(
        self,
        membership: ClusterMembership,
        wakeups: PubSub,
        tasks: Tasks,
        *,
        retention: RetentionOf,
        meta_age_s: float,
        tail_bytes: int,
    ) -> None:
        self._membership = membership
        self._wakeups = wakeups
        self._tasks = tasks
        self._retention = retention
        self._meta_age_s = meta_age_s
        self._tails = Tails(tail_bytes, time.monotonic)
        self._followed: dict[str, Followed] = {}
        self._by_channel: dict[bytes, Followed] = {}
        self._reading: dict[tuple[object, ...], asyncio.Future[History]] = {}
        self._repairs = asyncio.Semaphore(REPAIRS_AT_ONCE)
        self.repaired = 0  # messages that no wake-up brought
        self.read = 0  # pages from Redis
        self.shared = 0  # pages that came from a tail or from another's read

    @property
    def tail_bytes(self) -> int:
        return self._tails.size

    def retention(self, stream: str) -> Retention:
        return Retention(10, 60) if kind_of(stream) == "node" else self._retention(stream)

    def _meta_ms(self, stream: str) -> int:
        if kind_of(stream) == "node":
            return NODE_META_MS
        return int((self._meta_age_s + self._retention(stream).age_s) * 1000)

    # Publishing

    async def publish(
        self, publications: Sequence[Publication], *, ids: Sequence[str] = (), token: str = ""
    ) -> list[Position | Refused]:
        """One answer each, as ``Broker.publish``. ``ids``: of ingress entries, in place of keys that are not given;
        then ``token`` is the ingress lease, and what is remembered stays until it is settled."""
        by_stream: dict[str, list[int]] = {}
        for index, publication in enumerate(publications):
            by_stream.setdefault(publication.stream, []).append(index)
        if len(by_stream) == 1:
            return await self._publish_stream(publications, ids, token)
        answers: list[Position | Refused] = [NotTried("not tried")] * len(publications)
        found = await asyncio.gather(
            *(
                self._publish_stream(
                    [publications[i] for i in indices], [ids[i] for i in indices] if ids else (), token
                )
                for indices in by_stream.values()
            )
        )
        for indices, results in zip(by_stream.values(), found, strict=True):
            for index, result in zip(indices, results, strict=True):
                answers[index] = result
        return answers

    async def _publish_stream(
        self, publications: Sequence[Publication], ids: Sequence[str], token: str
    ) -> list[Position | Refused]:
        answers: list[Position | Refused] = []
        while len(answers) < len(publications):
            start = end = len(answers)
            size = 0
            while end < len(publications) and end - start < ITEMS_AT_ONCE and size < BYTES_AT_ONCE:
                size += len(publications[end].data)
                end += 1
            answers += await self._publish_some(publications[start:end], ids[start:end], token)
            if isinstance(answers[-1], (BrokerDown, InternalError, NotTried)):
                break
        answers += [NotTried("an earlier push of this stream failed")] * (len(publications) - len(answers))
        return answers

    async def _publish_some(
        self, publications: Sequence[Publication], ids: Sequence[str], token: str
    ) -> list[Position | Refused]:
        """In one script; fewer answers than publications where one could not be tried."""
        keys, membership = self._membership.keys, self._membership
        stream = publications[0].stream
        retention = self.retention(stream)
        names = [keys.meta(stream), keys.journal(stream), keys.push_lease]
        args: list[Argument] = [
            keys.channel(stream),
            retention.messages,
            max(1, int(retention.age_s * 1000)),
            self._meta_ms(stream),
            0 if token else KEY_MS,
            token,
        ]
        for index, publication in enumerate(publications):
            digest = ""
            if publication.key is not None:
                names.append(keys.dedup_key(stream, "key", publication.key))
            elif ids:
                names.append(keys.dedup_key(stream, "id", ids[index]))
            if publication.key is not None or ids:
                digest = hashlib.blake2b(publication.data, digest_size=16).hexdigest()
            args += [publication.data, publication.client or "", digest, publication.conflate or ""]
            args.append(publication.traceparent or "")
        try:
            reply: bytes = await membership.run(redis_scripts.PUBLISH, names, *args)
        except (BrokerDown, InternalError) as exc:
            return [exc]
        head, *lines = reply.decode().split("\n")
        writes, epoch = head.split(" ")
        membership.note(int(writes))
        return [_answer(line, epoch) for line in lines]

    # Reading

    async def top(self, stream: str) -> Position:
        return (await self._read(stream, None, 0, 0)).start

    async def history(self, stream: str, since: Position | None, messages: int, size: int) -> History:
        followed = self._followed.get(stream)
        if (
            followed is not None
            and since is not None
            and followed.held is None
            and self._wakeups.hearing
            and self._membership.up.is_set()
        ):
            page = self._tails.since(followed.tail, since, followed.position, messages, size)
            if page is not None:
                self.shared += 1
                return page
        key = (stream, since, messages, size)
        flight = self._reading.get(key)
        if flight is not None:
            self.shared += 1
            return await asyncio.shield(flight)
        flight = self._reading[key] = asyncio.get_running_loop().create_future()
        try:
            page = await self._read(stream, since, messages, size)
            flight.set_result(page)
            return page
        except BaseException as exc:
            flight.set_exception(exc if isinstance(exc, Refused) else BrokerDown("the read was given up"))
            flight.exception()  # seen: there may be nobody to share it
            raise
        finally:
            del self._reading[key]

    async def _read(self, stream: str, since: Position | None, messages: int, size: int) -> History:
        keys = self._membership.keys
        retention = self.retention(stream)
        reply = await self._membership.run(
            redis_scripts.READ,
            [keys.meta(stream), keys.journal(stream)],
            max(1, int(retention.age_s * 1000)),
            since.epoch if since else "",
            since.offset if since else 0,
            messages,
            max(size, 1),
        )
        self.read += messages > 0
        writes, epoch, top, start, reason = reply[0].decode().split(" ")
        self._membership.note(int(writes))
        position = Position(epoch, int(start))
        gap = None
        if since is not None and reason != "-":
            first = since.offset + 1 if reason == "expired" else None
            gap = Gap(stream, epoch, first, position.offset, _REASONS[reason])
        page = [_message(stream, epoch, *reply[i : i + 4]) for i in range(1, len(reply), 4)]
        return History(position, int(top), page, gap)

    async def entry(self, stream: str, position: Position) -> Message | None:
        """Past the tail and whatever was announced: neither has all of it."""
        keys, age_ms = self._membership.keys, max(1, int(self.retention(stream).age_s * 1000))
        found = await self._membership.run(
            redis_scripts.ENTRY,
            [keys.meta(stream), keys.journal(stream)],
            age_ms,
            position.epoch,
            position.offset,
        )
        return _message(stream, position.epoch, *found) if found else None

    # Following

    async def subscribe(self, stream: str, receiver: StreamReceiver) -> Position:
        retention = self.retention(stream)
        channel = self._membership.keys.channel(stream).encode()
        followed = Followed(stream, channel, Tail(retention.messages, retention.age_s), receiver)
        self._followed[stream] = self._by_channel[channel] = followed
        try:
            await self._wakeups.add(channel)
            position = await self.top(stream)
        except BaseException:
            self.unsubscribe(stream)
            raise
        followed.epoch, followed.offset = position.epoch, position.offset
        # Not before the caller has the position: it runs on from here without a turn of the loop.
        asyncio.get_running_loop().call_soon(self._pass_held, followed)
        return position

    def unsubscribe(self, stream: str) -> None:
        followed = self._followed.pop(stream, None)
        if followed is not None:
            del self._by_channel[followed.channel]
            self._tails.forget(followed.tail)
            self._wakeups.remove(followed.channel)

    def heard(self, channel: bytes, payload: bytes) -> None:
        """A wake-up came, of a stream that may be followed no longer."""
        followed = self._by_channel.get(channel)
        if followed is None:
            return
        head, _, data = payload.partition(b"\n")
        try:
            epoch, offset, time_ms, writes, client, *words = head.decode().split(" ")
            (conflate,) = words or (None,)
            if epoch == followed.epoch:
                epoch = followed.epoch  # one text for all: who keeps a position keeps its epoch
            message = Message(followed.stream, epoch, int(offset), int(time_ms), data, client or None, conflate)
            count = int(writes)
        except ValueError:  # said by somebody else, who may say anything
            log.warning("wakeup.not_understood", stream=followed.stream)
            return
        if epoch.startswith(self._membership.generation):
            self._membership.note(count)
        if followed.held is None:
            if not self._pass(followed, message):
                self._repair(followed)
        elif len(followed.held) < HELD_MESSAGES:
            followed.held.append(message)
        else:
            followed.overrun = True

    def _pass(self, followed: Followed, message: Message) -> bool:
        """False where a hole, or another epoch, is before it."""
        if message.epoch != followed.epoch or message.offset > followed.offset + 1:
            return False
        if message.offset == followed.offset + 1:
            followed.offset = message.offset
            self._tails.add(followed.tail, message)
            followed.receiver.on_message(message)
        return True

    def _pass_held(self, followed: Followed) -> None:
        """Passes on what was held. Where it does not follow, a repair begins."""
        held, followed.held = followed.held or [], None
        overrun, followed.overrun = followed.overrun, False
        for message in held:
            if self._followed.get(followed.stream) is not followed:
                return
            if not self._pass(followed, message):
                overrun = True
                break
        if overrun:
            self._repair(followed)

    def _repair(self, followed: Followed) -> None:
        if followed.held is None:
            followed.held = []
        if not followed.repairing:
            followed.repairing = True
            self._tasks.spawn(self._read_on(followed), "repair")

    async def _read_on(self, followed: Followed) -> None:
        try:
            async with self._repairs:
                while self._followed.get(followed.stream) is followed:
                    page = await self._read(followed.stream, followed.position, PAGE_MESSAGES, PAGE_BYTES)
                    if self._followed.get(followed.stream) is not followed:
                        return
                    if page.start.epoch != followed.epoch and (page.gap is None or page.gap.first is not None):
                        followed.move(page.start.epoch)
                    if page.gap is not None:
                        self._tails.forget(followed.tail)
                        followed.epoch, followed.offset = page.start.epoch, page.start.offset
                        followed.receiver.on_gap(page.gap, page.start)
                    for message in page.messages:
                        self._pass(followed, message)
                    self.repaired += len(page.messages)
                    if page.complete:
                        break
        except Refused:
            pass  # the next look at its top repairs it
        finally:
            followed.repairing = False
        self._pass_held(followed)

    # Looking

    def look_at_all(self) -> None:
        """Redis, or its wake-ups, may have been away."""
        self._tasks.spawn(self._look_at_all(), "look at all streams")

    async def _look_at_all(self) -> None:
        streams = list(self._followed.values())
        for start in range(0, len(streams), TOPS_AT_ONCE):
            await self._look(streams[start : start + TOPS_AT_ONCE])

    async def look_around(self) -> None:
        """Looks at the top of every followed stream, all within ``check_s``, again and again."""
        check_s = self._membership.timing.check_s
        while True:
            streams = list(self._followed.values())
            if not streams:
                await asyncio.sleep(check_s)
            for start in range(0, len(streams), TOPS_AT_ONCE):
                some = streams[start : start + TOPS_AT_ONCE]
                await asyncio.sleep(check_s * len(some) / len(streams))
                await self._look(some)

    async def _look(self, streams: Iterable[Followed]) -> None:
        """Repairs those that are not where they were heard; next time, if Redis cannot be asked now."""
        keys = self._membership.keys
        looked = [(followed, followed.position) for followed in streams if followed.held is None]
        args: list[Argument] = []
        for followed, heard in looked:
            args += (self._meta_ms(followed.stream), heard.epoch, heard.offset)
        names = [keys.meta(followed.stream) for followed, _ in looked]
        try:
            beginning, *differ = await self._membership.run(redis_scripts.TOPS, names, *args)
        except Refused:
            return
        for number in differ:
            followed, heard = looked[abs(number) - 1]
            # One that has moved on meanwhile is heard, and a hole in what is heard is seen.
            if self._followed.get(followed.stream) is not followed or followed.position != heard:
                continue
            if number > 0:
                self._repair(followed)
            elif followed.held is None:
                followed.move(beginning.decode())


_REASONS: dict[str, GapReason] = {"expired": "expired", "reset": "reset"}


def _answer(line: str, epoch: str) -> Position | Refused:
    match line[0]:
        case "+" | "=":
            return Position(epoch, int(line[1:]))
        case "!":
            return KeyReused("this key was used for another body in this stream")
        case _:
            return InternalError(f"Redis cannot journal it: {line[1:101]}")


def _message(
    stream: str, epoch: str, id: bytes, data: bytes, client: bytes, conflate: bytes, traceparent: bytes = b""
) -> Message:
    offset, _, time_ms = id.partition(b"-")
    return Message(
        stream,
        epoch,
        int(offset),
        int(time_ms),
        data,
        client.decode() or None,
        conflate.decode() or None,
        traceparent.decode() or None,
    )
