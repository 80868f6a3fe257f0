"""The pub/sub connection: it says early what the journal would say later, and is not believed when it says nothing.

Each beat publishes a pulse to this node's own channel. When none was heard for ``pulse_s`` although beats succeed, or
the incarnation has changed, the connection is made anew, every channel is subscribed again, and ``on_hearing`` makes
the followed streams be read: what was announced meanwhile was announced to nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis.exceptions import ResponseError

from tidegate import log
from tidegate.brokers.redis.membership import ClusterMembership
from tidegate.brokers.redis.pipeline import TROUBLE, Address, RedisConnection
from tidegate.core.errors import BrokerDown
from tidegate.tasks import Tasks

CHANNELS_AT_ONCE = 500
LOOK_S = 0.2


class PubSub:
    """``on_wakeup(channel, payload)`` is called for every channel added; channels are bytes. ``on_hearing()`` is called
    each time that all of them are heard again."""

    def __init__(
        self,
        address: Address,
        membership: ClusterMembership,
        tasks: Tasks,
        *,
        on_wakeup: Callable[[bytes, bytes], None],
        on_hearing: Callable[[], None],
    ) -> None:
        self.hearing = False
        self.made = 0  # connections so far
        self.heard = 0  # wake-ups so far; pulses are none
        self._on_wakeup = on_wakeup
        self._on_hearing = on_hearing
        self._address = address
        self._membership = membership
        self._tasks = tasks
        self._pulse = membership.keys.pulse_channel.encode()
        self._pulse_s = 0.0
        self._channels = {self._pulse}
        self._unconfirmed: set[bytes] = set()  # of the channels that the present line began with
        self._waiting: dict[bytes, asyncio.Future[None]] = {}
        self._connection: RedisConnection | None = None

    def start(self) -> None:
        self._tasks.spawn(self._listen_on(), "redis wake-ups")

    async def add(self, channel: bytes) -> None:
        """Returns once Redis has confirmed. Raises BrokerDown. One caller at a time for each channel."""
        self._channels.add(channel)
        waiting = self._waiting[channel] = asyncio.get_running_loop().create_future()
        if self._connection is not None:
            self._connection.send("SUBSCRIBE", channel)
        try:
            async with asyncio.timeout(self._membership.timing.operation_s):
                await waiting
        except TimeoutError:
            raise BrokerDown("Redis has not confirmed a subscription") from None
        finally:
            self._waiting.pop(channel, None)

    def remove(self, channel: bytes) -> None:
        self._channels.discard(channel)
        self._unconfirmed.discard(channel)
        if self._connection is not None:
            self._connection.send("UNSUBSCRIBE", channel)

    async def _listen_on(self) -> None:
        while True:
            await self._membership.up.wait()
            error = "ended"
            try:
                await self._listen()
            except (BrokerDown, *TROUBLE) as exc:
                error = str(exc)
            finally:
                self.hearing = False
                if self._connection is not None:
                    self._connection.end("ended")
            log.info("redis.wakeups_lost", error=error)
            await asyncio.sleep(LOOK_S)

    async def _listen(self) -> None:
        """From connect until there is doubt, which raises BrokerDown."""
        timing = self._membership.timing
        incarnation = self._membership.incarnation
        connection = RedisConnection(await self._address.connect(timing.operation_s), on_reply=self._replied)
        self._connection = connection
        self._unconfirmed = set(self._channels)
        self._membership.vitals.connected("wakeups")
        self.made += 1
        channels = list(self._channels)
        for start in range(0, len(channels), CHANNELS_AT_ONCE):
            some = [channel for channel in channels[start : start + CHANNELS_AT_ONCE] if channel in self._channels]
            if some:
                connection.send("SUBSCRIBE", *some)
                await asyncio.sleep(0)  # there may be very many
        deadline_s = asyncio.get_running_loop().time() + timing.operation_s
        while self._unconfirmed:
            if connection.error is not None:
                raise BrokerDown(connection.error)
            if asyncio.get_running_loop().time() > deadline_s:
                raise BrokerDown("Redis has not confirmed the subscriptions")
            await asyncio.sleep(0.01)
        self._pulse_s = asyncio.get_running_loop().time()
        self.hearing = True
        self._on_hearing()
        while True:
            await asyncio.sleep(LOOK_S)
            if connection.error is not None:
                raise BrokerDown(connection.error)
            if self._membership.up.is_set():
                if self._membership.incarnation != incarnation:
                    raise BrokerDown("another incarnation")
                heard_s = max(self._pulse_s, self._membership.up_since_s)
                if asyncio.get_running_loop().time() - heard_s > timing.pulse_s:
                    raise BrokerDown("no pulse")

    def _replied(self, reply: Any) -> None:
        if isinstance(reply, ResponseError):
            assert self._connection is not None
            self._connection.end(str(reply))
            return
        kind, channel, payload = reply
        if kind == b"message":
            if channel == self._pulse:
                self._pulse_s = asyncio.get_running_loop().time()
            else:
                self.heard += 1
                self._on_wakeup(channel, payload)
        elif kind == b"subscribe":
            self._unconfirmed.discard(channel)
            waiting = self._waiting.get(channel)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
