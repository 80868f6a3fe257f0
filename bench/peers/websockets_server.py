"""The websockets package on uvloop, without compression: ``broadcast``, and an echo."""

from __future__ import annotations

import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench.peers.control import serve_control

_clients: set[ServerConnection] = set()


async def _client(connection: ServerConnection) -> None:
    _clients.add(connection)
    try:
        async for message in connection:
            await connection.send(message)
    finally:
        _clients.discard(connection)


async def _serve(port: int, control_port: int) -> None:
    async with serve(_client, "127.0.0.1", port, compression=None, ping_interval=30, ping_timeout=60, backlog=4096):
        await serve_control(control_port, lambda text: broadcast(_clients, text))


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
