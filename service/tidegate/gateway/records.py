"""The records of ``cursor=last``, as connections own them: taken with a handshake, kept by the pongs of their owner.

Broker errors do not end a connection: what could not be saved is saved with the next pong.
Source: docs/protocol.md, cursor=last.
"""

from __future__ import annotations

from tidegate import log
from tidegate.brokers.contract import Broker, CloseOrder
from tidegate.core.errors import BrokerDown, CloseCode
from tidegate.core.model import Cursor
from tidegate.core.session import Confirmations, Session
from tidegate.tasks import Tasks


class OwnedRecords:
    def __init__(self, broker: Broker, tasks: Tasks) -> None:
        self._broker = broker
        self._tasks = tasks

    async def claim(self, session: Session, device: str) -> Cursor | None:
        """Makes the session the owner of its record; what the record held. Raises BrokerDown."""
        session.device = device
        claim = await self._broker.claim(session.client, device, session.owner)
        if claim.previous is not None:
            await self._broker.order(CloseOrder(session.client, claim.previous, CloseCode.TAKEN_OVER))
        session.confirmations = Confirmations(dict(claim.record or {}))
        return claim.record

    async def reclaim(self, session: Session, device: str) -> Cursor | None:
        """The record, if its connection still owns it. Raises BrokerDown."""
        session.device = device
        return await self._broker.reclaim(session.client, device, session.connection, session.owner)

    def give_up(self, session: Session) -> None:
        """Another connection owns the record: nothing is saved any more. What was on its way the broker refuses."""
        session.confirmations = None

    def ping_queued(self, session: Session, mark: bytes) -> None:
        """A control ping with this payload was queued just now."""
        if session.confirmations is not None and session.welcomed:
            session.confirmations.sent(mark, session.positions())

    def pong(self, session: Session, mark: bytes) -> None:
        if session.confirmations is not None and session.confirmations.pong(mark):
            self.save(session)

    def save(self, session: Session) -> None:
        """The record follows the confirmed positions; one save at a time, the newest wins."""
        confirmations = session.confirmations
        if confirmations is not None and confirmations.unsaved and not confirmations.saving:
            confirmations.saving = True
            self._tasks.spawn(self._save(session, confirmations), "save record")

    async def _save(self, session: Session, confirmations: Confirmations) -> None:
        device = session.device
        assert device is not None
        try:
            while confirmations.unsaved:
                confirmations.unsaved = False
                if not await self._broker.save(session.client, device, session.owner, dict(confirmations.confirmed)):
                    return  # another connection owns it now; the order that says so is on its way
        except BrokerDown as exc:
            confirmations.unsaved = True  # the next pong tries again
            log.info("record.save_failed", conn=session.connection, error=str(exc))
        finally:
            confirmations.saving = False
