"""Nodes of the Redis broker in the test's own process, with short times."""

from __future__ import annotations

from typing import Any

from tests.brokers.contract import WIDE, Heard, info
from tests.brokers.server import RedisServer
from tests.support import eventually
from tidegate.brokers.redis.broker import RedisBroker
from tidegate.brokers.redis.membership import Timing
from tidegate.core.errors import BrokerDown
from tidegate.core.push import PushLimits

# Short enough for tests, long enough for two busy cores.
FAST = Timing(
    operation_s=2.0,
    wait_s=1.0,
    start_s=3.0,
    beat_s=0.15,
    sure_s=1.5,
    synced_s=0.0,  # but where a test is about it
    gone_s=0.6,
    silent_s=2.0,
    dead_s=2.5,
    vote_s=1.5,
    check_s=0.5,
    pulse_s=1.0,
    lease_s=1.0,
)
NEVER = 1000.0


def shorter(**changes: float) -> Timing:
    """``FAST`` with these changes."""
    fields = {name: getattr(FAST, name) for name in FAST.__struct_fields__}
    return Timing(**(fields | changes))


def slow_beats(**changes: float) -> Timing:
    return shorter(**({"beat_s": NEVER, "pulse_s": NEVER, "check_s": NEVER} | changes))


async def change_common_epoch(server: RedisServer, prefix: str = "tidegate") -> None:
    """Half of its time is over: the next beat changes it."""
    membership = f"{prefix}:life"
    before = server.command("HGET", membership, "common")
    server.command("HSET", membership, "until", now_ms(server) + 300_000)
    await eventually(lambda: server.command("HGET", membership, "common") != before)


def end_earlier_epoch(server: RedisServer, prefix: str = "tidegate") -> None:
    server.command("HSET", f"{prefix}:life", "earlier_until", now_ms(server))


def now_ms(server: RedisServer) -> int:
    seconds, micros = server.command("TIME")
    return int(seconds) * 1000 + int(micros) // 1000


def make(server: RedisServer | str, node: str, prefix: str = "tidegate", **options: Any) -> RedisBroker:
    retention = options.pop("retention", WIDE)
    url = server if isinstance(server, str) else server.url
    defaults: dict[str, Any] = {
        "meta_age_s": 1000,
        "limits": PushLimits(data_bytes=1000, json_depth=8),
        "tail_bytes": 1 << 20,
        "timing": FAST,
    }
    return RedisBroker(url=url, prefix=prefix, node=node, retention=lambda stream: retention, **(defaults | options))


class Node:
    """``async with Node(server, "n1") as node``: a broker and what it says. ``die`` leaves Redis as kill -9 would."""

    def __init__(self, server: RedisServer | str, name: str, **options: Any) -> None:
        self.name = name
        self.heard = Heard()
        self.broker = make(server, name, **options)

    async def __aenter__(self) -> Node:
        await self.broker.start(self.heard, info(self.name))
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.broker.stop()

    async def die(self) -> None:
        await self.broker._tasks.cancel_all()
        if self.broker.membership._pipeline is not None:
            self.broker.membership._pipeline.end("dead")
        self.broker.membership.up.clear()
        await self.broker._tasks.cancel_all()

    async def up(self) -> None:
        async def passes() -> bool:
            try:
                return self.broker.wakeups.hearing and await self.broker.canary() >= 0
            except BrokerDown:
                return False

        await eventually(passes, 15)
