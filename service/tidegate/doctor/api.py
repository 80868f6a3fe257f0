"""The gateway's HTTP API as the doctor needs it; whoever starts it knows how it is reached."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias, TypedDict

import msgspec

from tidegate.brokers.contract import ServerCondition
from tidegate.core.model import NodeInfo
from tidegate.doctor.report import Finding, unknown, wrong

# method, path, body; the decoded answer. Blocks. Raises ApiError.
Ask: TypeAlias = Callable[[str, str, bytes | None], Any]


class ApiError(Exception):
    """In words: what was refused, or that nobody answers."""


class _Heartbeat(TypedDict):
    websocket_ping_interval: float
    websocket_ping_timeout: float


class _Edge(TypedDict):
    internal: str
    read_timeout_s: float
    upstreams: list[str]
    workers: int
    worker_connections: int


class _Limits(TypedDict):
    data_bytes: int
    outbox_bytes: int


class _Calls(TypedDict):
    allow: list[str]


class _Broker(TypedDict):
    prefix: str


class _Settings(TypedDict):
    heartbeat: _Heartbeat
    edge: _Edge
    limits: _Limits
    calls: _Calls
    broker: _Broker


class Health(TypedDict):
    """What of ``GET /api/health`` is looked at. Another server, or another version, need not say it."""

    node: str
    time_ms: int
    trouble: str | None
    ports: int | None
    settings: _Settings
    nodes: list[NodeInfo]
    broker: str
    server: ServerCondition | None


class Pushed(TypedDict):
    """What a push is answered."""

    epoch: str
    offset: int


class _Connection(TypedDict):
    connection: str
    node: str


class Client(TypedDict):
    """What of ``GET /api/clients/{client}`` is looked at."""

    connections: list[_Connection]


class Api:
    """One request at a time, beside the loop."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._turn = asyncio.Lock()

    async def call(self, method: str, path: str, body: object = None, shape: Any = Any) -> Any:
        """The decoded answer, as it came; ``shape``: what it must at least be like. Raises ApiError."""
        raw = None if body is None else msgspec.json.encode(body)
        async with self._turn:
            answer = await asyncio.to_thread(self._ask, method, path, raw)
        try:
            msgspec.convert(answer, shape)
        except msgspec.ValidationError as exc:
            raise ApiError(f"{method} {path} is not answered as a node of this version does: {exc}") from None
        return answer


async def ask_health(api: Api | None) -> dict[str, Any] | Finding:
    """What ``GET /api/health`` answers, or why it is not known."""
    if api is None:
        return unknown("nodes and Redis", "not asked for", "--api URL of a node's internal port")
    try:
        answer: dict[str, Any] = await api.call("GET", "/api/health", shape=Health)
    except ApiError as exc:
        return wrong(
            "API",
            str(exc),
            "--api: the internal port of a node of this version, with a key that may read (TIDEGATE_API_KEY)",
        )
    return answer
