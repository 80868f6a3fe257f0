"""Tidegate from Python: ``Client`` follows streams, ``Publisher`` pushes to them.

Each name is imported when it is first asked for, so that a program that only pushes loads no WebSocket library."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidegate_client.client import AnswerTimeout as AnswerTimeout
    from tidegate_client.client import Client as Client
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
    from tidegate_client.tokens import TokenSigner as TokenSigner

__version__ = "0.2.0"

# The module that each public name lives in.
_HOMES = {
    "AsyncPublisher": "tidegate_client.publisher",
    "BadPush": "tidegate_client.publisher",
    "Client": "tidegate_client.client",
    "Json": "tidegate_client.publisher",
    "NotConfirmed": "tidegate_client.publisher",
    "NotThroughRedis": "tidegate_client.publisher",
    "Publisher": "tidegate_client.publisher",
    "PublisherError": "tidegate_client.publisher",
    "Push": "tidegate_client.publisher",
    "PushFailed": "tidegate_client.publisher",
    "TokenSigner": "tidegate_client.tokens",
    "client_id": "tidegate_client.names",
    "name_of": "tidegate_client.names",
}

__all__ = [
    "AsyncPublisher",
    "BadPush",
    "Client",
    "Json",
    "NotConfirmed",
    "NotThroughRedis",
    "Publisher",
    "PublisherError",
    "Push",
    "PushFailed",
    "TokenSigner",
    "__version__",
    "client_id",
    "name_of",
]


def __getattr__(name: str) -> Any:
    if home := _HOMES.get(name):
        return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
