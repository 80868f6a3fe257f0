"""redis-py's private names: those that are used are there, do what is expected of them, and are used in one module."""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.brokers.server import RedisServer
from tests.support import eventually
from tidegate.brokers.redis import redis_seam
from tidegate.brokers.redis.pipeline import Address

FOLDER = Path(redis_seam.__file__).parent


def private(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Private names of others: ``other._name``, but not ``self._name``."""
    for each in ast.walk(tree):
        match each:
            case ast.Attribute(value=ast.Name(id="self")):
                pass
            case ast.Attribute(attr=name) if name.startswith("_") and not name.startswith("__"):
                yield each


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_private_names_of_others_are_used_in_one_module(file: Path) -> None:
    used = {each.attr for each in private(ast.parse(file.read_text()))}
    assert used == (set(redis_seam.PRIVATE) if file.stem == "redis_seam" else set())


@pytest.mark.parametrize("name", redis_seam.PRIVATE)
async def test_redis_py_has_the_private_names(name: str) -> None:
    connection = Address("redis://127.0.0.1:1/0")._make("127.0.0.1", 1, 1.0)
    assert hasattr(connection, name), f"redis-py {redis.__version__} has no {name} any more: see redis_seam.py"


async def test_a_connection_gives_its_transport_away_and_closes_at_once() -> None:
    with RedisServer() as server:
        connection = await Address(server.url).connect(5.0)
        where = f"redis-py {redis.__version__}: see redis_seam.py"
        transport = redis_seam.transport_of(connection)
        assert isinstance(transport, asyncio.Transport), where
        assert transport.get_extra_info("peername")[1] == int(server.url.rpartition(":")[2].partition("/")[0]), where
        assert not inspect.iscoroutinefunction(connection._close), where
        redis_seam.close_transport(connection)
        assert transport.is_closing(), where
        redis_seam.close_transport(connection)
        await eventually(lambda: server.command("INFO", "clients")["connected_clients"] == 1)
