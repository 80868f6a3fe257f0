"""A session without a socket, and what it was told."""

from __future__ import annotations

from typing import Any, cast

from tests.core.world import Line
from tidegate.auth.tokens import unrestricted
from tidegate.core.model import Message
from tidegate.core.session import Session

NEWS = "group:news"


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
