"""What each command does. Answers are queued, never returned.

``carry_out`` says whether the connection's groups changed, so that presence and record can follow. What is taken away
from a connection is taken while its command waits (``changes``): whatever may have changed is looked at again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import assert_never, get_args

from tidegate.brokers.contract import Broker
from tidegate.config.load import Config
from tidegate.core import protocol
from tidegate.core.errors import BadRequest, NotAllowed, Refused, TooManyCalls, TooManyGroups
from tidegate.core.model import Position, Publication, group_stream
from tidegate.core.protocol import check_group, position_of
from tidegate.core.push import check_conflate
from tidegate.core.session import Rights, Session
from tidegate.gateway.answers import Answers
from tidegate.gateway.changes import Changes, NewRights
from tidegate.gateway.new_streams import NewStreams
from tidegate.gateway.recovery import Recovery
from tidegate.metrics import Metrics
from tidegate.tasks import Tasks

# (session, method, data, traceparent) -> status, JSON
CallFunction = Callable[[Session, str, bytes, str | None], Awaitable[tuple[int, bytes]]]


class Commands:
    """``call`` makes the REST request and ``verify`` reads a token, both raising Refused; None where that is switched
    off."""

    def __init__(
        self,
        config: Config,
        broker: Broker,
        recovery: Recovery,
        tasks: Tasks,
        metrics: Metrics,
        new_streams: NewStreams,
        *,
        call: CallFunction,
        verify: Callable[[str, Session], Rights] | None,
    ) -> None:
        self._config = config
        self._broker = broker
        self._recovery = recovery
        self._tasks = tasks
        self._metrics = metrics
        self._new_streams = new_streams
        self._trace = recovery.trace
        self._call = call
        self._verify = verify
        self.changes = Changes(config, recovery)
        self._answers = Answers()
        self._calls: Counter[Session] = Counter()  # in flight; of those who have any
        self._labels = {kind: (str(kind.__struct_config__.tag),) for kind in get_args(protocol.Command)}
        for label in self._labels.values():
            metrics.commands[label] = 0

    async def follow(self, session: Session, stream: str, since: Position | None) -> None:
        """``Recovery.attach`` of a group that the client chose by itself. Raises Refused."""
        await self._new_streams.joins(session, stream)
        await self._recovery.attach(session, stream, since)
        self._new_streams.joined(session, stream)

    def _require(self, session: Session, group: str, who: str, what: str) -> None:
        member = group_stream(group) in session.streams
        if who == "nobody" or (who == "members" and not member):
            raise NotAllowed(f"{what} in {group} is for {who}")

    def count(self, command: protocol.Command) -> None:
        self._metrics.commands[self._labels[type(command)]] += 1

    async def carry_out(self, session: Session, command: protocol.Command) -> bool:
        """Carries out one command and queues its answer."""
        try:
            match command:
                case protocol.Join():
                    return await self._join(session, command)
                case protocol.Leave():
                    return self._leave(session, command)
                case protocol.Publish():
                    await self._publish(session, command)
                case protocol.ReadHistory():
                    await self._history(session, command)
                case protocol.ReadPresence():
                    await self._presence(session, command)
                case protocol.Refresh():
                    return self._refresh(session, command)
                case protocol.Ping():
                    self.ping(session, command)
                case protocol.Call():
                    self.call(session, command)
                case _:
                    assert_never(command)
        except Refused as exc:
            if isinstance(command, protocol.Join):
                self._refuse_join(session, command, exc)
            else:
                self.refuse(session, command.id, exc)
        return False

    def refuse(self, session: Session, id: str | int | None, error: Refused) -> None:
        self._metrics.refusals[error.code,] += 1
        session.send(protocol.encode_error(id, error))

    def _refuse_join(self, session: Session, command: protocol.Join, error: Refused) -> None:
        self._trace.join_refused(session, command.group, error)
        self.refuse(session, command.id, error)

    async def _join(self, session: Session, command: protocol.Join) -> bool:
        stream = group_stream(check_group(command.group))
        async with self.changes.attaching.of(f"{session.connection} {stream}"):
            return await self._attach(session, command, stream)

    async def _attach(self, session: Session, command: protocol.Join, stream: str) -> bool:
        since = position_of(command.epoch, command.offset)
        new = stream not in session.streams
        if new and not self.changes.may_join(session, command.group):
            raise NotAllowed(f"not allowed to join {command.group}")
        if new and session.group_count >= self._config.limits.groups_per_connection:
            raise TooManyGroups(f"a connection may be in {self._config.limits.groups_per_connection} groups")
        if new and command.group not in session.lasting:
            await self._new_streams.joins(session, stream)
        if since is not None:
            await self._turn(session)
            await self._recovery.join(session, stream, since)
        elif new:
            await self._recovery.attach(session, stream, None)
        else:
            session.send(protocol.encode_reply(command.id, {"stream": stream, **session.standing(stream)}))
            return False
        if session.ended:
            return False
        if not self.changes.may_join(session, command.group):  # any more
            self._recovery.detach(session, stream)
            self._refuse_join(session, command, NotAllowed(f"not allowed to join {command.group}"))
            return True  # presence may have it
        new = not session.was_told(stream)  # it may have been removed meanwhile, and attached anew
        if new and command.group not in session.lasting:
            self._new_streams.joined(session, stream)
        waiting, was = session.wire.size, None if new else session.position(stream)
        session.send(protocol.encode_reply(command.id, {"stream": stream, **session.join_fields(stream)}))
        self._trace.joined(session, stream, was)
        self._recovery.start_delivery(session, stream)
        self._answers.made(session.connection, session.wire.size - waiting)
        return new

    def _leave(self, session: Session, command: protocol.Leave) -> bool:
        stream = group_stream(check_group(command.group))
        if not session.was_told(stream):
            raise BadRequest(f"not in {command.group}")
        self._trace.left(session, stream, "by itself", session.position(stream))
        self._recovery.detach(session, stream)
        session.send(protocol.encode_reply(command.id, {"stream": stream}))
        return True

    async def _publish(self, session: Session, command: protocol.Publish) -> None:
        group = check_group(command.group)
        self._require(session, group, self._config.policy(group).publish, "publishing")
        if not session.rights.may_publish(group):
            raise NotAllowed(f"the token does not allow publishing to {group}")
        data = protocol.check_size(bytes(command.data), self._config.limits.data_bytes)
        key = None if command.key is None else _own_key(session.client, command.key)
        publication = Publication(
            group_stream(group), data, key, session.client, check_conflate(command.conflate), command.traceparent
        )
        await self._new_streams.publishes(session, publication.stream)
        (result,) = await self._broker.publish([publication])
        if isinstance(result, Refused):
            raise result
        self._metrics.pushed(publication.stream, "published")
        self._new_streams.published(session, result.offset)
        fields = {"stream": publication.stream, "epoch": result.epoch, "offset": result.offset}
        session.send(protocol.encode_reply(command.id, fields))

    async def _history(self, session: Session, command: protocol.ReadHistory) -> None:
        group = check_group(command.group)
        self._require(session, group, self._config.policy(group).history, "history")
        since = position_of(command.epoch, command.offset)
        size = self._config.limits.answer_bytes
        await self._turn(session)
        await self._recovery.room(session)
        self._require(session, group, self._config.policy(group).history, "history")
        history = await self._broker.history(group_stream(group), since, messages=command.limit, size=size)
        fields = protocol.history_fields(history, size - 1024)
        self._answer(session, protocol.encode_reply(command.id, {"stream": group_stream(group), **fields}))

    async def _presence(self, session: Session, command: protocol.ReadPresence) -> None:
        group = check_group(command.group)
        self._require(session, group, self._config.policy(group).presence, "presence")
        await self._turn(session)
        await self._recovery.room(session)
        self._require(session, group, self._config.policy(group).presence, "presence")
        present = await self._broker.present(group)
        clients = sorted({client for client, _ in present})
        shown = protocol.cut(clients, self._config.limits.answer_bytes - 1024)
        fields = {"stream": group_stream(group), "clients": shown, "connections": len(present)}
        self._answer(session, protocol.encode_reply(command.id, fields | {"more": len(shown) < len(clients)}))

    # Answers that may be large

    async def _turn(self, session: Session) -> None:
        """Returns when the connection may have another of them."""
        if await self._answers.turn(session.connection):
            self._metrics.shares_used["answers",] += 1

    def _answer(self, session: Session, reply: bytes) -> None:
        session.send(reply)
        self._answers.made(session.connection, len(reply))

    def _refresh(self, session: Session, command: protocol.Refresh) -> bool:
        if self._verify is None:
            raise BadRequest("this gateway uses no tokens")
        rights = self._verify(command.token, session)
        gone = self.changes.take_rights(session, NewRights(rights, command.token))
        session.send(protocol.encode_reply(command.id, {"expires": int(rights.expires or 0)}))
        self.changes.say_left(session, gone)
        return bool(gone)

    def ping(self, session: Session, command: protocol.Ping) -> None:
        """The cursor covers exactly what was queued before this answer."""
        session.send(protocol.encode_pong(command.id, session.cursor()))

    # Calls run beside the other commands

    def call(self, session: Session, command: protocol.Call) -> None:
        try:
            in_flight = self._calls[session]
            if in_flight >= self._config.limits.calls_in_flight:
                raise TooManyCalls(f"{in_flight} calls are in flight")
            data = protocol.check_size(bytes(command.data), self._config.limits.data_bytes)
        except Refused as exc:
            self.refuse(session, command.id, exc)
            session.wire.done()
            return
        self._calls[session] += 1
        self._tasks.spawn(self._make_call(session, command, data), "call")

    async def _make_call(self, session: Session, command: protocol.Call, data: bytes) -> None:
        try:
            status, answer = await self._call(session, command.method, data, command.traceparent)
        except Refused as exc:
            self.refuse(session, command.id, exc)
        else:
            session.send(protocol.encode_call_reply(command.id, status, answer))
        finally:
            session.wire.done()
            self._calls[session] -= 1
            if not self._calls[session]:
                del self._calls[session]


def _own_key(client: str, key: str) -> str:
    """A client's keys are its own: hashed, because the application is free to choose a key like ``alice:7``, and it
    must not find that a client has used it up."""
    return hashlib.sha256(f"{client}:{key}".encode()).hexdigest()
