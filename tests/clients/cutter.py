"""What lies between clients and the gateway: a wire that breaks in the ways that wires break."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Sequence


class Link:
    """One connection; ``mute`` passes nothing on any more, and says so to nobody."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.mute = False
        self._both = (client, server)

    def reset(self) -> None:
        for writer in self._both:
            sock = writer.get_extra_info("socket")
            if sock is not None and not writer.is_closing():
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def end(self) -> None:
        """FIN to both."""
        for writer in self._both:
            with contextlib.suppress(OSError):
                writer.close()


class Cutter:
    """``async with Cutter([port, …], chance) as cutter``: who connects to ``cutter.port`` gets to any of the ports that
    accepts him. ``links`` are those that are open."""

    def __init__(self, ports: Sequence[int], chance: random.Random) -> None:
        self.port = 0
        self.links: list[Link] = []
        self._ports = ports
        self._chance = chance
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Cutter:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for link in self.links:
            link.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            for port in self._chance.sample(self._ports, len(self._ports)):
                with contextlib.suppress(OSError):
                    server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
                    break
            else:
                writer.transport.abort()
                return
            link = Link(writer, server_writer)
            self.links.append(link)
            try:
                back = asyncio.create_task(self._pass_on(link, server_reader, writer))  # noqa: TID251
                self._tasks.add(back)
                await self._pass_on(link, reader, server_writer)
                await back
            finally:
                self.links.remove(link)
                self._tasks.discard(back)
        except asyncio.CancelledError:
            pass  # Python 3.11 logs an error for a handler that ends cancelled
        finally:
            self._tasks.discard(task)

    @staticmethod
    async def _pass_on(link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not link.mute:
                    writer.write(data)
                    await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()
