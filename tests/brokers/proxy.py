"""What lies between two ends, as a node and its Redis: a wire that can be cut without a word, and answers that can be
changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

End: TypeAlias = int | str  # a port of 127.0.0.1, or the path of a Unix socket


class Proxy:
    """``async with Proxy(server.port) as proxy``: Redis is at ``proxy.url`` too. ``cut`` passes nothing on, in
    either direction, and says so to nobody; ``heal`` breaks what was cut. ``answered`` may change what is said at the
    ``end``, and ``back`` is what that gets to hear for it. ``listen`` is where the other end connects to; 0: any port.
    """

    def __init__(
        self,
        end: End,
        answered: Callable[[bytes], bytes] = lambda data: data,
        back: Callable[[bytes], bytes] = lambda data: b"",
        *,
        listen: End = 0,
    ) -> None:
        self._end = end
        self._listen = listen
        self._answered = answered
        self._back = back
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def __aenter__(self) -> Proxy:
        if isinstance(self._listen, str):
            self._server = await asyncio.start_unix_server(self._serve, self._listen)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._listen)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self.shut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        self._open.clear()

    def heal(self) -> None:
        self.shut()
        self._open.set()

    def refuse(self) -> None:
        """From now on nobody listens, and what is open ends."""
        self._server.close()
        self.shut()

    def shut(self) -> None:
        """What is open."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._end, str):
            return await asyncio.open_unix_connection(self._end)
        return await asyncio.open_connection("127.0.0.1", self._end)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        await self._open.wait()
        try:
            server_reader, server_writer = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        self._writers.append(server_writer)

        def changed(data: bytes) -> bytes:
            server_writer.write(self._back(data))
            return self._answered(data)

        for task in (
            asyncio.create_task(self._pass_on(reader, server_writer, lambda data: data)),  # noqa: TID251
            asyncio.create_task(self._pass_on(server_reader, writer, changed)),  # noqa: TID251
        ):
            self._tasks.add(task)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, changed: Callable[[bytes], bytes]
    ) -> None:
        try:
            while data := await reader.read(65536):
                await self._open.wait()
                writer.write(changed(data))
        except OSError:
            pass
        finally:
            writer.transport.abort()
