"""The Lua of the OpenResty edge, run by nginx with Debian's lua module: what its parts make of bytes."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edges.frames import TRACED, UNTRACED
from tests.edges.lua_code import ALLOW, DATA_BYTES, Lua
from tests.nginx.test_certificate import made
from tests.scripted import says, server
from tidegate import calls
from tidegate.core import protocol
from tidegate.core.errors import Refused
from tidegate.nginx import certificate


@pytest.fixture(scope="module")
def lua() -> Iterator[Lua]:
    folder = Path(tempfile.mkdtemp(prefix="tidegate-lua-"))
    folder.chmod(0o755)
    it = Lua(folder)
    try:
        asyncio.run(it.process.port(it.port))
        yield it
        assert "[error]" not in it.process.stderr
    finally:
        it.process.kill()
        shutil.rmtree(folder)


# JSON

_DOCUMENTS = [
    b"1", b"-0", b"0.5", b"1e400", b"-12.5E+3", b"[]", b"{}", b'""', b"null", b"true", b"false", b" [1 ,\t2]\r\n",
    b'{"a":[],"b":{},"a":[[]]}', b'"\\u0041\\ud83d\\ude00\\/\\"\\\\"', "\"☂ 😀\"".encode(), b'"\x7f"',
    b'{"":{"":[[[]]]}}',
    b"[" * 8 + b"]" * 8, b"12345678901234567890123456789012345678901234567890", b'[{"a":1},{"b":[2]}]',
    b"", b" ", b"01", b"1.", b".5", b"+1", b"1e", b"--1", b"nul", b"nulll", b"True", b"[1,]", b"[,1]", b"{,}", b'{"a"}',
    b'{"a":}', b'{"a":1,}', b"{a:1}", b"[1 2]", b"[1", b'{"a":1', b'"', b'"\\', b'"\\x"', b'"\\u12"', b'"\\u12g4"',
    b'"\x01"', b'"\n"', b'"\xff"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\xf5\x80\x80\x80"', b'"\xe2\x98"', b"1 2", b"]",
    b"NaN", b"Infinity", b"0x1", b"\xef\xbb\xbf1", b"'a'", b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ud800\\u0041"',
    b"\x00", b'"\x00"', b"[" * 9 + b"]" * 9, b"/**/1",
]  # fmt: skip

_BYTES = b'{}[]",:0123456789-.eE+ \t\\u"d8ctrufalsn\x00\xc3\xbc\xff\x01'


def _mutants(seeds: list[bytes], count: int) -> list[bytes]:
    """Texts that are nearly as good as the seeds, always the same ones."""
    chance = random.Random(1)
    mutants = []
    for _ in range(count):
        text = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 3)):
            at = chance.randint(0, len(text))
            text[at : at + chance.randint(0, 2)] = bytes(chance.choices(_BYTES, k=chance.randint(0, 2)))
        mutants.append(bytes(text))
    return mutants


def _document(text: bytes, depth: int) -> bytes:
    """What the service makes of it; "nil" where it is no JSON."""
    try:
        protocol.check_depth(text, depth)
        return calls.check_answer(text) if text else b"nil"
    except Refused:
        return b"nil"


async def test_json_is_what_the_service_takes_for_json_and_comes_out_as_it_was(lua: Lua) -> None:
    texts = _DOCUMENTS + _mutants(_DOCUMENTS, 4000)
    answers = await lua.run('return require("json_text").document(text, 8)', texts)
    assert answers == [_document(text, 8) for text in texts]
    assert 100 < answers.count(b"nil") < len(texts) - 100


_COMMANDS = [
    b'{"type":"call","id":1,"method":"echo","data":{"a":[1, 2]}}',
    b'{"data":"x","method":"orders.create","id":"two","type":"call"}',
    b'{"type":"call","id":"","method":"echo"}',
    b'{ "type" : "call" , "id" : -9 , "method" : "echo" , "data" : null }\n',
    '{"type":"call","id":"☂","method":"echo","data":"☂"}'.encode(),
    b'{"type":"call","id":999999999999999,"method":"echo","data":%b}' % (b"[" * 7 + b"]" * 7),
    b'{"type":"call","id":"%b","method":"echo","data":0}' % (b"x" * 64),
    b'{"type":"call","id":0,"method":"echo","data":"%b"}' % (b"x" * (DATA_BYTES - 2)),
    b' \n{"type":"call","id":1,"method":"echo"}',
    b'{"type":"\\u0063all","id":1,"method":"echo"}',
    b'{"\\u0074ype":"c\\u0061ll","\\u0069d":-0,"m\\u0065thod":"orders\\u002ecreate","d\\u0061ta":[0]}',
    b'{"type":"call","id":9007199254740992,"method":"echo"}',
    b'{"type":"call","id":"\\ud83d\\ude00%b","method":"echo"}' % (b"\\n" * 63),
    b'{"type":"call","type":"call","id":"x","id":2,"method":"other","method":"echo","data":1,"data":2}',
    b'{"type":"call","id":1,"method":"echo","traceparent":"%b"}' % TRACED,
    b'{"type":"call","traceparent":"%b","traceparent":null,"id":1,"method":"echo","data":[1]}' % TRACED,
    b'{"type":"call","id":1,"method":"echo","traceparent":"\\u0030%b"}' % TRACED[1:],
]
_NOT_OURS = [
    b"ping", b"", b"{", b"[]", b"{}", b'"call"', b'{"type":"call",}',
    b'{"type":"publish","id":1,"group":"a","data":"call"}',
    b'{"type":"call","id":1,"method":"other"}',
    b'{"type":"call","id":1,"method":"echo."}',
    b'{"type":"call","id":1,"method":5}',
    b'{"type":"call","id":1,"method":[1]}',
    b'{"type":"call","id":1,"method":["echo"]}',
    b'{"type":"call","id":1,"method":[true]}',
    b'{"type":"call","id":1,"method":true}',
    b'{"type":"call","id":1,"method":null}',
    b'{"type":"call","id":1,"method":{"echo":1}}',
    b'{"type":"call","id":1,"method":null,"method":"echo"}',
    b'{"type":"call","id":1,"method":"\\\\u0065cho"}',
    b'{"type":"call","id":1}',
    b'{"type":"call","method":"echo"}',
    b'{"id":1,"method":"echo"}',
    b'{"type":"call","id":[],"id":2,"method":"echo"}',
    b'{"type":"ping","type":"call","id":1,"method":"echo"}',
    b'{"type":"call","type":"ping","id":1,"method":"echo"}',
    b'{"type":["call"],"id":1,"method":"echo"}',
    b'{"type":"call","id":1,"method":"echo","more":1}',
    b'{"type":"call","id":1,"method":"echo","data":1}}',
    b'{"type":"call","id":1,"method":"echo","data":1',
    b'{"type":"call","id":1.0,"method":"echo"}',
    b'{"type":"call","id":1e2,"method":"echo"}',
    b'{"type":"call","id":null,"method":"echo"}',
    b'{"type":"call","id":9007199254740993,"method":"echo"}',
    b'{"type":"call","id":"%b","method":"echo"}' % (b"x" * 65),
    b'{"type":"call","id":"%b","method":"echo"}' % (b"\\u0078" * 65),
    b'{"type":"call","id":1,"method":"echo","data":%b}' % (b"[" * 8 + b"]" * 8),
    b'{"type":"call","id":1,"method":"echo","data":"%b"}' % (b"x" * (DATA_BYTES - 1)),
    b'{"type":"call","id":1,"method":"echo","data":"\xff"}',
    b'{"type":"call","id":"\xff","method":"echo"}',
    *(b'{"type":"call","id":1,"method":"echo","traceparent":%b}' % text for text in UNTRACED),
    b'{"type":"call","id":1,"method":"echo","traceparent":7,"traceparent":"%b"}' % TRACED,
]  # fmt: skip

_PARSE = """
    local call = require("command").parse(text)
    return call and call.id .. " " .. call.method .. " " .. (call.traceparent or "-") .. " " .. call.data
