"""What is fuzzed. Three kinds of targets, by how they find their way:

- GUIDED: a function of one input, which raises where something is wrong. atheris counts which branches of our Python an
  input takes, and keeps those that take a new one. Where there is no atheris for this Python, as COMPARED.
- COMPARED: other parsers than Python's, each a process of its own: inputs, made from the corpus, go there by the
  hundred.
- DESCRIBED: the HTTP API, by requests that schemathesis makes of its description.

A module is imported when its target is asked for: atheris sees what is imported then.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

if TYPE_CHECKING:
    from tests.fuzz.parsers import Parsers

Check = Callable[[bytes], None]
Kind = Literal["guided", "compared", "described"]


class Target(NamedTuple):
    """``words`` are what an input may be made of."""

    kind: Kind
    module: str
    function: str
    words: tuple[bytes, ...] = ()

    def _load(self) -> Callable[..., object]:
        found: Callable[..., object] = getattr(importlib.import_module(f"tests.fuzz.{self.module}"), self.function)
        return found

    def check(self) -> Check:
        """Of a guided one."""
        return cast(Check, self._load())

    def parsers(self) -> AbstractContextManager[Parsers]:
        """Of a compared one."""
        return cast("AbstractContextManager[Parsers]", self._load()())


_FRAMES = (
    b"\x81\x84\x00\x00\x00\x00ping", b"\x01\x80\x00\x00\x00\x00", b"\x80\x80\x00\x00\x00\x00",
    b"\x89\x80\x00\x00\x00\x00", b"\x8a\x81\x01\x02\x03\x04a", b"\x88\x82\x00\x00\x00\x00\x03\xe8",
    b"\x81\xfe\x00\x7e\x00\x00\x00\x00", b"\x81\xff\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00",
    b"\x82\x81\x00\x00\x00\x00", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xff",
)  # fmt: skip
_JSON = (
    b'{"', b'":', b'"}', b"null", b"true", b"false", b"[[[[[[[[", b"]]]]]]]]", b"1e400", b"-0", b"0.5", b"\\u0041",
    b"\\ud83d\\ude00", b"\\ud800", b"\\", b"9007199254740993", "☂".encode(), b"\xed\xa0\x80", b" ", b"\n", b",",
)  # fmt: skip
_COMMANDS = (
    b'"type":', b'"id":', b'"group":', b'"data":', b'"method":', b'"epoch":', b'"offset":', b'"limit":', b'"key":',
    b'"conflate":', b'"token":', b'"join"', b'"leave"', b'"publish"', b'"history"', b'"presence"', b'"call"',
    b'"refresh"', b'"ping"', b'"echo"', b"\\u0063all",
    b'"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"',
)  # fmt: skip
_YAML = (
    b"server:", b"auth:", b"groups:", b"limits:", b"edge:", b"internal:", b"broker:", b"trunk:", b"\n  ", b"!!int ",
    b"!!float ", b"!!bool ", b"!!timestamp ", b"!!binary ", b"!!set ", b"!!omap ", b"!!pairs ", b"!!null ", b"!!str ",
    b"&a ", b"*a", b"<<: ", b"? ", b"- ", b"|\n", b"'", b'"', b"{", b"}", b"[", b"]", b": ", b"0x", b"1:30", b".inf",
    b".nan", b"2026-11-28", b"\0TIDEGATE_", b"__",
)  # fmt: skip
_NGINX = (
    b"http {", b"server {", b"location ", b"upstream ", b"map ", b"if (", b"stream {", b"}", b";", b"proxy_pass ",
    b"listen ", b"server_name ", b"include ", b"~ ", b"~* ", b"^~ ", b"= ", b"@", b"$http_upgrade", b"$host",
    b"rewrite ", b"try_files ", b"return ", b"set ", b"content_by_lua_block {", b"# configuration file /a:\n",
    b'"', b"'", b"\\", b"proxy_set_header ", b"default ", b"resolver ", b"worker_connections ", b"90s",
    b"1k", b"unix:/", b"[::]:80",
)  # fmt: skip

_TOKENS = (
    b'"alg":"HS256"', b'"kid":', b'"crit":["', b'"b64":false', b'"sub":"', b'"exp":1900000000', b'"groups":["',
    b'"publish":', b'"nbf":', b'"iss":', b'"aud":', b'"kty":"RSA"', b'"kty":"oct"', b'"kty":"EC"', b'"kty":"OKP"',
    b'"keys":[{', b'"n":"', b'"e":"AQAB"', b'"crv":"P-256"', b"-----BEGIN PUBLIC KEY-----\n", b"=\n",
)  # fmt: skip
_CALLBACKS = (b'"client":"', b'"groups":["', b'"publish":', b'"expires":1900000000')
_CURSORS = (b'{"client:a":["e",1]', b'"group:', b'"all":["k3f9",')
_ENTRIES = (
    b"client\x1e", b"\x1egroup\x1e", b"\x1eall\x1e1", b"\x1ekey\x1e", b"\x1econflate\x1e", b"\x1edata\x1e",
    b"\x1etraceparent\x1e", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)  # fmt: skip
_TRUNK = (
    b"\x05\x00\x00\x00", b"\xff\xff\xff\xff", b"lowest 1\n", b"worker w\n", b"connection n1-7\n", b"term 2\n",
    b" ", b"\n", b"orders 0-0\n", b"\x0b", b"\r\n", "\u2028".encode(), "\x85".encode(), b"GET / HTTP/1.1\r\n",
)  # fmt: skip

TARGETS = {
    "frames": Target("guided", "frames", "check", _FRAMES),
    "commands": Target("guided", "commands", "command", _JSON + _COMMANDS),
    "cursors": Target("guided", "commands", "cursor", _JSON + _CURSORS),
    "tokens": Target("guided", "tokens", "check", _JSON + _TOKENS),
    "callbacks": Target("guided", "callbacks", "check", _JSON + _CALLBACKS),
    "configs": Target("guided", "configs", "check", _YAML),
    "entries": Target("guided", "entries", "check", _JSON + _ENTRIES),
    "trunks": Target("guided", "trunks", "check", _TRUNK),
    "nginx": Target("guided", "nginx", "check", _NGINX),
    "json": Target("compared", "parsers", "documents", _JSON),
    "calls": Target("compared", "parsers", "commands", _JSON + _COMMANDS),
    "edge-frames": Target("compared", "parsers", "frames", _FRAMES),
    "edge-trunks": Target("compared", "parsers", "trunk_frames", _TRUNK),
    "api": Target("described", "api", "requests"),
}
