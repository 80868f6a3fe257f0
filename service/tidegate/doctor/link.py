"""A connection as raw as it must be to see what lies in between: the handshake's bytes, and each frame that comes.

A library would follow redirects, answer pings by itself, inflate what is compressed and hide how a connection ended.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, NotRequired, TypeAlias, TypedDict, cast

import msgspec
from msgspec import Meta

from tidegate.core import frames
from tidegate.doctor.target import Target, credulous

TIMEOUT_S = 10.0
HEAD_BYTES = 64 * 1024
BODY_BYTES = 64 * 1024
MESSAGE_BYTES = 1024 * 1024  # no event is as large
CONTROL_BYTES = 125  # RFC 6455, 5.5
MESSAGE_FRAMES = 1024
RECEIVE_BYTES = 16 * 1024  # of one who does not read
_NOT_OURS = "what came is no frame of the gateway"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


_Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=1e9)]


class _Limits(TypedDict):
    message_bytes: NotRequired[Annotated[int, Meta(ge=1024, le=MESSAGE_BYTES)]]


class Position(TypedDict):
    epoch: str
    offset: int


class Welcome(TypedDict):
    """What of it is used. Source: docs/protocol.md, Events."""

    client: str
    connection: str
    node: str
    ping_interval: _Seconds
    ping_timeout: _Seconds
    limits: NotRequired[_Limits]
    streams: NotRequired[dict[str, Position]]


class Answer(NamedTuple):
    """An HTTP answer. ``headers`` by their names in lower case, the last of each."""

    status: int
    version: str
    headers: Mapping[str, str]
    body: bytes
    took_ms: float

    @property
    def error(self) -> tuple[str, str] | None:
        """Code and message, where it is the gateway's own refusal."""
        try:
            error = msgspec.json.decode(self.body, type=_Refused)["error"]
        except _NO_JSON:
            return None
        return error["code"], error["message"]

    @property
    def words(self) -> str:
        if self.error is not None:
            return f"{self.status} {self.error[0]}: {self.error[1]}"
        server = self.headers.get("server")
        return f"{self.status}" + (f" from {server[:60]}" if server else "") + ", not in the gateway's words"


class _Error(TypedDict):
    code: str
    message: str


class _Refused(TypedDict):
    error: _Error


# Of decoding what anybody may have sent: no JSON, another shape, no UTF-8, or too deep.
_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class NoAnswer(Exception):
    """In words: nothing listens, or what came was no HTTP, or is not the gateway's."""