""".replace("\n", " ")


def _call(text: bytes) -> bytes:
    """A call as the service understands it, and would carry it out; "nil" where it would not."""
    try:
        text.decode()
        command = protocol.decode_command(text, depth=8)
        if not isinstance(command, protocol.Call) or command.method not in ALLOW:
            return b"nil"
        data = protocol.check_size(bytes(command.data), DATA_BYTES)
    except (protocol.NotUnderstood, Refused, UnicodeDecodeError):
        return b"nil"
    words = (json.dumps(command.id, ensure_ascii=False), command.method, command.traceparent or "-")
    return " ".join(words).encode() + b" " + data


def _taken(answer: bytes) -> bytes:
    """What the edge takes, with an id in the only way to write it, which is not asked of an answer."""
    if answer in (b"nil", b"false"):
        return b"nil"
    id_, end = json.JSONDecoder(strict=True).raw_decode(answer.decode())
    return json.dumps(id_, ensure_ascii=False).encode() + answer.decode()[end:].encode()


async def test_a_call_is_taken_as_the_service_understands_it(lua: Lua) -> None:
    wanted = [_call(text) for text in _COMMANDS]
    assert b"nil" not in wanted
    assert [_taken(answer) for answer in await lua.run(_PARSE, _COMMANDS)] == wanted


@pytest.mark.parametrize("text", _NOT_OURS)
async def test_what_is_no_call_is_the_services(lua: Lua, text: bytes) -> None:
    assert _call(text) == b"nil"
    assert await lua.run(_PARSE, [text]) in ([b"nil"], [b"false"])


async def test_exactly_those_are_taken_that_the_service_would_carry_out(lua: Lua) -> None:
    texts = _mutants(4 * _COMMANDS + _NOT_OURS, 10_000)
    wanted = [_call(text) for text in texts]
    assert len(texts) - wanted.count(b"nil") > 500
    assert [_taken(answer) for answer in await lua.run(_PARSE, texts)] == wanted


# HTTP/1.1

_READ = """
    local sock = ngx.socket.tcp();
    assert(sock:connect("127.0.0.1", tonumber(text)));
    sock:send("GET / HTTP/1.1");
    local answer = require("http1").new(sock, "POST", ngx.now() + 0.3, "application");
    local ok, err = answer:read_head();
    if not ok then return err end;
    local body, failure = answer:read_body(20);
    return body and answer.status .. " " .. body .. (answer:may_be_kept() and " kept" or "") or failure
