"""How an application pushes: ``Publisher``, and ``AsyncPublisher`` with the same words.

What a call does is written once, in ``calls``: generators that say what to send and how long to wait. ``publisher``
carries that out, blocking or awaiting; ``over_http`` and ``over_redis`` know what goes over the wire. The layers, each
knowing those below it: publisher, calls, over_http | over_redis, attempts | lifetimes, pushes, model | errors."""

from tidegate_client.publisher.errors import (
    BadPush,
    NotConfirmed,
    NotThroughRedis,
    PublisherError,
    PushFailed,
    Refused,
)
from tidegate_client.publisher.model import Gap, History, Message, Position, Presence
from tidegate_client.publisher.publisher import AsyncPublisher, Publisher
from tidegate_client.publisher.pushes import Json, Push

__all__ = [
    "AsyncPublisher",
    "BadPush",
    "Gap",
    "History",
    "Json",
    "Message",
    "NotConfirmed",
    "NotThroughRedis",
    "Position",
    "Presence",
    "Publisher",
    "PublisherError",
    "Push",
    "PushFailed",
    "Refused",
]
