"""A real nginx with a configuration from a test, in front of a real gateway; and the handshake that judges it.

Words in capitals are filled in: PORT and PORT2 are nginx's own, GATEWAY and SOCKET the gateway's, OTHER an application
that knows no WebSocket, NOWHERE a port that nobody has, FOLDER and CERTIFICATES are folders.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from tests.edges.edge import NGINX, certificates, environ
from tests.peer import CLOSE, PING, PONG, TEXT, frame
from tests.service_fixture import running
from tests.support import Process, free_port, free_ports, scaled
from tidegate.config.load import load
from tidegate.config.settings import Config

PORTS = ("PORT", "PORT2", "PORT3")
_SETTINGS = {
    "SERVER__HOSTS": ["localhost", "127.0.0.1", "[::1]", "push.example.com"],
    "SERVER__SOCKET_MODE": "0666",
    "SERVER__HEADER_TIMEOUT_S": 2,  # of what speaks TLS to it
    "HEARTBEAT__WEBSOCKET_PING_INTERVAL": 1,
    "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": 10,
    # Everything runs in one process, which starts many others.
    "LIMITS__LAG_S": 60,
    "LIMITS__CONNECTIONS_PER_CLIENT": 10_000,
    "LIMITS__HANDSHAKES_PER_SECOND": 10_000,
}


class Client(NamedTuple):
    """How one comes; ``is_page``: from a page of the same host, as a browser says it."""

    port: int
    host: str
    path: str
    tls: bool
    is_page: bool = False

    @property
    def authority(self) -> str:
        return f"{self.host}:{self.port}"


class Started:
    """An nginx of its own for ``text``, in one process. ``file`` is what it was given."""

    def __init__(self, text: str, folder: Path, ports: list[int], words: dict[str, str]) -> None:
        folder.mkdir()
        self.ports = dict(zip(PORTS, ports, strict=True))
        words = {**words, "FOLDER": str(folder), **{name: str(port) for name, port in self.ports.items()}}
        self.text = re.sub(r"\b[A-Z]+[0-9]?\b", lambda found: words.get(found[0], found[0]), text)
        self.text = re.sub(r"(\blisten )(\d+[ ;])", r"\g<1>127.0.0.1:\2", self.text)
        temporary = "".join(
            f" {name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        self.file = folder / "nginx.conf"
        self.file.write_text(self.text.replace("\nhttp {", f"\nhttp {{ access_log off;{temporary}"))
        settings = f"daemon off; master_process off; pid {folder}/pid;"
        run = folder / "run"
        run.mkdir()
        self.process = Process(NGINX, "-e", "stderr", "-c", self.file, "-g", settings, folder=run)


class Stand:
    """A gateway, another application, and as many an nginx as are started."""

    def __init__(self, folder: Path, config: Config, words: dict[str, str]) -> None:
        self.config = config
        self._folder = folder
        self._words = words
        self._started: list[Started] = []

    def start(self, *texts: str) -> list[Started]:
        """One for each, all at once."""
        ports = free_ports(len(PORTS) * len(texts))
        begun = len(self._started)
        for number, text in enumerate(texts):
            own = ports[number * len(PORTS) : (number + 1) * len(PORTS)]
            self._started.append(Started(text, self._folder / str(begun + number), own, self._words))
        return self._started[begun:]

    def stop(self) -> None:
        for each in self._started:
            each.process.kill()


@contextlib.asynccontextmanager
async def stand() -> AsyncIterator[Stand]:
    # A folder with a short name: a Unix socket's path has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="tg-") as folder:
        settings = {**_SETTINGS, "SERVER__SOCKET": f"{folder}/gateway.sock"}
        async with running(**settings) as app, other_application() as other:
            upstreams = [f"127.0.0.1:{app.public_port}", f"unix:{folder}/gateway.sock"]
            told = {**settings, "SERVER__PORT": app.public_port, "EDGE__UPSTREAMS": upstreams}
            words = {
                "GATEWAY": str(app.public_port),
                "OTHER": str(other),
                "NOWHERE": str(free_port()),
                "SOCKET": f"{folder}/gateway.sock",
                "CERTIFICATES": certificates(),
            }
            made = Stand(Path(folder), load(None, environ(told)), words)
            try:
                yield made
            finally:
                made.stop()


async def handshake(client: Client, idle_s: float) -> str:
    """Empty where it upgrades, echoes and lasts; else what was wrong."""
    context = None
    if client.tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port, ssl=context)
    try:
        headers = {
            "Host": client.authority,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        if client.is_page:
            headers["Origin"] = f"http{'s' * client.tls}://{client.authority}"
        lines = [f"GET {client.path}?client=alice HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        if not head.startswith("http/1.1 101") or "\r\nupgrade: websocket" not in head:
            return head.partition("\r\n")[0]
        writer.write(frame(TEXT, b"ping"))
        echoed = asyncio.Event()
        reading = asyncio.create_task(_read(reader, writer, echoed))  # noqa: TID251
        try:
            await asyncio.wait_for(echoed.wait(), scaled(3))
            await asyncio.wait([reading], timeout=idle_s or 0.01)
            return "cut" if reading.done() else ""
        finally:
            reading.cancel()
    except (asyncio.IncompleteReadError, OSError) as exc:
        return repr(exc)
    finally:
        writer.transport.abort()


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, echoed: asyncio.Event) -> None:
    """Until the end, with pongs."""
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):
        while True:
            first, length = await reader.readexactly(2)
            if length == 126:
                length = int.from_bytes(await reader.readexactly(2), "big")
            payload = await reader.readexactly(length)
            if first & 0x0F == PING and not writer.transport.is_closing():
                writer.write(frame(PONG, payload))
            elif payload == b"pong":
                echoed.set()
            elif first & 0x0F == CLOSE:
                return


@contextlib.asynccontextmanager
async def other_application() -> AsyncIterator[int]:
    """Its port. It answers everything, and knows no WebSocket."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nother")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