class Ended(Exception):
    """A connection has ended: by a close frame with ``code``, or cut, which is None."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        self.code = code
        super().__init__(f"closed with {code} {reason}".rstrip() if code is not None else "cut without a close frame")


class Link:
    """A WebSocket. Control pings are answered as they are read, unless ``mute``. ``pings`` counts those that came,
    ``heard_s`` is when anything came last, in monotonic seconds."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer) -> None:
        self._reader = reader
        self._writer = writer
        self.answer = answer
        self.mute = False
        self.pings = 0
        self.heard_s = time.monotonic()
        self.welcome: Welcome = {}  # type: ignore[typeddict-item]  # until ``be_welcomed``
        self._kind = frames.TEXT  # of the message whose fragments come
        self._parts: list[bytes] = []

    def send(self, *messages: tuple[int, bytes]) -> None:
        """Opcodes and payloads; all leave in one write."""
        self._writer.write(b"".join(_masked(opcode, payload) for opcode, payload in messages))

    def say(self, **command: Any) -> None:
        self.send((frames.TEXT, json.dumps(command, ensure_ascii=False).encode()))

    async def frame(self, timeout_s: float | None = None) -> tuple[int, bytes]:
        """The next whole message or control frame, pings after they are answered. Raises Ended and TimeoutError."""
        try:
            async with asyncio.timeout(TIMEOUT_S if timeout_s is None else timeout_s):
                return await self._message()
        except TimeoutError:  # an OSError too
            raise
        except (asyncio.IncompleteReadError, OSError):
            raise Ended(None) from None

    async def _message(self) -> tuple[int, bytes]:
        while True:
            first, opcode, payload = await self._frame()
            self.heard_s = time.monotonic()
            if opcode == frames.PING:
                self.pings += 1
                if not self.mute:
                    self.send((frames.PONG, payload))
            if opcode == frames.CLOSE:
                code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
                self.send((frames.CLOSE, payload[:2]))
                raise Ended(code, payload[2:].decode(errors="replace"))
            if opcode >= frames.CLOSE:
                return opcode, payload
            self._kind = opcode or self._kind
            self._parts.append(payload)
            if sum(map(len, self._parts)) > MESSAGE_BYTES or len(self._parts) > MESSAGE_FRAMES:
                raise OSError(_NOT_OURS)
            if first & frames.FIN:
                whole, self._parts = b"".join(self._parts), []
                return self._kind, whole

    async def _frame(self) -> tuple[int, int, bytes]:
        first, second = await self._reader.readexactly(2)
        length = second & 0x7F
        if length >= 126:
            length = int.from_bytes(await self._reader.readexactly(2 if length == 126 else 8), "big")
        opcode = first & 0x0F
        most = CONTROL_BYTES if opcode >= frames.CLOSE else MESSAGE_BYTES
        if second & frames.MASKED or length > most or first & 0x70:
            raise OSError(_NOT_OURS)
        return first, opcode, await self._reader.readexactly(length)

    async def until(self, wanted: Callable[[int, bytes], bool], timeout_s: float | None = None) -> bytes:
        """The payload of the first that is wanted; others are passed over. Raises as ``frame``."""
        end_s = time.monotonic() + (TIMEOUT_S if timeout_s is None else timeout_s)
        while True:
            opcode, payload = await self.frame(max(0.0, end_s - time.monotonic()))
            if wanted(opcode, payload):
                return payload

    async def event(self, timeout_s: float | None = None, **fields: Any) -> dict[str, Any]:
        """The next event with these fields. Raises as ``frame``."""
        found: dict[str, Any] = {}

        def wanted(opcode: int, payload: bytes) -> bool:
            nonlocal found
            if opcode != frames.TEXT or not payload.startswith(b"{"):
                return False
            try:
                found = msgspec.json.decode(payload, type=dict)
            except _NO_JSON:
                return False
            return fields.items() <= found.items()

        await self.until(wanted, timeout_s)
        return found

    async def be_welcomed(self) -> None:
        """Reads the welcome. Raises as ``frame``, and NoAnswer for another server's."""
        event = await self.event(type="welcome")
        try:
            self.welcome = msgspec.convert(event, Welcome)
        except msgspec.ValidationError as exc:
            raise NoAnswer(f"what welcomes here is not the gateway: {exc}") from None

    async def stay(self, seconds: float) -> None:
        """Reads for so long. Raises Ended if it ends before that."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            try:
                await self.frame(left_s)
            except TimeoutError:
                return

    def stop_reading(self) -> None:
        """From now on the kernel takes next to nothing for it; else it would take megabytes."""
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        cast(asyncio.Transport, self._writer.transport).pause_reading()

    def read_on(self) -> None:
        cast(asyncio.Transport, self._writer.transport).resume_reading()

    def cut(self) -> None:
        self._writer.transport.abort()


async def greet(target: Target, headers: Mapping[str, str | None] | None = None, **query: str) -> Link:
    """A WebSocket that has been welcomed. Raises Refusal, NoAnswer, Ended."""
    found = await ask(target, headers, **query)
    if isinstance(found, Answer):
        raise Refusal(found)
    try:
        await found.be_welcomed()
    except TimeoutError:
        found.cut()
        raise NoAnswer(f"no welcome within {TIMEOUT_S:g} s") from None
    except BaseException:
        found.cut()
        raise
    return found


class Refusal(Exception):
    """The handshake was answered by something else than 101."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(answer.words)


