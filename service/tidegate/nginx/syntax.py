"""The text of a configuration file, read as nginx reads it (ngx_conf_file.c): words, ``;`` and blocks.

A parser of its own, because there are configurations of 20,000 servers, and a general one in Python takes seconds.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable

from tidegate.nginx.blocks import Block

DEPTH = 200  # of blocks, one within another

# "{" after "$" belongs to a variable's name. Within a word "}" and "#" are characters like others.
_TOKEN = re.compile(
    r"""[ \t\r\n]+|\#[^\n]*|([;{}])|"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'"""
    r"""|((?!["'])(?:[^ \t\r\n;{\\$]|\\.|\$\{?)+)|(.)""",
    re.DOTALL,
)
_LUA = re.compile(
    r"--\[(=*)\[.*?\]\1\]|--[^\n]*|\[(=*)\[.*?\]\2\]|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|([{}])", re.DOTALL
)
_LUA_BLOCK = re.compile(r"^[^#\n]*?\b\w+_by_lua_block\b[^{;#\n]*\{", re.MULTILINE)
_ESCAPE = re.compile(r"\\([\"'\\trn])")
_ESCAPED = {"t": "\t", "r": "\r", "n": "\n"}


class NginxError(Exception):
    """The configuration cannot be read, in words."""


def parse(text: str, file: str, into: Block, on_directive: Callable[[Block], bool]) -> None:
    """Puts the directives of ``text`` into ``into``. ``on_directive`` is asked of each before it is put there, and says
    whether it shall be. Raises NginxError."""
    text = _without_lua(text, file)
    newlines = [found.start() for found in re.finditer("\n", text)]
    depth = sum(1 for _ in into.around())
    block, words, start = into, list[str](), 0
    for token in _TOKEN.finditer(text):
        kind = token.lastindex
        if kind is None:  # blanks, or a comment
            continue
        if kind == 1:
            mark = token[1]
            if bool(words) == (mark == "}") or (mark == "}" and block is into):
                raise _unexpected(f'"{mark}"', file, newlines, token.start())
            if mark == "}":
                assert block.parent is not None
                block, depth = block.parent, depth - 1
                continue
            directive = Block(words[0], words[1:], file, bisect_left(newlines, start) + 1, block)
            words = []
            if on_directive(directive):
                block.children.append(directive)
            if mark == "{":
                block, depth = directive, depth + 1
                if depth > DEPTH:
                    raise NginxError(f"{file}: blocks are nested too deeply")
            continue
        if kind == 5:
            raise _unexpected("end of file: a quote is open", file, newlines, token.start())
        if not words:
            start = token.start()
        word: str = token[kind]
        words.append(_ESCAPE.sub(_unescaped, word) if "\\" in word else word)
    if words or block is not into:
        raise NginxError(f"{file}: unexpected end of file, expecting {';' if words else '}'}")


def _unescaped(found: re.Match[str]) -> str:
    return _ESCAPED.get(found[1], found[1])


def _unexpected(what: str, file: str, newlines: list[int], offset: int) -> NginxError:
    return NginxError(f"{file}:{bisect_left(newlines, offset) + 1}: unexpected {what}")


def _without_lua(text: str, file: str) -> str:
    """With the code of ``*_by_lua_block`` taken out, but for its lines: it has braces and quotes of its own."""
    at = 0
    while found := _LUA_BLOCK.search(text, at):
        start = found.end()
        end = _lua_end(text, start)
        if end is None:
            raise NginxError(f"{file}:{text.count(chr(10), 0, start) + 1}: unexpected end of file in Lua code")
        lines = "\n" * text.count("\n", start, end)
        text = text[:start] + lines + text[end:]
        at = start + len(lines)
    return text


def _lua_end(text: str, start: int) -> int | None:
    """Where the brace is that ends the code which begins at ``start``."""
    depth = 1
    for token in _LUA.finditer(text, start):
        if token[3]:
            depth += 1 if token[3] == "{" else -1
            if depth == 0:
                return token.start()
    return None
