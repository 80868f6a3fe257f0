"""``check --nginx`` against a real nginx: each of ``configurations/`` is started in front of a real gateway, and a
handshake is the judge. What breaks is what does not upgrade, echo and last; and nothing else.

The head of each file says what is meant: the verdict (``works``, or ``breaks`` and by which rule), how clients come
(port, name, path, tls; several are several lines), and for how many seconds they say nothing. PORT and other words in
capitals are filled in.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.edges.edge import NGINX, certificates, environ
from tests.peer import CLOSE, PING, PONG, TEXT, frame
from tests.service_fixture import running
from tests.support import Process, lasting_ports, scaled
from tidegate.config.load import load
from tidegate.config.settings import Config
from tidegate.nginx.check import check_file

FILES = sorted((Path(__file__).parent / "configurations").glob("*.conf"))
HOSTS = ["localhost", "127.0.0.1", "[::1]", "push.example.com"]
TIMES = {
    "HEARTBEAT__WEBSOCKET_PING_INTERVAL": 1,
    "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": 10,
    "SERVER__HEADER_TIMEOUT_S": 0.5,  # of what speaks TLS to it
}
PORTS = ("PORT", "PORT2", "PORT3")
BROWSER_RULES = {"host", "origin"}  # what pages alone meet


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


class Case:
    """One configuration, filled in, with an nginx of its own."""

    def __init__(self, file: Path, folder: Path, ports: list[int], words: dict[str, str]) -> None:
        folder.mkdir()
        self.name = file.stem
        self.file = folder / "nginx.conf"
        words = {**words, "FOLDER": str(folder), **dict(zip(PORTS, map(str, ports), strict=True))}
        text = re.sub(r"\b[A-Z]+[0-9]?\b", lambda found: words.get(found[0], found[0]), file.read_text())
        text = re.sub(r"(\blisten )(\d+[ ;])", r"\g<1>127.0.0.1:\2", text)
        temporary = "".join(
            f" {name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        self.file.write_text(text.replace("\nhttp {", f"\nhttp {{ access_log off;{temporary}"))
        self.verdict, *self.rules = self._said(text, "verdict")[0].split()
        self.idle_s = float((self._said(text, "idle") or ["0"])[0])
        self.clients = [self._client(line) for line in self._said(text, "client") or [words["PORT"]]]
        settings = f"daemon off; master_process off; pid {folder}/pid;"
        run = folder / "run"
        run.mkdir()
        self.process = Process(NGINX, "-e", "stderr", "-c", self.file, "-g", settings, folder=run)

    @staticmethod
    def _said(text: str, name: str) -> list[str]:
        return re.findall(rf"^# {name}: (.*)$", text, re.MULTILINE)

    @staticmethod
    def _client(line: str) -> Client:
        port, host, path, tls, *_ = [
            *line.split(),
            *("localhost", "/ws-notifications/", "")[len(line.split()) - 1 :],
            "",
        ]
        return Client(int(port), host, path, tls == "tls")


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
        await asyncio.wait_for(echoed.wait(), scaled(5))
        done, _ = await asyncio.wait([reading], timeout=idle_s) if idle_s else ({}, None)
        reading.cancel()
        return "cut" if done else ""
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
            if first & 0x0F == PING:
                writer.write(frame(PONG, payload))
            elif payload == b"pong":
                echoed.set()
            elif first & 0x0F == CLOSE:
                return


async def judged(case: Case, config: Config) -> list[str]:
    """What the verdict says otherwise than nginx does."""
    for port in {client.port for client in case.clients}:
        await case.process.port(port)
    failures = [await handshake(client, case.idle_s) for client in case.clients]
    pages = [await handshake(client._replace(is_page=True), 0) for client in case.clients]
    findings = check_file(str(case.file), config)
    broken = [finding for finding in findings if finding.level == "breaks"]
    wrong = []
    if any(failures) != bool(broken):
        wrong.append(f"the handshake: {failures}; the verdict: {[str(finding) for finding in broken]}")
    elif not any(failures) and any(pages) != any(
        finding.level == "harden" and finding.rule in BROWSER_RULES for finding in findings
    ):
        wrong.append(f"a page's handshake: {pages}; the verdict: {[str(finding) for finding in findings]}")
    said = {finding.rule for finding in broken}
    if said != set(case.rules) or (case.verdict == "works") != (not broken):
        wrong.append(f"{case.verdict} {case.rules} was meant, and {[str(finding) for finding in broken]} is said")
    for finding in broken:
        if not re.match(rf"{re.escape(str(case.file))}:\d+\Z", finding.where):
            wrong.append(f"no place: {finding}")
    return [f"{case.name}: {text}" for text in wrong]


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


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short name: a Unix socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="tg-") as name:
        yield Path(name)


async def test_what_breaks_is_what_a_real_nginx_breaks(folder: Path) -> None:
    assert len(FILES) >= 40
    socket = str(folder / "gateway.sock")
    settings = {**TIMES, "SERVER__HOSTS": HOSTS, "SERVER__SOCKET": socket, "SERVER__SOCKET_MODE": "0666"}
    async with running(**settings) as app, other_application() as other:
        config = load(
            None,
            environ(
                {
                    **settings,
                    "SERVER__PORT": app.public_port,
                    "EDGE__UPSTREAMS": [f"127.0.0.1:{app.public_port}", f"unix:{socket}"],
                }
            ),
        )
        nowhere, *ports = lasting_ports(1 + len(PORTS) * len(FILES))
        words = {
            "GATEWAY": str(app.public_port),
            "OTHER": str(other),
            "NOWHERE": str(nowhere),
            "SOCKET": socket,
            "CERTIFICATES": certificates(),
        }
        cases: list[Case] = []
        try:
            for file in FILES:
                own, ports = ports[: len(PORTS)], ports[len(PORTS) :]
                cases.append(Case(file, folder / file.stem, own, words))
            wrong = await asyncio.gather(*(judged(case, config) for case in cases))
        finally:
            for case in cases:
                case.process.kill()
    lines = [line for each in wrong for line in each]
    assert not lines, "\n" + "\n".join(lines)