async def ask(target: Target, headers: Mapping[str, str | None] | None = None, **query: str) -> Link | Answer:
    """What a handshake gives. ``headers`` in place of the usual ones, or beside them; None leaves one out. Raises
    NoAnswer."""
    key = base64.b64encode(os.urandom(16)).decode()
    fields: dict[str, str | None] = {
        "Host": target.authority,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Protocol": "tidegate.v1",
        **dict(target.headers),
    }
    if target.token is not None:
        fields["Authorization"] = f"Bearer {target.token}"
    fields |= dict(headers or {})
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    head = "\r\n".join([f"GET {target.target(**query)} HTTP/1.1", *lines, "", ""]).encode("latin-1", "replace")
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await _exchange(target, head, key)
    except TimeoutError:
        raise NoAnswer(f"no answer within {TIMEOUT_S:g} s") from None
    except asyncio.IncompleteReadError:
        raise NoAnswer("the connection was closed without an answer") from None
    except asyncio.LimitOverrunError:
        raise NoAnswer(f"the head of the answer is longer than {HEAD_BYTES // 1024} KiB") from None
    except OSError as exc:
        raise NoAnswer(_reason(exc)) from None
    except ValueError:
        raise NoAnswer("what answers there speaks no HTTP") from None


async def _exchange(target: Target, head: bytes, key: str) -> Link | Answer:
    begun_s = time.monotonic()
    tls = credulous() if target.secure else None
    reader, writer = await asyncio.open_connection(
        target.host, target.port, ssl=tls, server_hostname=target.host if tls else None, limit=HEAD_BYTES
    )
    kept = False
    try:
        writer.write(head)
        answer = _read_head((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"), begun_s)
        while 100 <= answer.status < 200 and answer.status != 101:
            answer = _read_head((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"), begun_s)
        if answer.status == 101 and answer.headers.get("sec-websocket-accept") == accept_of(key):
            kept = True
            return Link(reader, writer, answer)
        return answer if answer.status == 101 else answer._replace(body=await _body(reader, answer.headers))
    finally:
        if not kept:
            writer.transport.abort()


def accept_of(key: str) -> str:
    """What a server must answer. Source: RFC 6455, 4.2.2."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def _read_head(text: str, begun_s: float) -> Answer:
    """Raises ValueError for what is no HTTP."""
    first, *lines = text.removesuffix("\r\n\r\n").split("\r\n")
    version, status, *_ = first.split(" ")
    if not version.startswith("HTTP/"):
        raise ValueError("no HTTP")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Answer(int(status), version, headers, b"", (time.monotonic() - begun_s) * 1000)


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    """As much of it as is of interest."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return await _chunks(reader)
    if (length := headers.get("content-length", "")).isdecimal():
        return await reader.readexactly(min(int(length), BODY_BYTES))
    return await reader.read(BODY_BYTES)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while (length := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)) and len(body) < BODY_BYTES:
        if not 0 < length <= BODY_BYTES:  # more of it than is of interest, or no chunk
            break
        body += (await reader.readexactly(length + 2))[:-2]
    return body


def _reason(exc: OSError) -> str:
    if isinstance(exc, ConnectionError) and exc.errno:
        return os.strerror(exc.errno)  # asyncio's own words are "Connect call failed"
    return (exc.strerror or str(exc) or type(exc).__name__).strip()


def _masked(opcode: int, payload: bytes) -> bytes:
    mask = os.urandom(4)
    head = bytearray(frames.header(opcode, len(payload)))
    head[1] |= frames.MASKED
    pad = mask * (len(payload) // 4 + 1)
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(pad[: len(payload)], "big")
    return bytes(head) + mask + masked.to_bytes(len(payload), "big")
