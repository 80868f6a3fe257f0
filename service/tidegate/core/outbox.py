"""The unsent frames of one connection, and when its peer takes too little of them.

Frames are shared between connections; an outbox only lists them. It is emptied once per turn of the loop by its writer,
so that what waits goes out in one write (between four messages in four writes and in one lies a factor of two to
three).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tidegate.core.model import Position


class Outbox:
    """``frames`` wait to be written; ``size`` is their bytes; above ``limit`` the peer is too slow. The writer is a
    subclass: one object less that a delivery must touch. Its socket is this client's own, so nobody needs to be told
    what streams it has and how many of its messages are answered."""

    __slots__ = ("frames", "limit", "on_room", "size")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.frames: list[bytes] = []
        self.size = 0
        self.on_room: list[Callable[[], None]] | None = None  # who waits for room

    def wake(self) -> None:
        """There is something new, or more than the limit: look at it before this turn ends."""
        raise NotImplementedError

    def put(self, frame: bytes) -> None:
        self.size += len(frame)
        if not self.frames or self.size > self.limit:
            self.wake()
        self.frames.append(frame)

    @property
    def waiting(self) -> Sequence[bytes]:
        """``frames``; of one that has gone in part, its beginning in place of its rest."""
        return self.frames

    def clear(self) -> None:
        """Forgets what was not sent."""
        self.frames.clear()
        self.size = 0

    def when_room(self, callback: Callable[[], None]) -> None:
        """It is called once, when there is room again or nothing will be sent any more."""
        if self.on_room is None:
            self.on_room = []
        self.on_room.append(callback)

    def tell_room(self) -> None:
        """The writer's, when there is room again."""
        waiting, self.on_room = self.on_room, None
        for callback in waiting or ():
            callback()

    @property
    def overflowing(self) -> bool:
        return self.size > self.limit

    @property
    def has_room(self) -> bool:
        """Whether a replay may queue its next page. Only once the last page is nearly gone, so that one
        page is all that a replay ever holds."""
        return self.size <= self.limit >> 4

    @property
    def sink(self) -> None:
        """None: it shares nothing with others."""

    def done(self) -> None:
        pass

    def hand_over(self) -> None:
        pass

    def keep_token(self, token: str) -> None:
        pass

    def track(self, stream: str) -> None:
        pass

    def follow(self, stream: str, position: Position) -> None:
        pass

    def untrack(self, stream: str) -> None:
        pass