""".replace("\n", " ")


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"200 abc kept"),
        (b"HTTP/1.1 200 OK\r\ncontent-length:3\r\nConnection: Close\r\n\r\nabc", b"200 abc"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"200 abc"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"204  kept"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"200  kept"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\nx", b"201 x kept"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"200 until the end"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: x\r\n"
            b"\r\n",
            b"200 abc0123456789 kept",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"200  kept"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nF\r\n" + b"x" * 15 + b"\r\n6\r\n", b"too large"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcde0\r\n\r\n", b"malformed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", b"malformed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", b"malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n", b"too large"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"malformed"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 21, b"too large"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", b"closed"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 17000, b"too large"),
        (b"SMTP/1.1 200 OK\r\n\r\n", b"malformed"),
        (b"", b"closed"),
    ],
)
async def test_an_answer_is_read_to_its_end_and_no_further(lua: Lua, sent: bytes, read: bytes) -> None:
    async with server(says(sent)) as port:
        assert await lua.run(_READ, [b"%d" % port]) == [read]


async def test_an_answer_that_comes_in_drops_is_waited_for_no_longer_than_one_that_does_not_come(lua: Lua) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        for _ in range(9):
            writer.write(b"x")
            await asyncio.sleep(0.1)

    async with server(drip) as port:
        assert await lua.run(_READ, [b"%d" % port]) == [b"timeout"]


async def test_handshakes_go_where_the_least_connections_are_and_not_where_one_failed(lua: Lua) -> None:
    code = """
        local nodes, settings = require("nodes"), require("settings");
        settings.upstreams = { "127.0.0.1:1", "127.0.0.1:2", "unix:/three" };
        local taken = {};
        for number = 1, 6 do taken[number] = nodes.take({}) end;
        nodes.give_back(taken[2]);
        local seventh = nodes.take({});
        nodes.failed(seventh);
        local eighth, ninth, tried = nodes.take({}), nodes.take({}), {};
        for _ = 1, 3 do nodes.take(tried) end;
        local counts = {};
        for _, name in ipairs(settings.upstreams) do counts[#counts + 1] = ngx.shared.tidegate_nodes:get(name) end;
        table.sort(counts);
        local passed = eighth.name ~= seventh.name and ninth.name ~= seventh.name;
        return table.concat(counts, ",") .. " " .. tostring(seventh.name == taken[2].name) .. " "
            .. tostring(passed) .. " " .. tostring(nodes.take(tried))
    """.replace("\n", " ")
    assert await lua.run(code, [b"x"]) == [b"3,4,4 true true nil"]


async def test_a_node_that_is_passed_over_is_asked_where_there_is_no_other_and_forgiven_when_it_works(lua: Lua) -> None:
    code = """
        local nodes, settings = require("nodes"), require("settings");
        settings.upstreams = { "unix:/only" };
        local found = {};
        local function note() found[#found + 1] = tostring(nodes.take({}, true)) ~= "nil" end;
        note();
        local only = nodes.take({});
        nodes.failed(only);
        note();
        found[#found + 1] = nodes.take({}).name == only.name;
        nodes.works(only);
        note();
        for number = 1, #found do found[number] = tostring(found[number]) end;
        return table.concat(found, " ")
    """.replace("\n", " ")
    assert await lua.run(code, [b"x"]) == [b"true false true true"]


# Certificates


@pytest.mark.parametrize("days", [30, 30_000])
async def test_the_end_of_a_certificate_is_read_as_python_reads_it(lua: Lua, days: int) -> None:
    chain = made(lua.folder, days, "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    read = "return require('certificate').read(text)"
    found = await lua.run(read, [str(chain).encode(), b"../fullchain.pem", b"../none.pem", b"../conf.d/http.inc"])
    assert found == [b"%d" % (certificate.ends_s(chain) or 0)] * 2 + [b"nil"] * 2
