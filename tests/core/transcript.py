"""A session without a socket, and what it was told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from tests.core.world import Line
from tidegate.auth.grants import unrestricted
from tidegate.core.hub import Audience, Hub, Write, put_all
from tidegate.core.model import Gap, Message
from tidegate.core.session import Session

NEWS = "group:news"


class Reports:
    """What a hub reported, and how often it asked to be called when the turn ends."""

    def __init__(self) -> None:
        self.stalled: list[tuple[Session, str]] = []
        self.holes: list[Gap] = []
        self.turns = 0

    def on_stalled(self, session: Session, audience: Audience) -> None:
        self.stalled.append((session, audience.stream))

    def on_hole(self, gap: Gap) -> None:
        self.holes.append(gap)

    def at_turn_end(self, deliver: Callable[[], None]) -> None:
        self.turns += 1


def new_hub(reports: Reports | None = None, write: Write = put_all) -> Hub:
    reports = reports or Reports()
    return Hub(reports, reports.at_turn_end, write)


def new_session(client: str = "alice", number: int = 1) -> Session:
    return Session(client, f"n1-{number}", unrestricted(client), Line(), 0)


def message(offset: int, epoch: str = "e1", data: bytes = b"null") -> Message:
    return Message(NEWS, epoch, offset, 0, data)


def line(session: Session) -> Line:
    return cast(Line, session.wire)


def told(session: Session) -> list[Any]:
    """Offsets of messages, and gaps as (from, to, reason), queued since the last look."""
    return [
        event["offset"] if event["type"] == "message" else (event["from"], event["to"], event["reason"])
        for event in line(session).take()
    ]
