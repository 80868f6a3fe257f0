"""A Redis that cannot be used is refused with its reason, at start or later."""

from __future__ import annotations

import re

import pytest

from tests.brokers.contract import Heard, info, push
from tests.brokers.nodes import FAST, Node, make, shorter
from tests.brokers.proxy import Proxy
from tests.brokers.server import RedisServer
from tests.support import eventually, free_port
from tidegate.brokers.redis.membership import Timing
from tidegate.core.errors import BrokerDown

SHORT = shorter(start_s=0.6)  # a node asks again and again until then


async def start(url: str, timing: Timing = FAST) -> None:
    broker = make(url, "n1", timing=timing)
    await broker.start(Heard(), info("n1"))
    await broker.stop()


async def test_a_redis_below_7_is_refused():
    def older(data: bytes) -> bytes:
        return re.sub(rb"redis_version:\d\.", b"redis_version:6.", data)

    with RedisServer() as server:
        async with Proxy(server.port) as proxy:
            await start(proxy.url)
        async with Proxy(server.port, older) as proxy:
            with pytest.raises(ValueError, match=r"Redis is 6\.\S+; 7 or newer is needed"):
                await start(proxy.url)


async def test_a_redis_in_cluster_mode_is_refused():
    with RedisServer(cluster_enabled="yes", cluster_port=str(free_port())) as server:
        with pytest.raises(ValueError, match="cluster mode"):
            await start(server.url)


@pytest.mark.parametrize("credentials", ["", ":wrong-word@", "nobody:secret-word@"])
async def test_a_missing_or_wrong_password_is_said_and_not_shown(credentials):
    with RedisServer(requirepass="secret-word") as server:
        with pytest.raises(BrokerDown) as refused:
            await start(f"redis://{credentials}127.0.0.1:{server.port}/0", SHORT)
        assert re.search("(?i)password|authentication", refused.value.message)
        assert "-word" not in refused.value.message


async def test_a_password_that_changes_takes_the_node_down_until_it_is_as_before():
    with RedisServer(requirepass="secret-word") as server:
        async with Node(f"redis://:secret-word@127.0.0.1:{server.port}/0", "n1") as node:
            server.command("CONFIG", "SET", "requirepass", "another-word")
            server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await eventually(lambda: "password" in node.broker.membership._error)
            with pytest.raises(BrokerDown):
                await node.broker.canary()
            server.command("CONFIG", "SET", "requirepass", "secret-word")
            await node.up()
            await push(node.broker, "group:a", b"1")


async def test_a_user_who_may_not_run_scripts_is_refused():
    with RedisServer() as server:
        server.command("ACL", "SETUSER", "weak", "on", ">word", "~*", "&*", "+@all", "-evalsha")
        with pytest.raises(BrokerDown, match="evalsha"):
            await start(f"redis://weak:word@127.0.0.1:{server.port}/0", SHORT)


async def test_a_replica_is_refused():
    with RedisServer() as master, RedisServer(replicaof=f"127.0.0.1 {master.port}") as replica:
        with pytest.raises(BrokerDown, match="no master"):
            await start(replica.url, SHORT)
