"""Tornado's private names: which are used, that they are used in one module, and that this Tornado has them."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import tornado
from tornado import http1connection, httpserver, httputil, iostream, tcpserver, util, web, websocket

from tests.support import ROOT

SOURCE = ROOT / "service"
SEAM = SOURCE / "tidegate" / "tornado_seam.py"
MODULES = (http1connection, httpserver, httputil, iostream, tcpserver, web, websocket)

# Each private name with whose it is. What it is needed for stands beside its use.
NAMES = [
    (http1connection.HTTP1Connection, "_disconnect_on_finish"),
    (http1connection.HTTP1Connection, "_parse_headers"),
    (httpserver.HTTPServer, "_connections"),
    (tcpserver.TCPServer, "_handle_connection"),
    (tcpserver.TCPServer, "_handlers"),
    (tcpserver.TCPServer, "_sockets"),
    (iostream.IOStream, "_read_buffer"),
    (iostream.IOStream, "_read_buffer_size"),
    (util, "_websocket_mask"),
    (web.RequestHandler, "_headers"),
    (web.RequestHandler, "_log"),
    (web.RequestHandler, "_reason"),
    (web.RequestHandler, "_status_code"),
    (web.RequestHandler, "_write_buffer"),
    (websocket.WebSocketProtocol, "_process_server_headers"),
    (websocket.WebSocketProtocol, "_receive_frame_loop"),
]

_PRIVATE = re.compile(r"_[a-z]\w*")
_USERS = [path for path in sorted(SOURCE.rglob("*.py")) if "tornado" in path.read_text()]


@cache
def private_names_of(owner: object) -> frozenset[str]:
    """Of a class of Tornado, its bases with it, or of a module: what it defines or keeps."""
    if inspect.ismodule(owner):
        return frozenset(name for name in vars(owner) if _PRIVATE.fullmatch(name))
    assert isinstance(owner, type)
    found: set[str] = set()
    for cls in owner.__mro__:
        if cls.__module__.startswith("tornado."):
            found |= set(re.findall(r"(?:def |self\.)(_[a-z]\w*)", inspect.getsource(cls)))
    return frozenset(found)


@cache
def all_private_names() -> frozenset[str]:
    classes = (cls for module in MODULES for cls in vars(module).values() if isinstance(cls, type))
    return frozenset[str]().union(*map(private_names_of, classes))


def used(path: Path) -> set[str]:
    """The private names of Tornado that a module uses: on others, imported, or on and in its own subclasses."""
    tree = ast.parse(path.read_text())
    module = importlib.import_module(".".join(path.relative_to(SOURCE).with_suffix("").parts))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tornado."):
            names |= {alias.name for alias in node.names if _PRIVATE.fullmatch(alias.name)}
        elif isinstance(node, ast.ClassDef):
            names |= private_names_of(getattr(module, node.name)) & {name for name, own in _of_class(node) if own}
    return names | (all_private_names() & {name for name, own in _of_class(tree) if not own})


def _of_class(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Private names that are used, and whether on ``self`` or as the name of a method."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _PRIVATE.fullmatch(node.attr):
            yield node.attr, isinstance(node.value, ast.Name) and node.value.id == "self"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _PRIVATE.fullmatch(node.name):
            yield node.name, True


@pytest.mark.parametrize("path", [path for path in _USERS if path != SEAM], ids=lambda path: path.stem)
def test_a_private_name_of_tornado_is_used_in_the_seam_alone(path: Path) -> None:
    assert used(path) == set()


def test_the_list_has_each_private_name_that_the_seam_uses() -> None:
    assert sorted(used(SEAM)) == sorted(name for _, name in NAMES)


@pytest.mark.parametrize(("owner", "name"), NAMES, ids=[name for _, name in NAMES])
def test_this_tornado_has_the_private_names_that_the_seam_uses(owner: object, name: str) -> None:
    where = getattr(owner, "__qualname__", None) or getattr(owner, "__name__", "")
    assert name in private_names_of(owner), f"Tornado {tornado.version} has no {where}.{name}: see tornado_seam.py"
