"""Every operation of the internal port in one table: what it does, what it needs, how it is described.

To add one: its function in ``api``, its line here, and its schemas in ``openapi``. Source: docs/protocol.md, HTTP API.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import msgspec

from tidegate.auth.api_keys import Right
from tidegate.config.settings import Config
from tidegate.core.errors import (
    BadRequest,
    BrokerDown,
    Full,
    HostNotAllowed,
    InternalError,
    KeyReused,
    NotAllowed,
    OriginNotAllowed,
    TooDeep,
    TooLarge,
    TooManyGroups,
    Unauthorized,
    UnsupportedMediaType,
)
from tidegate.http import api, health, openapi, trace
from tidegate.http.handler import ApiHandler, Endpoint, Response, Route
from tidegate.http.openapi import Errors, Operation, Operations, Schema

_API: Errors = (
    BadRequest,
    Unauthorized,
    NotAllowed,
    HostNotAllowed,
    OriginNotAllowed,
    UnsupportedMediaType,
    TooLarge,
    InternalError,
)
_BROKER: Errors = (*_API, BrokerDown)
_PUSH: Errors = (*_BROKER, TooDeep, KeyReused)
_OPEN: Errors = (HostNotAllowed, InternalError)
_READ = ("epoch", "offset", "limit")


_RIGHTS: dict[str, Right] = {"GET": "read", "POST": "push", "PUT": "manage", "DELETE": "manage"}


async def _description(handler: ApiHandler) -> Response:
    return Response(200, msgspec.json.encode(document(handler.api.config)))


OPERATIONS: Operations = {
    ("POST", "/api/clients/{client}/push"): Operation(
        api.push_to_client, "Push to one client", 202, "Position", _PUSH, body="Push"
    ),
    ("POST", "/api/groups/{group}/push"): Operation(
        api.push_to_group, "Push to a group", 202, "Position", _PUSH, body="Push"
    ),
    ("POST", "/api/all/push"): Operation(api.push_to_all, "Push to everybody", 202, "Position", _PUSH, body="Push"),
    ("POST", "/api/push"): Operation(
        api.push_many, "Push many at once; the answers come in the same order", 200, "Results", _API, body="Pushes"
    ),
    ("GET", "/api/clients/{client}"): Operation(
        api.client, "A client's connections and lasting memberships, on all nodes", 200, "Client", _BROKER
    ),
    ("DELETE", "/api/clients/{client}"): Operation(
        api.disconnect,
        "Close a client's connections, or one of them, with 4501",
        202,
        "Disconnected",
        _BROKER,
        ("connection",),
    ),
    ("GET", "/api/groups/{group}"): Operation(
        api.presence, "Who is in a group now, on all nodes", 200, "Presence", _BROKER
    ),
    ("PUT", "/api/groups/{group}/members/{client}"): Operation(
        api.add_member, "Make a client a lasting member of a group", 200, "Membership", (*_BROKER, TooManyGroups, Full)
    ),
    ("DELETE", "/api/groups/{group}/members/{client}"): Operation(
        api.remove_member,
        "End a membership; all of the client's connections leave the group",
        200,
        "Membership",
        _BROKER,
    ),
    ("GET", "/api/clients/{client}/history"): Operation(
        api.client_history, "Read a client's journal", 200, "History", _BROKER, _READ
    ),
    ("GET", "/api/groups/{group}/history"): Operation(
        api.group_history, "Read a group's journal", 200, "History", _BROKER, _READ
    ),
    ("GET", "/api/all/history"): Operation(
        api.history_of_all, "Read everybody's journal", 200, "History", _BROKER, _READ
    ),
    ("GET", "/api/rejected"): Operation(
        api.rejected, "The newest pushes through Redis that were rejected", 200, "Rejected", _BROKER, ("limit",)
    ),
    ("GET", "/api/nodes"): Operation(api.nodes, "The running nodes", 200, "Nodes", _BROKER),
    ("GET", "/api/health"): Operation(
        health.health, "How the nodes and the server behind them are, without secrets", 200, "Health", _API
    ),
    ("GET", "/api/trace"): Operation(
        trace.trace,
        "What became of a message of a stream, or of a client, on all nodes; kept for the newest",
        200,
        "Trace",
        _API,
        ("stream", "epoch", "offset", "client", "limit"),
    ),
    ("GET", "/api/refusals"): Operation(
        trace.refusals, "The newest handshakes that were refused, on all nodes", 200, "Refusals", _API, ("limit",)
    ),
    ("GET", "/api/openapi.json"): Operation(
        _description, "This description", 200, "application/json", (*_OPEN, OriginNotAllowed), keyed=False
    ),
    ("GET", "/metrics"): Operation(api.metrics, "Metrics for Prometheus", 200, "text/plain", _OPEN, keyed=False),
    ("GET", "/healthz"): Operation(api.healthz, "Whether the process is alive", 200, "Alive", _OPEN, keyed=False),
    ("GET", "/readyz"): Operation(
        api.readyz,
        "Whether a canary message has just passed through the broker; 503 if not",
        200,
        "Ready",
        _OPEN,
        keyed=False,
    ),
    ("GET", "/console.json"): Operation(
        api.console_settings, "What the console must know", 200, "Console", _OPEN, keyed=False
    ),
    ("GET", "/"): Operation(api.console, "The console, a page", 200, "text/html", _OPEN, keyed=False),
}


def document(config: Config) -> Schema:
    """The description of all operations, with the limits of ``config``."""
    return openapi.document(OPERATIONS, config)


def routes() -> list[Route]:
    """All paths of the internal port, in the order in which they are to be tried; the last takes what is left."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for (method, path), operation in OPERATIONS.items():
        query = frozenset(operation.query) if path.startswith("/api/") else None
        right = _RIGHTS[method] if operation.keyed else None
        endpoint = Endpoint(operation.run, right, query, operation.body is not None, operation.body == "Pushes")
        by_path.setdefault(path, {})[method] = endpoint
    by_path |= {path: {"GET": Endpoint(_always(file))} for path, file in api.console_files().items()}
    for endpoints in by_path.values():
        if "GET" in endpoints:
            endpoints["HEAD"] = endpoints["GET"]  # Tornado leaves the body out
    found = [
        Route(re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path))), endpoints)
        for path, endpoints in by_path.items()
    ]
    return [*found, Route(re.compile(r".*", re.DOTALL), {})]


def _always(answer: Response) -> Callable[..., Awaitable[Response]]:
    async def run(handler: ApiHandler) -> Response:
        return answer

    return run
