"""What each operation of the internal port does: the HTTP API, metrics, health and the console.

Each is a function of the request's handler and of the names in its path, and gives an answer or raises ``Refused``.
``operations`` has the table of them. Source: docs/protocol.md, HTTP API.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from tidegate import __version__
from tidegate.core.errors import BadRequest, NotAllowed, Refused, TooLarge
from tidegate.core.model import ALL, Position, Publication, client_stream, group_stream, is_traceparent
from tidegate.core.protocol import history_fields, position_of
from tidegate.core.push import PushLimits, check_conflate, check_data, check_key, publication
from tidegate.http.handler import ApiContext, ApiHandler, Response, decode

_FRESH = {"Cache-Control": "no-store"}
_ENVELOPE_BYTES = 1024  # of a history's answer, beside its messages
_CONNECTION = re.compile(r"[A-Za-z0-9_.@-]{1,128}\Z", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,16}\Z", re.ASCII)


# Pushes


class _Push(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    data: msgspec.Raw
    conflate: str | None = None


class _Pushes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pushes: list[msgspec.Raw]  # decoded one by one: what is wrong with one must not stop the others


class _Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    data: msgspec.Raw
    client: str | None = None
    group: str | None = None
    all: bool = False
    key: str | None = None
    conflate: str | None = None
    traceparent: str | None = None


_push_decoder = msgspec.json.Decoder(_Push)
_pushes_decoder = msgspec.json.Decoder(_Pushes)
_item_decoder = msgspec.json.Decoder(_Item)


async def push_to_client(handler: ApiHandler, client: str) -> Response:
    return await _push(handler, client_stream(client))


async def push_to_group(handler: ApiHandler, group: str) -> Response:
    return await _push(handler, group_stream(group))


async def push_to_all(handler: ApiHandler) -> Response:
    return await _push(handler, ALL)


async def _push(handler: ApiHandler, stream: str) -> Response:
    key = _header_key(handler)
    asked = handler.decode(_push_decoder)
    data, conflate = check_data(bytes(asked.data), _limits(handler.api)), check_conflate(asked.conflate)
    push = Publication(stream, data, key, None, conflate, _header_traceparent(handler))
    (result,) = await handler.api.gateway.push([push])
    if isinstance(result, Refused):
        raise result
    return Response(202, _accepted(stream, result))


async def push_many(handler: ApiHandler) -> Response:
    if "Idempotency-Key" in handler.request.headers:
        raise BadRequest("a batch takes the keys of its items, not Idempotency-Key")
    items = handler.decode(_pushes_decoder).pushes
    most = handler.api.config.limits.batch_pushes
    if len(items) > most:
        raise TooLarge(f"{len(items)} pushes in one request, more than {most}")
    handler.pushes = len(items)
    span = _header_traceparent(handler)
    asked = [_publication(item, handler, span) for item in items]
    publications = [each for each in asked if isinstance(each, Publication)]
    pushed = iter(await handler.api.gateway.push(publications) if publications else ())
    results = [_result(each, next(pushed)) if isinstance(each, Publication) else each.body for each in asked]
    return Response(200, b'{"results":[%b]}' % b",".join(results))


def _publication(raw: msgspec.Raw, handler: ApiHandler, span: str | None) -> Publication | Refused:
    """What an item of a batch asks for, or what is wrong with it. ``span``: of the request."""
    api = handler.api
    try:
        item = decode(_item_decoder, bytes(raw), "the item")
        data = check_data(bytes(item.data), _limits(api))
        asked = publication(
            data,
            client=item.client,
            group=item.group,
            all=item.all,
            key=item.key,
            conflate=item.conflate,
            traceparent=span if item.traceparent is None else item.traceparent,
        )
        handler.caller.require_stream(asked.stream)
        return asked
    except Refused as exc:
        handler.not_allowed += isinstance(exc, NotAllowed)
        api.metrics.refusals[exc.code,] += 1
        return exc


def _limits(api: ApiContext) -> PushLimits:
    return PushLimits(api.config.limits.data_bytes, api.config.limits.json_depth)


def _header_key(handler: ApiHandler) -> str | None:
    headers = handler.request.headers
    if "Idempotency-Key" not in headers:
        return None
    try:
        return check_key(headers["Idempotency-Key"].encode("latin-1").decode())  # Tornado reads headers as Latin-1
    except UnicodeDecodeError:
        raise BadRequest("the key is not UTF-8") from None


def _header_traceparent(handler: ApiHandler) -> str | None:
    """Of the request. One that is malformed is left out, as W3C Trace Context, 3.3 demands."""
    text = handler.request.headers.get("traceparent")
    return text if text is not None and is_traceparent(text) else None


def _accepted(stream: str, position: Position) -> bytes:
    # Neither of the names needs an escape.
    return b'{"stream":"%b","epoch":"%b","offset":%d}' % (stream.encode(), position.epoch.encode(), position.offset)


def _result(publication: Publication, result: Position | Refused) -> bytes:
    return result.body if isinstance(result, Refused) else _accepted(publication.stream, result)


# Clients, groups, journals, nodes


async def client(handler: ApiHandler, client: str) -> Response:
    connections = await handler.api.gateway.connections(client)
    groups = await handler.api.gateway.memberships(client)
    shown = [
        {"connection": info.connection, "node": info.node, "since_ms": info.since_ms, "groups": info.groups}
        for info in connections
    ]
    return _answer({"client": client, "connections": shown, "groups": sorted(groups)})


async def disconnect(handler: ApiHandler, client: str) -> Response:
    connection = handler.query("connection")
    if connection is not None and not _CONNECTION.match(connection):
        raise BadRequest("connection: malformed")
    known = await handler.api.gateway.disconnect(client, connection)
    return _answer({"client": client, "connections": known}, 202)


async def presence(handler: ApiHandler, group: str) -> Response:
    clients, connections = await handler.api.gateway.presence(group)
    return _answer({"group": group, "clients": clients, "connections": connections})


async def add_member(handler: ApiHandler, group: str, client: str) -> Response:
    new = await handler.api.gateway.add_member(group, client)
    return _answer({"group": group, "client": client, "member": True, "changed": new})


async def remove_member(handler: ApiHandler, group: str, client: str) -> Response:
    was = await handler.api.gateway.remove_member(group, client)
    return _answer({"group": group, "client": client, "member": False, "changed": was})


async def client_history(handler: ApiHandler, client: str) -> Response:
    return await _history(handler, client_stream(client))


async def group_history(handler: ApiHandler, group: str) -> Response:
    return await _history(handler, group_stream(group))


async def history_of_all(handler: ApiHandler) -> Response:
    return await _history(handler, ALL)


async def _history(handler: ApiHandler, stream: str) -> Response:
    epoch, offset = handler.query("epoch"), handler.query("offset")
    since = position_of(epoch, None if offset is None else _number("offset", offset))
    most = _limit(handler)
    history = await handler.api.gateway.history(stream, since, most)
    fields = history_fields(history, handler.api.config.limits.answer_bytes - _ENVELOPE_BYTES)
    return _answer({"stream": stream, **fields})


def _limit(handler: ApiHandler) -> int:
    limit = handler.query("limit")
    most = 100 if limit is None else _number("limit", limit)
    if most > 1000:
        raise BadRequest("limit: from 0 to 1000")
    return most


def _number(name: str, text: str) -> int:
    if not _NUMBER.match(text):
        raise BadRequest(f"{name}: not a number, or too large")
    return int(text)


async def rejected(handler: ApiHandler) -> Response:
    found = await handler.api.gateway.rejected(_limit(handler))
    shown = [
        {
            "id": push.id,
            "rejected_ms": push.rejected_ms,
            "stream": push.stream,
            "size": push.size,
            "reason": push.reason,
            "data": push.data.decode(errors="replace"),  # as text: it may be anything
        }
        for push in found
    ]
    return _answer({"rejected": shown})


async def nodes(handler: ApiHandler) -> Response:
    shown = [msgspec.to_builtins(info) for info in await handler.api.gateway.nodes()]
    for node in shown:
        del node["health"]  # GET /api/health has it
    return _answer({"nodes": shown})


def _answer(fields: Mapping[str, Any], status: int = 200) -> Response:
    return Response(status, msgspec.json.encode(fields), _FRESH)


# Operations and console


async def metrics(handler: ApiHandler) -> Response:
    return Response(200, handler.api.metrics.text(), {**_FRESH, "Content-Type": CONTENT_TYPE_LATEST})


async def healthz(handler: ApiHandler) -> Response:
    return Response(200, b'{"status":"alive"}', _FRESH)


async def readyz(handler: ApiHandler) -> Response:
    api = handler.api
    found = api.readiness
    fields: dict[str, object]
    if api.gateway.draining:
        fields = {"status": "draining", "code": "draining", "reason": "this node is stopping", "lag_ms": None}
    elif found.ready:
        return _answer({"status": "ready", "lag_ms": found.lag_ms})
    else:
        why = {"code": found.trouble, "reason": found.reason, "for_s": round(found.not_ready_s, 3)}
        fields = {"status": "not_ready", **why, "lag_ms": None}
    return _answer(fields, 503)


async def console_settings(handler: ApiHandler) -> Response:
    config = handler.api.config
    return _answer(
        {
            "version": __version__,
            "node": handler.api.gateway.node,
            "auth": config.auth.mode,
            "key_required": handler.api.keys.required,
            "ws": {"port": handler.api.public_port, "path": config.server.path},
            "edge": {"port": config.edge.port, "tls_port": config.edge.tls_port},
        }
    )


_CONSOLE = Path(__file__).parent / "console"
_CONSOLE_HEADERS = {
    "Cache-Control": "no-cache",  # asked for each time, and answered by 304
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws: wss:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


async def console(handler: ApiHandler) -> Response:
    return console_files()["/index.html"]


@cache
def console_files() -> Mapping[str, Response]:
    """The console's files by path, as they are when the service starts."""
    return {f"/{file.name}": _file(file) for file in sorted(_CONSOLE.iterdir()) if file.suffix in _TYPES}


def _file(file: Path) -> Response:
    body = file.read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return Response(200, body, {**_CONSOLE_HEADERS, "Content-Type": _TYPES[file.suffix], "Etag": etag})
