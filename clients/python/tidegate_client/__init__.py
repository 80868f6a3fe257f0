"""Tidegate from Python: ``Client`` follows streams, ``Publisher`` pushes to them.

Each name is imported when it is first asked for, so that a program that only pushes loads no WebSocket library."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidegate_client.client import AnswerTimeout as AnswerTimeout
    from tidegate_client.client import Client as Client
    from tidegate_client.client import ClientError as ClientError
    from tidegate_client.client import Closed as Closed
    from tidegate_client.client import CommandRefused as CommandRefused
    from tidegate_client.client import FileStorage as FileStorage
    from tidegate_client.client import Gap as Gap
    from tidegate_client.client import Joined as Joined
    from tidegate_client.client import Left as Left
    from tidegate_client.client import Message as Message
    from tidegate_client.client import NotAllowed as NotAllowed
    from tidegate_client.client import NotJoined as NotJoined
    from tidegate_client.client import Position as Position
    from tidegate_client.client import Reason as Reason
    from tidegate_client.client import Subscription as Subscription
    from tidegate_client.client import UnknownOutcome as UnknownOutcome
    from tidegate_client.names import client_id as client_id
    from tidegate_client.names import name_of as name_of
    from tidegate_client.publisher import AsyncPublisher as AsyncPublisher
    from tidegate_client.publisher import BadPush as BadPush
    from tidegate_client.publisher import Json as Json
    from tidegate_client.publisher import NotConfirmed as NotConfirmed
    from tidegate_client.publisher import NotThroughRedis as NotThroughRedis
    from tidegate_client.publisher import Publisher as Publisher
    from tidegate_client.publisher import PublisherError as PublisherError
    from tidegate_client.publisher import Push as Push
    from tidegate_client.publisher import PushFailed as PushFailed
    from tidegate_client.publisher import Refused as Refused
    from tidegate_client.tokens import TokenSigner as TokenSigner

__version__ = "0.2.0"

# The public names of each module.
_NAMES = {
    "tidegate_client.client": [
        "AnswerTimeout",
        "Client",
        "ClientError",
        "Closed",
        "FileStorage",
        "Gap",
        "Joined",
        "Left",
        "Message",
        "NotAllowed",
        "NotJoined",
        "Position",
        "Reason",
        "CommandRefused",
        "Subscription",
        "UnknownOutcome",
    ],
    "tidegate_client.publisher": [
        "AsyncPublisher",
        "BadPush",
        "Json",
        "NotConfirmed",
        "NotThroughRedis",
        "Publisher",
        "PublisherError",
        "Push",
        "PushFailed",
        "Refused",
    ],
    "tidegate_client.names": ["client_id", "name_of"],
    "tidegate_client.tokens": ["TokenSigner"],
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if home := _HOMES.get(name):
        return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
