"""Servers that do what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def says(sent: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(sent)

    return handle


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes what comes, and answers nothing."""
    while await reader.read(65536):
        pass


@contextlib.asynccontextmanager
async def server(handler: Handler, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """Its port. A connection is closed when its handler is done, or with the server."""
    tasks: set[asyncio.Task[None] | None] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            await handler(reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            # Python 3.11 logs an error for a handler that ends cancelled.
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    server = await asyncio.start_server(handle, host, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            assert task is not None
            task.cancel()
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)


class Names(asyncio.DatagramProtocol):
    """A DNS server for IPv4: ``hosts`` is name -> addresses; a name without any does not exist."""

    def __init__(self) -> None:
        self.hosts: dict[str, list[str]] = {}
        self._transport: asyncio.DatagramTransport

    async def start(self) -> int:
        """Its port."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        port: int = self._transport.get_extra_info("sockname")[1]
        return port

    def stop(self) -> None:
        self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        end = data.index(b"\0", 12)
        hosts = self.hosts.get(data[13:end].decode(), [])  # of one label
        records = b"".join(struct.pack("!HHHIH", 0xC00C, 1, 1, 1, 4) + socket.inet_aton(host) for host in hosts)
        flags = 0x8180 if hosts else 0x8183
        head = data[:2] + struct.pack("!HHHHH", flags, 1, len(hosts), 0, 0)
        self._transport.sendto(head + data[12 : end + 5] + records, addr)
