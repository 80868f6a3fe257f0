"""The world of ``tests/core/world.py`` with clients whose sockets are an edge's: real links and transports, and a
worker that keeps what docs/trunk.md says. Nothing is on a network; a link's bytes are read when they are written."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from tests.core.world import LINE_BYTES, Client, Line, World
from tests.trunk.worker import LinkedClient, Worker
from tidegate.auth.grants import unrestricted
from tidegate.core.errors import CloseCode, Refused
from tidegate.core.frames import PING
from tidegate.core.model import Position
from tidegate.core.session import Session
from tidegate.gateway.gateway import Gateway
from tidegate.gateway.moves import CannotResume, Moves, Resumed, Resumption
from tidegate.trunk.link import Link
from tidegate.trunk.transport import LinkedTransport
from tidegate.turn import WriteBatch
from tidegate.websocket.peer import Peer


class Bytes(asyncio.Transport):
    """Hands what a link writes to the worker at once."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self._worker = worker
        self._closed = False

    def write(self, data: Any) -> None:
        self._worker.data_received(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._closed

    def abort(self) -> None:
        self._closed = True


class Unread(Bytes):
    """What the worker writes: these tests do by themselves what it says."""

    def write(self, data: Any) -> None:
        pass


class SharedPeer:
    """What a transport needs of a peer."""

    def __init__(self, session: Session, gateway: Gateway) -> None:
        self.session = session
        self._gateway = gateway

    def on_slow(self) -> None:
        if not self._gateway.slow(self.session):
            self._gateway.close(self.session, CloseCode.SLOW_CONSUMER)

    def on_closing(self, code: int | None) -> None:
        pass

    def on_closed(self, code: int, answered: bool) -> None:
        pass


class SharedLine(Line):
    """A client's session on the trunk, as the world knows a socket. ``put`` and what else the gateway does goes to its
    transport; ``take`` gives what the worker has for its client."""

    def __init__(self, world: LinkedWorld, resumes: LinkedClient | None = None) -> None:
        super().__init__(world.gateway, LINE_BYTES)
        self._world = world
        worker = world.worker
        world.sessions += 1
        self.at_edge = LinkedClient(worker, world.sessions)
        if resumes is not None:
            self.at_edge.data = resumes.data  # what its socket has not taken yet
        worker.clients[world.sessions] = self.at_edge
        self.transport = LinkedTransport(world.link, world.sessions, outbox_bytes=LINE_BYTES)
        world.link.sessions[world.sessions] = self.transport

    def admitted(self, session: Session) -> None:
        self.transport.accept(b"", cast(Peer, SharedPeer(session, self._world.gateway)))

    def overflow(self, session: Session) -> None:
        self.transport.on_slow()

    def take(self, count: int | None = None) -> list[dict[str, Any]]:
        events = []
        for event in self.at_edge.take(count):
            if not isinstance(event, tuple):
                events.append(event)
            elif event[0] == PING:
                self.pings.append(event[1])
        if not self.at_edge.data:
            self.transport.on_written(self.transport.sent)
        return events

    def put(self, frame: bytes) -> None:
        self.transport.put(frame)

    def cut(self, session: Session) -> None:
        super().cut(session)
        self.transport.on_gone(1006, False)
        self._world.worker.forget(self.at_edge)

    @property
    def frames(self) -> list[bytes]:
        """What its client has not taken."""
        return [self.at_edge.data] if self.at_edge.data else []

    @frames.setter
    def frames(self, frames: list[bytes]) -> None:
        assert not frames


class LinkedWorld(World):
    """``link`` is the trunk's end at the node, ``worker`` the edge's."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.sessions = 0
        self.batch = WriteBatch(self.loop.call_soon)
        self.worker = Worker()
        self.worker.transport = Unread(self.worker)
        self.link = Link(cast(Any, self), self.batch, b"", LINE_BYTES)
        self.do(self.link.connection_made, Bytes(self.worker))
        self.moves = Moves(
            self.gateway,
            self.broker,
            self.hub,
            self.recovery,
            self.commands,
            self.tasks,
            hold_s=0.0,
            wall=lambda: self.now_s,
        )
        self.moving = {name: MovingClient(self, name, last=name == "carol") for name in self.clients}
        self.clients = dict(self.moving)

    def new_line(self, client: Client) -> Line:
        return SharedLine(self)

    def transport_of(self, line: Line) -> Any:
        assert isinstance(line, SharedLine)
        return line.transport

    def end(self) -> None:
        super().end()
        assert self.worker.faults == []

    def lose(self, resuming: asyncio.Task[Resumed]) -> None:
        if not resuming.cancelled() and resuming.exception() is None:
            self.moves.lose(resuming.result().session)

    # The link says

    def on_session_lost(self, peer: Any, why: str) -> None:
        self.moves.lose(peer.session)


class MovingClient(Client):
    """Its edge may take it to another node, which in this world is the same one: it remembers nothing of it."""

    world: LinkedWorld
    line: SharedLine | None
    resuming: asyncio.Task[Resumed] | None = None
    term = 0
    welcomes = 0

    # What it does

    def connect(self, groups: list[str], *, with_cursor: bool, without: str = "") -> None:
        if self.resuming is None:
            self.welcomes = 0
            super().connect(groups, with_cursor=with_cursor, without=without)

    def join(self, group: str, position: tuple[str, int] | None) -> None:
        if self._sends():
            super().join(group, position)

    def leave(self, group: str) -> None:
        if self._sends():
            super().leave(group)

    def _sends(self) -> bool:
        """A message of it is on its way to the node; not while it is sent away."""
        if self.session is None or self.line is None or self.line.transport.hands_over:
            return False
        self.line.transport.received += 1
        return True

    def is_closed(self) -> None:
        session, line = self.session, self.line
        assert session is not None
        assert line is not None
        self.world.do(self.world.gateway.close, session, CloseCode.RESTART)
        self.world.run()
        self.take()
        if self.session is None:
            return  # it was on its way to another node
        self.world.do(lambda: self.world.gateway.remove(session, confirmed=True))
        line.transport.on_gone(CloseCode.RESTART, True)
        self.world.worker.forget(line.at_edge)
        self.session = self.line = None

    def cut(self) -> None:
        if self.resuming is not None and self.line is not None:
            # The node hears of it, and finds that there is nobody when it has all streams.
            self.resuming.add_done_callback(self.world.lose)
            self.line.transport.on_gone(CloseCode.ABNORMAL, False)
            self.world.worker.forget(self.line.at_edge)
            self.resuming = self.line = None
        super().cut()

    def welcome(self, streams: dict[str, Any]) -> None:
        self.welcomes += 1
        assert self.welcomes == 1, "a second welcome"
        super().welcome(streams)

    def take(self, count: int | None = None) -> None:
        if self.resuming is not None and self.resuming.done():
            self._arrive()
        if self.session is not None and self.line is not None and self.line.at_edge.cursor is not None:
            self._resume(self.session, self.line.at_edge.cursor, self.line.at_edge)
        super().take(count)

    # What its edge does

    def move(self, *, drained: bool) -> None:
        """Its node hands it over, once all is answered; or its trunk is lost, and who is behind in a stream is cut."""
        session, line = self.session, self.line
        if session is None or line is None or line.at_edge.cursor is not None:
            return
        worker, at_edge = self.world.worker, line.at_edge
        if drained:
            self.world.do(line.transport.hand_over)
            self.world.run()
        elif at_edge.tracked or self.asked:
            self.cut()
        else:
            cursor = {worker.streams[number].name: worker.streams[number].position for number in at_edge.live}
            self.world.do(line.transport.lose, "lost")
            worker.forget(at_edge)
            self._resume(session, cursor, at_edge)

    def _resume(self, session: Session, cursor: dict[str, Position], at_edge: LinkedClient) -> None:
        self.session, self.term = None, self.term + 1
        self.line = SharedLine(self.world, at_edge)
        device, heard = "" if self.last else None, self.world.broker.orders_heard
        asked = Resumption(self.name, session.connection, self.term, cursor, device, heard)
        resume = self.world.moves.resume(asked, unrestricted(self.name), self.line.transport)
        self.resuming = self.world.begin(resume)
        self.world.run()

    def _arrive(self) -> None:
        """The node has taken it up, or it has to come back by itself."""
        resuming, self.resuming = self.resuming, None
        assert resuming is not None
        assert self.line is not None
        if isinstance(resuming.exception(), Refused | CannotResume):
            self.line = None
            return
        resumed = resuming.result()
        self.session = resumed.session
        self.line.admitted(self.session)
        self.world.do(self.world.moves.go_on, resumed)
        self.world.run()
