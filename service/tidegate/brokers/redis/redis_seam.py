"""What is needed of redis-py beyond its public names, all in one place (tests/brokers/test_redis_seam.py).

redis-py connects, encrypts and signs in; from then on the transport is ours. It has no public way to hand that over,
nor to close at once: ``disconnect`` is a coroutine, and this may be the end of all tasks.
"""

from __future__ import annotations

import asyncio

from redis.asyncio.connection import AbstractConnection

PRIVATE = ("_close", "_writer")


def transport_of(connection: AbstractConnection) -> asyncio.Transport:
    """Of a connection that is signed in; redis-py's own protocol is still the transport's."""
    writer = connection._writer
    assert writer is not None
    return writer.transport  # type: ignore[return-value]  # asyncio.open_connection makes transports for both directions


def close_transport(connection: AbstractConnection) -> None:
    """At once; idempotent."""
    connection._close()  # type: ignore[no-untyped-call]
