"""What waits for the handler of one subscription. Pure: no clock, no loop.

    put, gap, joined, left  ->  [ … items … ]  ->  take, then dealt_with

Where the subscription loads a state, a ``Load`` stands in the line: what is behind it is held until ``loaded``,
because nothing is taken meanwhile. Where that gets too much, all of it is dropped, and the state is loaded once
more. A gap puts another ``Load`` behind itself, but for ``skipped``: newer messages follow.
Source: clients/README.md, State, then stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tidegate_client.client.model import Gap, Joined, Left, Message, Position


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """The state is to be loaded. What is behind it follows ``base``."""

    base: Position


Item = Message | Gap | Joined | Left


class Inbox:
    """``limit`` counts messages. ``wake`` is called when there is something to take, ``moved`` when ``done`` has
    moved."""

    def __init__(self, limit: int, loads: bool, wake: Callable[[], None], moved: Callable[[], None]) -> None:
        self.limit, self.loads = limit, loads
        self.done: Position | None = None
        self._wake, self._moved = wake, moved
        self._items: deque[tuple[Item | Load, Position | None]] = deque()  # and where one stands behind it
        self._messages = 0
        self._loading: Load | None = None
        self._loaded_once = False
        self._floor: Position | None = None
        self._behind: Position | None = None  # behind what was taken last
        self._overflow: Position | None = None  # where it stands since there was no room for what is held

    # What comes in

    def put(self, message: Message) -> bool:
        """False if there is no room: then the stream must take no more, and go on behind what was put last."""
        at = Position(message.epoch, message.offset)
        if self._overflow is not None:
            self._overflow = at
        elif self._messages < self.limit:
            self._append(message, at)
        elif self._waits_for_state():
            self._drop_held()
            self._overflow = at
            self._wake()
        else:
            return False
        return True

    def gap(self, gap: Gap, at: Position) -> None:
        """``at``: where the stream goes on."""
        if gap.reason == "skipped":
            self._append(gap, at)
            return
        if self.loads and self._waits_for_state():
            # What is held came before the gap, and the state will be loaded after it.
            self._drop_held()
        self._append(gap, at)
        self._floor = None
        if self.loads:
            self._append(Load(at))

    def joined(self, joined: Joined | None, at: Position, afresh: bool) -> None:
        """The stream goes on behind ``at``; ``afresh``: not from where it was. ``joined`` is what is told, if
        anything."""
        if joined is not None:
            self._append(joined)
        if self.loads and (afresh or not self._loaded_once):
            self._begin_load(at)
        elif afresh and not self._messages:
            self._move(at)

    def left(self, left: Left) -> None:
        """Messages that are queued were received before it, and are still told; a state is not loaded any more."""
        if self._waits_for_state():
            self._drop_held()
        self._loaded_once = False
        self._append(left)

    def clear(self) -> None:
        """Nothing that waits will be told, and what is being dealt with does not count."""
        self.drop()
        self._behind = self.done = None

    def drop(self) -> None:
        """Nothing that waits will be told."""
        self._items.clear()
        self._messages = 0
        self._loading = self._floor = self._overflow = None
        self._loaded_once = False

    # What goes out

    @property
    def has_room(self) -> bool:
        return self._messages <= self.limit // 2

    def take(self) -> Item | Load | None:
        """The next in line. The one before it is dealt with now. A ``Load`` ends by ``loaded`` or ``put_back``."""
        self.dealt_with()
        if (at := self._overflow) is not None:
            self._begin_load(at)
        while self._items:
            item, self._behind = self._items.popleft()
            if isinstance(item, Message):
                self._messages -= 1
                if self._below_floor(item):
                    self.dealt_with()
                    continue
            if isinstance(item, Load):
                self._loading = item
                self._loaded_once = True
            return item
        return None

    def dealt_with(self) -> None:
        """What was taken last."""
        behind, self._behind = self._behind, None
        if behind is not None:
            self._move(behind)

    def is_wanted(self, load: Load) -> bool:
        """Whether what ``load`` is about to give still counts."""
        return self._loading is load

    def put_back(self, load: Load) -> None:
        """It was broken off, and is still to be done."""
        if self._loading is load:
            self._loading = None
            self._items.appendleft((load, None))

    def loaded(self, load: Load, read_at: Position | None) -> Position | None:
        """The state is there, of a server that had read ``read_at`` before. Gives the position from which the stream
        must be taken anew, if what is held does not follow."""
        if self._loading is not load:
            return None
        self._loading = None
        base = load.base
        if read_at is None:
            self._move(base)
        elif read_at.epoch == base.epoch and read_at.offset >= base.offset:
            self._floor = read_at
            self._move(base)
        else:
            self._drop_all()
            self._move(read_at)
            return read_at
        return None

    # Within

    def _append(self, item: Item | Load, behind: Position | None = None) -> None:
        self._items.append((item, behind))
        self._messages += isinstance(item, Message)
        self._wake()

    def _move(self, at: Position) -> None:
        self.done = at
        self._moved()

    def _waits_for_state(self) -> bool:
        return (
            self._loading is not None
            or self._overflow is not None
            or any(isinstance(item, Load) for item, _ in self._items)
        )

    def _begin_load(self, base: Position) -> None:
        self._drop_held()
        self._loaded_once = True
        self._floor = None
        self._append(Load(base))

    def _drop_held(self) -> None:
        """Takes out the loads, the messages behind the first of them, and makes void what is being loaded."""
        held, kept = self._loading is not None, []
        self._loading = self._overflow = None
        for item, behind in self._items:
            held = held or isinstance(item, Load)
            if not isinstance(item, Load) and not (held and isinstance(item, Message)):
                kept.append((item, behind))
        self._items = deque(kept)
        self._messages = sum(isinstance(item, Message) for item, _ in kept)

    def _drop_all(self) -> None:
        self._items = deque(pair for pair in self._items if not isinstance(pair[0], Message))
        self._messages = 0

    def _below_floor(self, message: Message) -> bool:
        floor = self._floor
        return floor is not None and message.epoch == floor.epoch and message.offset <= floor.offset
