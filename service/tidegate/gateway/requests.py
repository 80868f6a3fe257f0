"""What a handshake asked for, and the streams that its session has by that: its own, those that it named, those of its
cursor or its record, and the groups that the application made it a member of.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tidegate.brokers.contract import Broker
from tidegate.config.load import Config
from tidegate.core.errors import NotAllowed, TooManyGroupsAsked
from tidegate.core.model import ALL, Cursor, client_stream, group_of, group_stream, kind_of
from tidegate.core.session import Session
from tidegate.gateway.commands import Commands
from tidegate.gateway.records import OwnedRecords
from tidegate.gateway.recovery import Recovery


class HandshakeRequest(msgspec.Struct):
    """What a handshake asked for, decoded but not yet allowed. ``last``: continue from the record of ``device``."""

    client: str
    groups: Sequence[str] = ()
    cursor: Cursor | None = None
    last: bool = False
    device: str = ""


class Requests:
    def __init__(
        self, config: Config, broker: Broker, commands: Commands, recovery: Recovery, records: OwnedRecords
    ) -> None:
        self._config = config
        self._broker = broker
        self._commands = commands
        self._recovery = recovery
        self._records = records

    async def attach(self, session: Session, request: HandshakeRequest) -> None:
        """All its streams, unless it ends meanwhile. Raises Refused."""
        own = (client_stream(session.client), ALL)
        asked = {group_stream(group) for group in request.groups}
        positions = dict(request.cursor or {})
        for stream in positions:
            if kind_of(stream) == "client" and stream not in own:
                raise NotAllowed("the cursor names another client's stream")
        session.lasting = await self._broker.memberships(session.client)
        groups = {stream for stream in asked if self._may_be_in(session, stream)}
        resets: set[str] = set()
        if request.last:
            record = await self._records.claim(session, request.device)
            if record is None:
                resets = groups.union(own)
            else:
                positions = record
        allowed = {stream for stream in positions if stream in own or self._may_be_in(session, stream)}
        lasting = {group_stream(group) for group in session.lasting}
        others = sorted(allowed.difference(own, groups, lasting))
        most = self._config.limits.groups_per_connection
        room = most - len(groups | lasting)
        if room < 0 or len(groups - lasting) + len(others) > most:
            raise TooManyGroupsAsked(f"more than {most} groups")
        # Lasting memberships made meanwhile may leave less room than there was: that must not lock a client out.
        allowed.difference_update(others[room:])
        refused = (positions.keys() | asked) - allowed - groups
        streams = [*own, *sorted((groups | lasting | allowed).difference(own))]
        for stream in streams:
            if not session.ended:
                attach = self._recovery.attach if stream in own or stream in lasting else self._commands.follow
                await attach(session, stream, positions.get(stream))
            if session.ended:
                return
            if stream in resets:
                session.tracks[stream].reset = True
        session.refused = tuple(sorted(refused))
        if session.confirmations is not None:
            for stream in refused:
                session.confirmations.forget(stream)

    def _may_be_in(self, session: Session, stream: str) -> bool:
        group = group_of(stream)
        return group is not None and self._commands.changes.may_join(session, group)
