"""The HTTP API described: what each operation is for, what it takes and answers. ``operations`` has the table.

The document is OpenAPI 3.1, whose schemas are JSON Schema 2020-12. Source: docs/protocol.md, HTTP API.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from tidegate import __version__
from tidegate.config.settings import Config
from tidegate.core.errors import NotTried, Refused
from tidegate.core.model import KEY_CHARACTERS, TRACEPARENT
from tidegate.http.handler import Response
from tidegate.http.trace_schemas import trace_schemas

Schema: TypeAlias = dict[str, Any]
Errors: TypeAlias = tuple[type[Refused], ...]


class Operation(NamedTuple):
    """One method of one path: what it does, what it needs, how it is described. ``run`` takes the handler, and the
    path's names by keyword. ``answer`` and ``body`` name a schema, or are a media type where there is none; ``query``
    are the query keys; ``keyed`` operations need an API key."""

    run: Callable[..., Awaitable[Response]]
    summary: str
    status: int
    answer: str
    errors: Errors
    query: tuple[str, ...] = ()
    body: str | None = None
    keyed: bool = True


Operations: TypeAlias = Mapping[tuple[str, str], Operation]  # by method and path

_DESCRIPTIONS = {
    "epoch": "With offset: the position to read after; without both, from the oldest message that is kept.",
    "offset": "With epoch: the position to read after.",
    "limit": "So many at most; 100 if it is not given. 0, of a journal: the position only, without one the newest.",
    "connection": "Only this connection.",
    "stream": "The message's; with an offset, else its newest. A client's own names the client too.",
    "client": "Only what concerns this client; without a stream, all that is remembered of it.",
    "key": "Makes a push idempotent: repeated within 5 minutes for the same stream it returns the first position.",
}


def document(operations: Operations, config: Config) -> Schema:
    """The description of ``operations`` as OpenAPI has it, with the limits of ``config``."""
    paths: dict[str, Schema] = {}
    for (method, path), operation in operations.items():
        paths.setdefault(path, {})[method.lower()] = _described(path, operation, bool(config.internal.api_keys))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tidegate",
            "version": __version__,
            "description": "Push messages to clients and groups, and see who is there. A push that was accepted has a "
            "position in its stream; 503 broker_down means that it may have been accepted: repeat it with its key.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(operations, config),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}},
        },
    }


def _described(path: str, operation: Operation, keys: bool) -> Schema:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    parameters = [_parameter("path", name, _ref("Id"), f"The {name}'s id.", required=True) for name in names]
    parameters += [_parameter("query", name, _ref(_QUERY[name]), _DESCRIPTIONS[name]) for name in operation.query]
    if operation.body == "Push":
        parameters.append(_parameter("header", "Idempotency-Key", _ref("Key"), _DESCRIPTIONS["key"]))
    described: Schema = {
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {
            str(operation.status): {"description": operation.summary, "content": _content(operation.answer)},
            **_responses(operation.errors),
        },
        "security": [{"key": []}] if keys and operation.keyed else [],
    }
    if operation.answer == "Ready":
        described["responses"]["503"] = {"description": "Not ready", "content": _content("Ready")}
    if operation.body:
        described["requestBody"] = {"required": True, "content": _content(operation.body)}
    return described


_QUERY = {
    "epoch": "Epoch",
    "offset": "Offset",
    "limit": "Limit",
    "connection": "Connection",
    "stream": "Stream",
    "client": "Id",
}


def _parameter(place: str, name: str, schema: Schema, description: str, *, required: bool = False) -> Schema:
    return {"name": name, "in": place, "required": required, "schema": schema, "description": description}


def _content(name: str) -> Schema:
    if "/" in name:
        return {name: {"schema": {"type": "object" if name.endswith("json") else "string"}}}
    return {"application/json": {"schema": _ref(name)}}


def _responses(errors: Iterable[type[Refused]]) -> Schema:
    """One answer for each status, with the codes that it may carry."""
    by_status: dict[int, list[type[Refused]]] = {}
    for error in sorted(errors, key=lambda error: (error.status, error.code)):
        by_status.setdefault(error.status, []).append(error)
    return {str(status): _response(group) for status, group in by_status.items()}


def _response(errors: list[type[Refused]]) -> Schema:
    codes = [error.code for error in errors]
    narrowed = {"properties": {"error": {"properties": {"code": {"enum": codes}}}}}
    response: Schema = {
        "description": ", ".join(codes),
        "content": {"application/json": {"schema": {"allOf": [_ref("Error"), narrowed]}}},
    }
    if any(error.retry_after_s is not None for error in errors):
        response["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return response


# Schemas


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _object(properties: Schema, optional: Iterable[str] = ()) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


_NULL = {"type": "null"}


def _or_null(schema: Schema) -> Schema:
    """Also what is optional in a request: libraries of typed languages write null for what is not there."""
    return {"oneOf": [schema, _NULL]}


_ADDRESSES = {  # of an item of a batch: where it goes, and where it does not
    "client": ({"type": "string"}, _NULL),
    "group": ({"type": "string"}, _NULL),
    "all": ({"const": True}, {"const": False}),
}


def _goes_only(to: str) -> Schema:
    addresses = {name: yes if name == to else no for name, (yes, no) in _ADDRESSES.items()}
    return {"required": [to], "properties": addresses}


def _schemas(operations: Operations, config: Config) -> Schema:
    text, whole, yes_or_no = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
    any_json = {"description": f"Any JSON value of up to {config.limits.data_bytes} bytes."}
    message = {
        "offset": _ref("Offset"),
        "time": _ref("Time"),
        "client": {**_ref("Id"), "description": "The client that published it."},
        "data": {},
    }
    gap = {
        "stream": _ref("Stream"),
        "epoch": _ref("Epoch"),
        "from": {"type": ["integer", "null"]},
        "to": {"type": ["integer", "null"]},
        "reason": {"enum": ["expired", "reset"]},
    }
    position = {"stream": _ref("Stream"), "epoch": _ref("Epoch"), "offset": _ref("Offset")}
    codes = {NotTried.code} | {error.code for operation in operations.values() for error in operation.errors}
    refusal = _object({"code": {"type": "string", "enum": sorted(codes)}, "message": text})
    conflate = {**_ref("Id"), "description": "Of messages with the same word a slow connection gets the newest."}
    push = {"data": any_json, "conflate": _or_null(conflate)}
    item = {
        "client": _or_null(_ref("Id")),
        "group": _or_null(_ref("Id")),
        "all": yes_or_no,
        **push,
        "key": _or_null(_ref("Key")),
        "traceparent": _or_null(_ref("Traceparent")),
    }
    node = {
        "node": text,
        "version": text,
        "started_ms": _ref("Time"),
        "connections": whole,
        "draining": yes_or_no,
        "lag_ms": {"type": ["number", "null"]},
        "trunks": _list(text),
        "trunk_sessions": whole,
    }
    return {
        # Values
        "Id": {"type": "string", "pattern": r"^(?!\.+$)[A-Za-z0-9_.@-]{1,128}$"},
        "Stream": {"type": "string", "description": "client:<id>, group:<name> or all"},
        "Epoch": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"},
        "Offset": {"type": "integer", "minimum": 0},
        "Limit": {"type": "integer", "minimum": 0, "maximum": 1000},
        "Time": {"type": "integer", "description": "Unix time in milliseconds."},
        "Key": {"type": "string", "minLength": 1, "maxLength": KEY_CHARACTERS, "description": _DESCRIPTIONS["key"]},
        "Traceparent": {
            "type": "string",
            "pattern": f"^{TRACEPARENT}$",
            "description": "The span that pushes, as W3C Trace Context has it; without it the request's header is.",
        },
        "Connection": {"type": "string", "pattern": "^[A-Za-z0-9_.@-]{1,128}$"},
        # Bodies
        "Push": _object(push, ["conflate"]),
        "Pushes": _object({"pushes": _list(_ref("Item"), maxItems=config.limits.batch_pushes)}),
        "Item": {
            **_object(item, ["client", "group", "all", "key", "conflate", "traceparent"]),
            "oneOf": [_goes_only(name) for name in _ADDRESSES],
        },
        # Answers
        "Error": _object({"error": refusal}),
        "Position": _object(position),
        "Results": _object({"results": _list({"oneOf": [_ref("Position"), _ref("Error")]})}),
        "Client": _object({"client": _ref("Id"), "connections": _list(_ref("Presented")), "groups": _list(_ref("Id"))}),
        "Presented": _object(
            {"connection": _ref("Connection"), "node": text, "since_ms": _ref("Time"), "groups": _list(_ref("Id"))}
        ),
        "Disconnected": _object({"client": _ref("Id"), "connections": _list(_ref("Connection"))}),
        "Presence": _object({"group": _ref("Id"), "clients": _list(_ref("Id")), "connections": whole}),
        "Membership": _object({"group": _ref("Id"), "client": _ref("Id"), "member": yes_or_no, "changed": yes_or_no}),
        "History": _object(
            {
                **position,
                "top": _ref("Offset"),
                "messages": _list(_object(message, ["client"])),
                "more": yes_or_no,
                "gap": _object(gap),
            },
            ["gap"],
        ),
        "Rejected": _object({"rejected": _list(_ref("RejectedPush"))}),
        "RejectedPush": _object(
            {
                "id": text,
                "rejected_ms": _ref("Time"),
                "stream": {"type": "string", "description": "Empty where the entry names no good one."},
                "size": whole,
                "reason": text,
                "data": {"type": "string", "description": "The first KiB of it, as text."},
            }
        ),
        **trace_schemas(),
        "Nodes": _object({"nodes": _list(_ref("Node"))}),
        "Node": _object(node),
        "Health": _object(
            {
                "node": text,
                "version": text,
                "time_ms": _ref("Time"),
                "trouble": {"type": ["string", "null"], "description": "Why it is not ready."},
                "ports": {"type": ["integer", "null"], "description": "That this machine has for connections."},
                "settings": {"type": "object", "description": "Of this node, all of them; secrets are masked."},
                "nodes": _list(_object({**node, "health": _or_null(_ref("NodeHealth"))})),
                "broker": {"enum": ["memory", "redis"]},
                "server": _or_null(_ref("Server")),
            }
        ),
        "NodeHealth": _object(
            {
                "departures": {"type": "object", "description": "Its settings that are not the defaults, by key."},
                "connections_limit": whole,
                "open_files": whole,
                "open_files_limit": whole,
                "clock_off_ms": {"type": ["number", "null"], "description": "Its time of day less the server's."},
            }
        ),
        "Server": {"type": "object", "description": "Redis: role, what it keeps, limits, latency, clock, ingress."},
        "Alive": _object({"status": {"const": "alive"}}),
        "Ready": _object(
            {
                "status": {"enum": ["ready", "not_ready", "draining"]},
                "code": text,
                "reason": text,
                "for_s": {"type": "number", "minimum": 0},
                "lag_ms": {"type": ["number", "null"]},
            },
            ["code", "reason", "for_s"],
        ),
        "Console": _object(
            {
                "version": text,
                "node": text,
                "auth": {"enum": ["none", "jwt", "callback"]},
                "key_required": yes_or_no,
                "ws": _object({"port": whole, "path": text}),
                "edge": _object({"port": whole, "tls_port": whole}),
            }
        ),
    }
