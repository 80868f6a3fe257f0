"""The same bytes, three parsers, one answer: the edges' JavaScript and Lua against the service.

JSON and commands are read in njs (its command line) and in Lua (in an nginx), with the same limits everywhere. Frames
go through a session of njs, and through both readers of Lua: the one that relays, and the one of trunks. Each takes
many inputs at once, because each is another process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from tests.edges import njs
from tests.edges.lua_code import Lua
from tests.fuzz import trunks
from tests.peer import CLOSE, PING, PONG, TEXT, frame
from tests.trunk import luajit
from tests.websocket.verdict import Verdict, judge
from tidegate import calls
from tidegate.core import protocol
from tidegate.core.errors import Refused
from tidegate.tornado_seam import mask
from tidegate.trunk import codec

ALLOW = ("echo", "orders.create")
LIMITS = {"json_depth": 8, "data_bytes": 200, "message_bytes": 2000}
FRAME_BYTES = 2000

Answers = list[Any]


class Parsers(Protocol):
    def check(self, inputs: Sequence[bytes]) -> Iterator[tuple[bytes, str]]:
        """Each input about which they differ, and how."""


def differences(inputs: Sequence[bytes], answers: dict[str, Answers]) -> Iterator[tuple[bytes, str]]:
    """Of answers of several parsers, the service's first."""
    for number, data in enumerate(inputs):
        said = {name: those[number] for name, those in answers.items()}
        ours = next(iter(said.values()))
        if any(answer != ours for answer in said.values()):
            yield data, ", ".join(f"{name}: {answer!r:.300}" for name, answer in said.items())


@contextlib.contextmanager
def _lua() -> Iterator[Lua]:
    folder = Path(tempfile.mkdtemp(prefix="tidegate-fuzz-"))
    folder.chmod(0o755)
    settings = {f"LIMITS__{name.upper()}": value for name, value in LIMITS.items()}
    lua = Lua(folder, **settings)
    try:
        asyncio.run(lua.process.port(lua.port))
        yield lua
        assert "[error]" not in lua.process.stderr, lua.process.stderr
    finally:
        lua.process.kill()
        shutil.rmtree(folder)


# JSON


class _Documents:
    def __init__(self, lua: Lua) -> None:
        self._lua = lua

    def check(self, inputs: Sequence[bytes]) -> Iterator[tuple[bytes, str]]:
        inputs = [text for text in inputs if text]
        code = f"local found = require('json_text').document(text, {LIMITS['json_depth']}); return found or ''"
        answers = {
            "service": [_document(text) for text in inputs],
            "njs": [_unhex(found) for found in njs.njs(_job("documents", inputs))],
            "Lua": [found or None for found in asyncio.run(self._lua.run(code, list(inputs)))],
        }
        return differences(inputs, answers)


def _document(text: bytes) -> bytes | None:
    try:
        protocol.check_depth(text, LIMITS["json_depth"])
        return calls.check_answer(text)
    except Refused:
        return None


@contextlib.contextmanager
def documents() -> Iterator[Parsers]:
    with _lua() as lua:
        yield _Documents(lua)


def _job(kind: str, inputs: Sequence[bytes]) -> dict[str, Any]:
    return {"kind": kind, "texts": [text.hex() for text in inputs], "settings": {**LIMITS, "calls_allow": ALLOW}}


