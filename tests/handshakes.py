"""Handshakes for tests: good ones, and how others are refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.peer import Peer, Refusal
from tests.support import scaled
from tests.tokens import SECRET, make_token
from tidegate.app import App
from tidegate.core.model import Position, encode_cursor

JWT = {"AUTH__MODE": "jwt", "AUTH__KEY": SECRET}
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def token(**claims: Any) -> str:
    return make_token(**{"exp": int(time.time()) + 3600, **claims})


def cursor(*streams: str) -> str:
    """A position in each."""
    encoded = encode_cursor({stream: Position("e", 1) for stream in streams})
    assert encoded is not None
    return encoded


async def refused(app: App, headers: dict[str, str] | None = None, **query: Any) -> Refusal:
    """How a handshake is refused: as a client, ``alice`` where nothing else is said."""
    if not query.keys() & {"client", "raw_query"} and app.config.auth.mode == "none":
        query["client"] = "alice"
    with pytest.raises(Refusal) as info:
        await Peer(app.public_port, headers=headers, **query).connect()
    refusal = info.value
    assert refusal.headers["content-type"] == "application/json"
    assert "server" not in refusal.headers
    error = json.loads(refusal.body)
    assert list(error) == ["error"]
    assert list(error["error"]) == ["code", "message"]
    return refusal


async def said(app: App, headers: dict[str, str] | None = None, **query: Any) -> tuple[int, str]:
    refusal = await refused(app, headers, **query)
    return refusal.status, refusal.code


@contextlib.asynccontextmanager
async def connected(app: App, headers: dict[str, str] | None = None, **query: Any) -> AsyncIterator[Peer]:
    if not query.keys() & {"client", "raw_query"} and app.config.auth.mode == "none":
        query["client"] = "alice"
    async with Peer(app.public_port, headers=headers, **query) as peer:
        assert (await peer.event())["type"] == "welcome"
        yield peer


async def raw(app: App, request: bytes) -> bytes:
    """The answer; as much of it as comes before the end of file."""
    reader, writer = await asyncio.open_connection("127.0.0.1", app.public_port)
    try:
        writer.write(request)
        async with asyncio.timeout(scaled(5)):
            head = await reader.readuntil(b"\r\n\r\n")
            if request.startswith(b"HEAD"):
                return head
            if b"Content-Length: " not in head:
                return head + await reader.read()
            return head + await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
    except asyncio.IncompleteReadError as exc:
        return exc.partial
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def handshake(*more: str, target: str = "/ws-notifications/?client=alice", method: str = "GET") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}", *more, "", ""]
    return "\r\n".join(lines).encode("latin-1")
