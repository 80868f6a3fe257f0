"""What is told of Redis to those who look for a fault."""

from __future__ import annotations

from tests.brokers.nodes import Node
from tests.brokers.server import RedisServer
from tests.support import eventually


async def test_redis_says_how_it_is_and_what_waits():
    with RedisServer(maxmemory="100mb") as server:
        async with Node(server, "n1") as node:
            await eventually(lambda: server.command("GET", "tidegate:push:lease"))
            found = await node.broker.condition()
            assert (found.role, found.eviction, found.most_bytes) == ("master", "noeviction", 100 << 20)
            assert (found.appendonly, found.snapshots, found.writes_to_disk) == (False, False, True)
            assert (found.waiting, found.rejected, found.reader) == (0, 0, "n1")
            assert 0 < found.used_bytes < found.most_bytes
            assert 0 < found.clients < (found.most_clients or 0)
            assert 0 < found.latency_ms < 5000
            assert abs(found.clock_off_ms) < 5000
            assert abs(node.broker.clock_off_ms or 5000) < 5000
            server.command("SET", "tidegate:push:lease", "n1:nobody")
            server.command("XADD", "tidegate:push", "1-1", "all", "1", "data", "1")
            server.command("CONFIG", "SET", "appendonly", "yes", "save", "60 1")
            found = await node.broker.condition()
            assert (found.waiting, found.appendonly, found.snapshots) == (1, True, True)
            assert found.oldest_s > 1e9


async def test_what_this_user_may_not_ask_is_not_known():
    with RedisServer() as server:
        server.command("ACL", "SETUSER", "weak", "on", ">word", "~*", "&*", "+@all", "-config")
        async with Node(server.url.replace("//", "//weak:word@"), "n1") as node:
            found = await node.broker.condition()
            assert (found.snapshots, found.most_clients, found.appendfsync) == (None, None, None)
            assert found.appendonly is False
