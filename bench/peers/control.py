"""The control port of the peers that are written in Python."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def serve_control(port: int, fan_out: Callable[[str], None]) -> None:
    """Gives each text that comes to ``fan_out``; does not return."""

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(4), "big")
                fan_out((await reader.readexactly(length)).decode())
        except asyncio.IncompleteReadError:
            writer.close()

    async with await asyncio.start_server(read, "127.0.0.1", port) as server:
        await server.serve_forever()