def _unhex(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


# Commands

_PARSE = """
    local call = require("command").parse(text)
    return call and call.id .. " " .. call.method .. " " .. (call.traceparent or "-") .. " " .. call.data or ""
""".replace("\n", " ")


class _Commands:
    """njs may leave to the service what is a call, and says so; it must not take what is none."""

    def __init__(self, lua: Lua) -> None:
        self._lua = lua

    def check(self, inputs: Sequence[bytes]) -> Iterator[tuple[bytes, str]]:
        # Which texts are too long a frame says, before anybody reads them.
        inputs = [text for text in inputs if len(text) <= LIMITS["message_bytes"]]
        wanted = [call_of(text) for text in inputs]
        by_njs = [
            ours
            if found == "perhaps"
            else found and (json.loads(found[0]), found[1], found[3], bytes.fromhex(found[2]))
            for found, ours in zip(njs.njs(_job("parse", inputs)), wanted, strict=True)
        ]
        by_lua = [_spoken(found) for found in asyncio.run(self._lua.run(_PARSE, list(inputs)))]
        return differences(inputs, {"service": wanted, "njs": by_njs, "Lua": by_lua})


def call_of(text: bytes) -> tuple[str | int, str, str, bytes] | None:
    """Id, method, trace and data of a call that the service would carry out."""
    try:
        text.decode()
        command = protocol.decode_command(text, depth=LIMITS["json_depth"])
        if not isinstance(command, protocol.Call) or command.method not in ALLOW:
            return None
        data = protocol.check_size(bytes(command.data), LIMITS["data_bytes"])
        return command.id, command.method, command.traceparent or "", data
    except (protocol.NotUnderstood, Refused, UnicodeDecodeError):
        return None


def _spoken(answer: bytes) -> tuple[str | int, str, str, bytes] | None:
    if not answer:
        return None
    text = answer.decode()
    id_, end = json.JSONDecoder().raw_decode(text)
    method, traceparent, data = text[end + 1 :].split(" ", 2)
    return id_, method, traceparent.strip("-"), data.encode()


@contextlib.contextmanager
def commands() -> Iterator[Parsers]:
    with _lua() as lua:
        yield _Commands(lua)


# Frames: what the service makes of them, and of what each edge passes on

_RELAYED = """
    local wire = require("wire");
    local sock = { settimeouts = function() end, receive = function() return nil, "closed" end };
    local client, said = wire.new(false, sock, text), {};
    while true do
        local payload, kind, last = client:receive();
        if not kind then
            said[#said + 1] = "end " .. last;
            break
        end;
        if kind == "close" then
            payload, last = wire.close_payload(last, "") .. payload, true
        end;
        said[#said + 1] = kind .. " " .. (last and "1" or "0") .. " "
            .. payload:gsub(".", function(c) return ("%02x"):format(c:byte()) end);
        if kind == "close" then
            break
        end
    end;
    return table.concat(said, ";")
""".replace("\n", " ")

_LINKED = """
    local input, wire, frames, said = require("linked_input"), require("wire"), require("trunk_frames"), {};
    local function hex(payload) return (payload:gsub(".", function(c) return ("%02x"):format(c:byte()) end)) end;
    local function say(...) said[#said + 1] = table.concat({ ... }, " ") end;
    local sock = { settimeouts = function() end, receive = function() return nil, "closed" end };
    input.read({
        client = wire.new(false, sock, text), share = { spend = function() end }, trunk = {}, may_read = true,
        texts = 0, done = 1e9, pending = {}, ours = 0, signed_s = 1e12,
        tell_node = function(_, kind, payload)
            say(kind == frames.PONG and "pong" or "text", "1", hex(payload))
        end,
        say_pong = function(_, payload) say("ping", "1", hex(payload)) end,
        fail = function(_, code) say("fail", code) return false end,
        on_client_gone = function() say("end failed to") end,
        on_client_close = function(_, code)
            say("fail", code == 1005 and 1000 or code)
        end,
    });
    return table.concat(said, ";")
""".replace("\n", " ")

_OPCODES = {"continuation": 0, "text": TEXT, "binary": 2, "close": CLOSE, "ping": PING, "pong": PONG}


class _Frames:
    """An input is a byte that says how far apart the cuts are, for njs, and then a client's bytes.

    A text that is no UTF-8 ends a connection as soon as that is seen; on a trunk, where its message is whole: until
    then the edge goes on, and may find something else that is wrong."""

    def __init__(self, lua: Lua) -> None:
        self._lua = lua

    def check(self, inputs: Sequence[bytes]) -> Iterator[tuple[bytes, str]]:
        inputs = [data for data in inputs if 1 < len(data) <= FRAME_BYTES]
        sent = [data[1:] for data in inputs]
        verdicts = [_verdict(data) for data in sent]
        relayed = asyncio.run(self._lua.run(_RELAYED, sent))
        linked = asyncio.run(self._lua.run(_LINKED, sent))
        by_lua = list(map(_as_read, sent, relayed, verdicts))
        on_trunk = [
            ours if ours.close == 1007 else it
            for it, ours in zip(map(_as_read, sent, linked, verdicts), verdicts, strict=True)
        ]
        answers: dict[str, Answers] = {"service": verdicts, "Lua": by_lua, "trunk": on_trunk, "njs": self._njs(inputs)}
        return differences(inputs, answers)

    def _njs(self, inputs: Sequence[bytes]) -> list[Verdict]:
        jobs = []
        for data in inputs:
            step, sent = max(data[0], 1 + len(data) // 50), data[1:]
            parts: list[njs.Step] = [("client", sent[at : at + step]) for at in range(0, len(sent), step)]
            jobs.append([("client", njs.REQUEST), ("service", njs.ANSWER + njs.WELCOME), *parts, ("client", b"", True)])
        done = njs.sessions(*jobs, session_bytes=1 << 30, **LIMITS, calls_allow=ALLOW, calls_in_flight=1000)
        return [_as_passed(data[1:], did) for data, did in zip(inputs, done, strict=True)]


def _verdict(sent: bytes) -> Verdict:
    """Without what an edge may answer itself, or add: heartbeats, calls and empty control frames."""
    found = judge(sent, limit=LIMITS["message_bytes"], binary=False)
    heard = [
        (name, payload)
        for name, payload in found.heard
        if not (name == "text" and (payload in (b"ping", b"Ping", b"pong", b"Pong") or call_of(payload)))
        and (payload or name == "text")
    ]
    # Messages are in order, and so are pings and pongs; but on a trunk they go apart.
    return Verdict(sorted(heard, key=lambda one: one[0]), found.close)


def _as_passed(sent: bytes, did: list[njs.Step]) -> Verdict:
    """What the service makes of what a session of njs passed on; with the calls that it made and nobody asked for."""
    found = _verdict(njs.all_for("service", did)[len(njs.REQUEST) :])
    texts = (call_of(mask(sent[start - 4 : start], sent[start:end])) for start, end in _bounds(sent) if start > 4)
    asked = [(id_, method, data) for id_, method, _, data in filter(None, texts)]
    made = [(json.loads(step[1]), step[2], step[3]) for step in did if step[0] == "call"]
    made_up = [("call", data) for id_, method, data in made if (id_, method, data) not in asked]
    return Verdict(found.heard + made_up, found.close)


def _as_read(sent: bytes, said: bytes, service: Verdict) -> Verdict:
    """What the service makes of the frames that Lua read of ``sent``, and of how they ended."""
    passed, code = b"", None
    for word in said.decode().split(";"):
        kind, _, rest = word.partition(" ")
        if kind == "fail":
            code = int(rest)
        elif kind == "end":
            code = None if rest.startswith("failed to") else _code(rest)
        elif kind:
            last, _, payload = rest.partition(" ")
            passed += frame(_OPCODES[kind], bytes.fromhex(payload), fin=last == "1")
    found = _verdict(passed)
    code = code if found.close is None else found.close
    if code is None and _verdict(sent[: _whole(sent)]).close is None:
        code = service.close  # the service judges half a frame; Lua waits for the rest of it
    return Verdict(found.heard, code)


def _code(error: str) -> int:
    """As a session of Lua says it."""
    return 1009 if "payload len" in error else 1003 if error == "binary" else 1002


def _whole(sent: bytes) -> int:
    """Where its last whole frame ends."""
    return max((end for _, end in _bounds(sent)), default=0)


def _bounds(sent: bytes) -> Iterator[tuple[int, int]]:
    """Where the payload of each whole frame begins and ends, whatever else is wrong with it."""
    at = 0
    while len(sent) - at >= 2:
        short = sent[at + 1] & 0x7F
        extra = {126: 2, 127: 8}.get(short, 0)
        length = int.from_bytes(sent[at + 2 : at + 2 + extra], "big") if extra else short
        start = at + 2 + extra + (4 if sent[at + 1] & 0x80 else 0)
        if start + length > len(sent):
            break
        at = start + length
        yield start, at


@contextlib.contextmanager
def frames() -> Iterator[Parsers]:
    with _lua() as lua:
        yield _Frames(lua)


# Frames of a trunk

_SPLIT = """
local frames = require "trunk_frames"
local function hex(text) return (text:gsub(".", function(c) return ("%%02x"):format(c:byte()) end)) end
for _, text in ipairs({%s}) do
    local said = {}
    local left = frames.split(text, function(kind, number, data, first, last)
        said[#said + 1] = kind .. " " .. ("%%.0f"):format(number) .. " " .. hex(data:sub(first, last))
    end)
    local fields = {}
    for name, value in pairs(frames.read_fields(text)) do
        fields[#fields + 1] = hex(name) .. "=" .. hex(value)
    end
    table.sort(fields)
    print(table.concat(said, ",") .. ";" .. (left and "" or "broken") .. ";" .. table.concat(fields, ","))
end
"""


class _Trunks:
    def check(self, inputs: Sequence[bytes]) -> Iterator[tuple[bytes, str]]:
        wanted = [self._service(data) for data in inputs]
        found = luajit.run(_SPLIT % ",".join(map(luajit.quoted, inputs)))
        return differences(inputs, {"service": wanted, "Lua": found})

    def _service(self, data: bytes) -> str:
        found, is_broken = trunks.split([data])
        said = ",".join(f"{kind} {number} {payload.hex()}" for kind, number, payload in found)
        return f"{said};{'broken' if is_broken else ''};{self._fields(data)}"

    def _fields(self, data: bytes) -> str:
        try:
            fields = codec.read_fields(data)
        except codec.TrunkBroken:
            fields = dict(trunks.LINE.findall(data.decode("latin-1")))  # of what is not UTF-8 Lua asks nothing
            return ",".join(
                sorted(f"{n.encode('latin-1').hex()}={v.encode('latin-1').hex()}" for n, v in fields.items())
            )
        return ",".join(sorted(f"{name.encode().hex()}={value.encode().hex()}" for name, value in fields.items()))


@contextlib.contextmanager
def trunk_frames() -> Iterator[Parsers]:
    yield _Trunks()
