"""Members and pushers for ``bench redis``. Every message is checked: each offset of each stream once, in order."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import picows
import redis.asyncio

from bench.load.publisher import Http, LoadError, post

GROUPS = 100
EVERYBODY = "bench"
WAIT_S = 20.0  # for the next message, before it counts as lost
AT_ONCE = 50  # handshakes under way
PADDING = "x" * 64
PUSHERS = 32
BATCH = 100


class _Event(msgspec.Struct):
    type: str
    stream: str = ""
    offset: int = 0
    data: Any = None
    streams: dict[str, Any] = {}  # msgspec copies an empty one


_decode = msgspec.json.Decoder(_Event).decode


def data() -> str:
    """About 100 bytes, with the time when it was made."""
    return json.dumps({"sent_ns": time.monotonic_ns(), "text": PADDING})


class Members:
    """All clients: member ``n`` is on node ``n % nodes`` and in the groups bench and ``g<n % 100>``."""

    def __init__(self) -> None:
        self.all: list[Member] = []
        self.received = 0
        self.took_ms = array("d")
        self.wrong: list[str] = []
        self._welcomed = 0

    async def connect(self, ports: Sequence[int], count: int) -> None:
        """Raises LoadError."""
        numbers = iter(range(count))

        async def some() -> None:
            for number in numbers:
                only = ",only" if number == 0 else ""
                groups = f"{EVERYBODY},g{number % GROUPS}{only}"
                url = f"ws://127.0.0.1:{ports[number % len(ports)]}/ws-notifications/?client=c{number}&groups={groups}"
                await picows.ws_connect(
                    lambda: Member(self), url, read_buffer_init_size=1024, websocket_handshake_timeout=WAIT_S
                )

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))
        deadline_s = time.monotonic() + WAIT_S
        while self._welcomed < count:
            if time.monotonic() > deadline_s:
                raise LoadError(f"{count - self._welcomed} members were not welcomed")
            await asyncio.sleep(0.01)

    def disconnect(self) -> None:
        for member in self.all:
            member.leaving = True
            member.transport.disconnect()

    async def have(self, target: int) -> None:
        """Returns when ``received`` is that. Raises LoadError for what was lost, repeated or out of order."""
        before, quiet_s = self.received, time.monotonic()
        while self.received < target and not self.wrong:
            await asyncio.sleep(0.002)
            if self.received != before:
                before, quiet_s = self.received, time.monotonic()
            elif time.monotonic() - quiet_s > WAIT_S:
                raise LoadError(f"{target - self.received} messages were lost")
        if self.wrong or self.received != target:
            raise LoadError(f"{self.received} messages for {target}; {self.wrong[:3]}")

    def welcomed(self) -> None:
        self._welcomed += 1


class Member(picows.WSListener):
    """``next``: the offset that must come next, of each stream."""

    def __init__(self, members: Members) -> None:
        super().__init__()
        self.next: dict[str, int] = {}
        self.leaving = False
        self._members = members

    def on_ws_connected(self, transport: Any) -> None:
        self.transport = transport
        self._members.all.append(self)

    def on_ws_disconnected(self, transport: Any) -> None:
        if not self.leaving:
            self._members.wrong.append("a connection was closed")

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type is not picows.WSMsgType.TEXT:
            return
        now_ns, members = time.monotonic_ns(), self._members
        event = _decode(frame.get_payload_as_memoryview())
        if event.type == "welcome":
            self.next = {stream: state["offset"] + 1 for stream, state in event.streams.items()}
            members.welcomed()
        elif event.type == "message" and self.next[event.stream] == event.offset:
            self.next[event.stream] += 1
            members.received += 1
            members.took_ms.append((now_ns - event.data["sent_ns"]) / 1e6)
        else:
            members.wrong.append(f"{event.type} {event.stream} {event.offset}, not {self.next.get(event.stream)}")


class Pushers:
    """Through HTTP to the nodes in turn, and through Redis."""

    def __init__(self, https: list[Http], client: redis.asyncio.Redis) -> None:
        self._https = https
        self._client = client
        self._turns = itertools.cycle(https)

    @classmethod
    async def open(cls, ports: Sequence[int], url: str) -> Pushers:
        https = [await Http.open(ports[number % len(ports)]) for number in range(PUSHERS)]
        return cls(https, redis.asyncio.Redis.from_url(url, protocol=2))

    async def close(self) -> None:
        for http in self._https:
            http.close()
        await self._client.aclose()

    async def push(self, group: str) -> None:
        """One, through HTTP."""
        await _ask(next(self._turns), f"/api/groups/{group}/push", f'{{"data":{data()}}}')

    async def add(self, group: str) -> None:
        """One, through Redis."""
        await self._client.xadd("tidegate:push", {"group": group, "data": data()})

    async def push_many(self, groups: Sequence[str]) -> None:
        """One request each, over all connections at once."""
        waiting = iter(groups)

        async def some(http: Http) -> None:
            for group in waiting:
                await _ask(http, f"/api/groups/{group}/push", f'{{"data":{data()}}}')

        await asyncio.gather(*(some(http) for http in self._https))

    async def push_batches(self, groups: Sequence[str]) -> None:
        """A hundred in one request, over four connections at once."""
        batches = _batches(groups)

        async def some(http: Http) -> None:
            for batch in batches:
                items = ",".join(f'{{"group":"{group}","data":{data()}}}' for group in batch)
                await _ask(http, "/api/push", f'{{"pushes":[{items}]}}')

        await asyncio.gather(*(some(http) for http in self._https[:4]))

    async def add_many(self, groups: Sequence[str]) -> None:
        """A hundred in one write to Redis."""
        for batch in _batches(groups):
            pipeline = self._client.pipeline(transaction=False)
            for group in batch:
                pipeline.xadd("tidegate:push", {"group": group, "data": data()})
            await pipeline.execute()


def _batches(groups: Sequence[str]) -> Iterator[Sequence[str]]:
    return (groups[at : at + BATCH] for at in range(0, len(groups), BATCH))


async def _ask(http: Http, path: str, body: str) -> None:
    status, answer = await http.send(post(path, body.encode()))
    if status not in (200, 202) or b'"error"' in answer:
        raise LoadError(f"push: HTTP {status} {answer[:200]!r}")
