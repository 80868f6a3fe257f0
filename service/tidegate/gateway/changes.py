"""What happens to a connection without its asking: an order of the application, new rights, new policies.

Theory of operation. It takes effect at once, whatever waits for the connection and whatever its commands wait for: a
client that reads slowly would else go on to receive what was taken away. So it happens beside the commands, and these
look again after each ``await``. A stream whose answer is still to come is left alone by what takes away: nothing was
said of it yet, and whoever attaches it looks at the end whether the client may have it. Of two that attach the same
stream, a ``join`` and a membership, one waits for the other (``attaching``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from tidegate.brokers.contract import MembershipOrder
from tidegate.config.load import Config
from tidegate.core import protocol
from tidegate.core.model import group_stream
from tidegate.core.session import Rights, Session
from tidegate.gateway.recovery import Recovery
from tidegate.locks import Locks


class NewRights(msgspec.Struct):
    """What a client may do from now on. ``token``: for whoever takes its connection up; None: as before."""

    rights: Rights
    token: str | None = None


class NewPolicies(msgspec.Struct):
    """What groups allow has changed. A client's rights are those that it has then: others may come before."""


Change: TypeAlias = MembershipOrder | NewRights | NewPolicies


class Changes:
    """``take`` comes first and does what can be done at once; ``join`` is what a new membership needs besides."""

    def __init__(self, config: Config, recovery: Recovery) -> None:
        self._config = config
        self._recovery = recovery
        self._trace = recovery.trace
        self.attaching = Locks()  # by connection and stream

    def may_join(self, session: Session, group: str) -> bool:
        """By a lasting membership, or by policy and token together."""
        if group in session.lasting:
            return True
        return self._config.policy(group).join == "anyone" and session.rights.may_join(group)

    def take(self, session: Session, change: Change) -> bool:
        """Whether it has left a group by that. It was told so."""
        if isinstance(change, MembershipOrder):
            session.lasting = session.lasting | {change.group} if change.member else session.lasting - {change.group}
            return not change.member and self._remove(session, change.group)
        gone = self.take_rights(session, change) if isinstance(change, NewRights) else self._leave_closed(session)
        self.say_left(session, gone)
        return bool(gone)

    def _remove(self, session: Session, group: str) -> bool:
        stream = group_stream(group)
        if not session.was_told(stream):
            return False
        self._trace.left(session, stream, "removed", session.position(stream))
        self._recovery.detach(session, stream)
        session.send(protocol.encode_left(stream, "removed"))
        return True

    def take_rights(self, session: Session, new: NewRights) -> list[str]:
        """The groups that it has left by that, and has not been told of."""
        session.rights = new.rights
        if new.token is not None:
            session.wire.keep_token(new.token)
        return self._leave_closed(session)

    def _leave_closed(self, session: Session) -> list[str]:
        """The groups that it may not be in any more, and has left; it has not been told."""
        gone = [group for group in session.groups if not self.may_join(session, group)]
        gone = [group for group in gone if session.was_told(group_stream(group))]
        for group in gone:
            stream = group_stream(group)
            self._trace.left(session, stream, "not_allowed", session.position(stream))
            self._recovery.detach(session, stream)
        return gone

    def say_left(self, session: Session, groups: Sequence[str]) -> None:
        for group in groups:
            session.send(protocol.encode_left(group_stream(group), "not_allowed"))

    async def join(self, session: Session, group: str) -> bool:
        """A lasting membership was made: whether the group is new to the connection. Raises BrokerDown."""
        stream = group_stream(group)
        async with self.attaching.of(f"{session.connection} {stream}"):
            if stream in session.streams or group not in session.lasting:
                return False
            await self._recovery.attach(session, stream, None)
            if session.ended:
                return False
            if group not in session.lasting:  # any more
                self._recovery.detach(session, stream)
                return False
            session.send(protocol.encode_joined(stream, session.join_fields(stream)))
            self._trace.joined(session, stream)
            self._recovery.start_delivery(session, stream)
            return True
