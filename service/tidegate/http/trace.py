"""What became of a message, or of a client: the part of the HTTP API that looks back. As ``api``; source:
docs/protocol.md, HTTP API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tidegate.core.errors import BadRequest
from tidegate.core.model import MAX_OFFSET, Position, is_id, is_position, is_stream, kind_of
from tidegate.http.handler import ApiHandler, Response

STEPS = 200
CONNECTIONS = 100
MOST = 1000


async def trace(handler: ApiHandler) -> Response:
    stream, client = handler.query("stream"), handler.query("client")
    if client is not None and not is_id(client):
        raise BadRequest("client: malformed")
    if stream is None:
        if client is None:
            raise BadRequest("trace: of a client, or of a stream's message")
        if handler.query("epoch") is not None or handler.query("offset") is not None:
            raise BadRequest("epoch, offset: of a stream")
        return _answer(await handler.api.tracing.client(client, _limit(handler, STEPS)))
    if not is_stream(stream):
        raise BadRequest("stream: client:ID, group:NAME or all")
    epoch, text = handler.query("epoch"), handler.query("offset")
    offset = None if text is None else _number("offset", text)
    if epoch is not None and (offset is None or not is_position(Position(epoch, offset))):
        raise BadRequest("epoch: malformed, or without an offset")
    if kind_of(stream) == "client":
        owner = stream.partition(":")[2]
        if client not in (None, owner):
            raise BadRequest(f"client: only {owner} hears {stream}")
        client = owner
    found = await handler.api.tracing.message(stream, epoch, offset, client, _limit(handler, CONNECTIONS))
    return _answer(found)


async def refusals(handler: ApiHandler) -> Response:
    return _answer(await handler.api.tracing.refusals(_limit(handler, CONNECTIONS)))


def _limit(handler: ApiHandler, default: int) -> int:
    text = handler.query("limit")
    limit = default if text is None else _number("limit", text)
    if not 1 <= limit <= MOST:
        raise BadRequest(f"limit: from 1 to {MOST}")
    return limit


def _number(name: str, text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 16 and int(text) <= MAX_OFFSET:
        return int(text)
    raise BadRequest(f"{name}: not a number, or too large")


def _answer(fields: Mapping[str, Any]) -> Response:
    return Response(200, msgspec.json.encode(fields), {"Cache-Control": "no-store"})
