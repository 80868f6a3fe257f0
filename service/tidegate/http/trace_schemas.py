"""The answers of ``trace``, described. ``openapi`` has the others. Where an object may have more keys than are named, a
later version, or a node of one, may say more."""

from __future__ import annotations

from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer"}
_TIME: Schema = {"$ref": "#/components/schemas/Time"}


def _or_null(kind: str) -> Schema:
    return {"type": [kind, "null"]}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _object(properties: Schema, required: str) -> Schema:
    return {"type": "object", "properties": properties, "required": required.split()}


def trace_schemas() -> Schema:
    step = _object(
        {"time_ms": _TIME, "node": _or_null("string"), "kind": _TEXT, "words": _TEXT}, "time_ms node kind words"
    )
    verdict = _object({"code": _TEXT, "words": _TEXT, "client": _TEXT}, "code words")
    node = _object({"node": _TEXT, "answered": {"type": "boolean"}, "since_ms": _or_null("integer")}, "node answered")
    position = _object({"epoch": _TEXT, "offset": _WHOLE, "state": _TEXT}, "epoch offset state")
    connection = _object(
        {
            "client": _TEXT,
            "connection": _TEXT,
            "node": _TEXT,
            "state": _TEXT,
            "replayed": {"type": "boolean"},
            "worker": _or_null("string"),
            "since_ms": _TIME,
            "unsent_bytes": _WHOLE,
            "positions": {"type": "object", "additionalProperties": position},
        },
        "connection node",
    )
    journal = _object(
        {
            "state": {"enum": ["kept", "trimmed", "none", "reset", "unknown"]},
            "top": _WHOLE,
            "time": _TIME,
            "bytes": _WHOLE,
            "client": _TEXT,
            "traceparent": _TEXT,
        },
        "state",
    )
    refusal = _object(
        {
            "time_ms": _TIME,
            "node": _TEXT,
            "status": _WHOLE,
            "code": _TEXT,
            "message": _TEXT,
            "client": _or_null("string"),
            "claimed": {"type": "boolean"},
            "address": _or_null("string"),
        },
        "time_ms node status code message client claimed address",
    )
    return {
        "Trace": _object(
            {
                "stream": _TEXT,
                "epoch": _TEXT,
                "offset": _WHOLE,
                "client": _TEXT,
                "journal": journal,
                "nodes": _list(node),
                "connections": _list(connection),
                "counts": {"type": "object", "additionalProperties": _WHOLE},
                "workers": {"type": "object", "additionalProperties": _WHOLE},
                "more": {"type": "boolean"},
                "verdicts": _list(verdict),
                "steps": _list(step),
            },
            "nodes connections verdicts steps",
        ),
        "Refusals": _object({"refusals": _list(refusal), "nodes": _list(node)}, "refusals nodes"),
    }
