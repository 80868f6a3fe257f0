"""A session that is held as a polite client holds one: heartbeats are answered, positions kept, and where its
connection ends, or is about to, it comes back at once with its cursor. It keeps what it went through.

One thing a polite client does otherwise: it closes the connection that it was told to leave. Here that is waited for,
since how it is closed is what is to be seen. Source: docs/protocol.md, moving and Cursor.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from typing import Any

from tidegate.doctor.link import Ended, Link, NoAnswer, Refusal, greet
from tidegate.doctor.target import Target

RETRY_S = 0.2  # of a handshake that was not taken; clients wait longer
_FOREVER_S = 1e6


class Stop:
    """What became of a connection when its node, ``node``, stopped. Times are monotonic seconds, None for what has not
    come. ``end`` is None too where it ``stayed`` open, and another node, ``back``, took it over."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.moving_s: float | None = None
        self.end: Ended | None = None
        self.end_s: float | None = None
        self.stayed = False
        self.back: str | None = None
        self.back_s: float | None = None
        self.failed = 0  # handshakes, until one was taken
        self.trouble = ""  # of the last of these

    @property
    def is_over(self) -> bool:
        return self.back is not None and (self.stayed or self.end is not None)

    @property
    def away_s(self) -> float:
        """From when it was told to go until a new connection was welcomed, or until now."""
        begun_s = self.moving_s if self.moving_s is not None else self.end_s
        until_s = self.back_s if self.back_s is not None else time.monotonic()
        return 0.0 if begun_s is None else until_s - begun_s


class Held:
    """``async with Held(...)``. ``changed`` is called after each thing that came. ``node`` is where it is now,
    ``arrived`` has the positions of its client's stream that came, and when; ``gaps`` why something will not come."""

    def __init__(self, target: Target, link: Link, changed: Callable[[], None]) -> None:
        self._target = target
        self._changed = changed
        self._link = link
        self._links = [link]
        self._tasks: set[asyncio.Task[None]] = set()
        self._positions: dict[str, tuple[str, int]] = {}
        self.client = link.welcome["client"]
        self.node = link.welcome["node"]
        self.stops: list[Stop] = []
        self.arrived: dict[tuple[str, int], float] = {}
        self.gaps: list[str] = []
        self._start_from(link)

    async def __aenter__(self) -> Held:
        self._run(self._link)
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self._links:
            link.cut()

    @property
    def is_settled(self) -> bool:
        """Whether nothing is under way."""
        return all(stop.is_over for stop in self.stops)

    def found(self, nodes: dict[str, str]) -> None:
        """Where each connection of this client is by now, as the API knows it."""
        node = nodes.get(self._link.welcome["connection"], self.node)
        if node != self.node and self.is_settled:
            stop = Stop(self.node)
            stop.stayed, stop.back, self.node = True, node, node
            self.stops.append(stop)
            self._changed()

    def _run(self, link: Link) -> None:
        task = asyncio.create_task(self._follow(link, self.node))  # noqa: TID251 - ended by __aexit__
        self._tasks.add(task)

    async def _follow(self, link: Link, node: str) -> None:
        """Until it ends, and another one is followed."""
        stop: Stop | None = None
        end = Ended(None)
        try:
            while True:
                event = await link.event(_FOREVER_S)
                self._take(link, event)
                if event.get("type") == "moving" and stop is None:
                    stop = self._begin(self.node)
                    stop.moving_s = time.monotonic()
                    returning = asyncio.create_task(self._return(stop))  # noqa: TID251 - ended by __aexit__
                    self._tasks.add(returning)
                self._changed()
        except Ended as exc:
            end = exc
        except TimeoutError:  # of the network: nobody acknowledges what was sent
            pass
        was_told = stop is not None
        stop = stop or self._begin(self.node if link is self._link else node)
        stop.end, stop.end_s = end, time.monotonic()
        link.cut()
        self._changed()
        if not was_told:
            await self._return(stop)

    def _begin(self, node: str) -> Stop:
        stop = Stop(node)
        self.stops.append(stop)
        return stop

    async def _return(self, stop: Stop) -> None:
        while True:
            try:
                link = await greet(self._target, cursor=self._cursor())
                break
            except (NoAnswer, Refusal, Ended) as exc:
                stop.failed += 1
                stop.trouble = str(exc)
            await asyncio.sleep(RETRY_S)
        self._link = link
        self._links.append(link)
        self.node = link.welcome["node"]
        stop.back, stop.back_s = self.node, time.monotonic()
        self._start_from(link)
        self._run(link)
        self._changed()

    # Positions

    def _start_from(self, link: Link) -> None:
        streams = link.welcome.get("streams", {})
        self._positions = {name: (each["epoch"], each["offset"]) for name, each in streams.items()}

    def _take(self, link: Link, event: dict[str, Any]) -> None:
        """What comes on the connection that is left comes on the new one too, which has the positions then."""
        match event:
            case {"type": "message", "stream": str(stream), "epoch": str(epoch), "offset": int(offset)}:
                if stream == f"client:{self.client}":
                    self.arrived.setdefault((epoch, offset), time.monotonic())
            case {"type": "gap", "stream": str(stream), "epoch": str(epoch), "to": int() | None as to}:
                offset = to or 0
                self.gaps.append(str(event.get("reason")))
            case _:
                return
        if link is self._link:
            self._positions[stream] = (epoch, offset)

    def _cursor(self) -> str:
        return base64.urlsafe_b64encode(json.dumps(self._positions).encode()).decode().rstrip("=")
