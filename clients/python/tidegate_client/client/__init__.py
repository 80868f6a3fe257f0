"""The asyncio client. ``Client`` is what to begin with."""

from __future__ import annotations

from tidegate_client.client.client import Client
from tidegate_client.client.errors import (
    AnswerTimeout,
    ClientError,
    Closed,
    CommandRefused,
    NotAllowed,
    NotJoined,
    UnknownOutcome,
)
from tidegate_client.client.model import (
    Answer,
    Gap,
    History,
    Joined,
    Left,
    Limits,
    Message,
    Position,
    Presence,
    Published,
    Reason,
)
from tidegate_client.client.storage import FileStorage, Storage
from tidegate_client.client.subscription import Subscription

__all__ = [
    "Answer",
    "AnswerTimeout",
    "Client",
    "ClientError",
    "Closed",
    "CommandRefused",
    "FileStorage",
    "Gap",
    "History",
    "Joined",
    "Left",
    "Limits",
    "Message",
    "NotAllowed",
    "NotJoined",
    "Position",
    "Presence",
    "Published",
    "Reason",
    "Storage",
    "Subscription",
    "UnknownOutcome",
]
