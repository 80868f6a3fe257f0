"""Real Sentinels: some of them dead, hung or out of date; passwords and TLS; a failover while messages flow."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.brokers.contract import Heard, info, push
from tests.brokers.nodes import Node, make, shorter
from tests.brokers.server import RedisServer, SentinelServer, Trio, sentinel_url
from tests.edges.edge import certificates
from tests.support import Logs, eventually, free_port, scaled
from tidegate.brokers.redis.pipeline import Address
from tidegate.core.errors import BrokerDown
from tidegate.core.model import Position, Publication

SOON_S = 1.5  # for one Sentinel that does not answer


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port on which connects are neither taken nor refused: its backlog is full."""
    with contextlib.ExitStack() as stack:
        hole = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(hole.getsockname())
        yield hole.getsockname()[1]


@contextlib.contextmanager
def broken(kind: str, master: RedisServer) -> Iterator[int]:
    """The port of a Sentinel that is of no use."""
    with contextlib.ExitStack() as stack:
        if kind == "dead":
            yield free_port()
        elif kind == "hung":
            sentinel = stack.enter_context(SentinelServer(master.port))
            sentinel.pause()
            yield sentinel.port
        else:
            yield stack.enter_context(black_hole())


@pytest.mark.parametrize("kind", ["dead", "hung", "black hole"])
async def test_with_the_first_sentinel_broken_a_node_starts_and_comes_back_in_time(kind: str):
    with RedisServer() as master, broken(kind, master) as first, SentinelServer(master.port) as second:
        begun_s = time.monotonic()
        async with Node(sentinel_url(first, second.port), "n1") as node:
            assert time.monotonic() - begun_s < scaled(SOON_S)
            # It was asked first and is no longer; who was right is.
            begun_s = time.monotonic()
            master.command("CLIENT", "KILL", "TYPE", "normal")
            await eventually(lambda: not node.broker.membership.up.is_set())
            await eventually(node.broker.membership.up.is_set)
            assert time.monotonic() - begun_s < scaled(SOON_S)
            await push(node.broker, "group:a", b"1")


@pytest.mark.parametrize("kind", ["dead", "hung", "black hole"])
async def test_when_the_sentinel_that_was_right_breaks_the_next_one_is_asked(kind: str):
    with RedisServer() as master, SentinelServer(master.port) as first, SentinelServer(master.port) as second:
        address = Address(sentinel_url(first.port, second.port))
        await _reach(address)
        with contextlib.ExitStack() as stack:
            if kind == "hung":
                first.pause()
            else:
                first.kill()
            if kind == "black hole":
                stack.enter_context(_deaf(first.port))
            begun_s = time.monotonic()
            await _reach(address)
            assert time.monotonic() - begun_s < scaled(SOON_S)


@contextlib.contextmanager
def _deaf(port: int) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", port), backlog=0):
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.1", port))
            yield


async def _reach(address: Address) -> None:
    connection = await address.connect(3.0)
    await connection.disconnect()


async def test_a_sentinel_that_is_out_of_date_is_believed_once():
    """It names a server that is gone, or that is a replica now."""
    with RedisServer() as master, RedisServer(replicaof=f"127.0.0.1 {master.port}") as replica:
        with (
            SentinelServer(free_port()) as gone,
            SentinelServer(replica.port) as old,
            SentinelServer(master.port) as good,
        ):
            address = Address(sentinel_url(gone.port, old.port, good.port))
            for _ in range(2):
                with pytest.raises(BrokerDown):
                    await address.connect(2.0)
            for _ in range(2):
                await _reach(address)


async def test_what_each_sentinel_has_said_is_told_and_no_secret():
    with RedisServer() as master, SentinelServer(master.port, "requirepass s3cret", password="s3cret") as locked:
        dead = free_port()
        url = sentinel_url(dead, locked.port)
        for options, said in (("", "NOAUTH"), ("?sentinel_password=wr0ng", "WRONGPASS")):
            with pytest.raises(BrokerDown) as failed:
                await make(url + options, "n1", timing=shorter(start_s=1.0)).start(Heard(), info("n1"))
            assert f"127.0.0.1:{locked.port}: {said}" in failed.value.message
            assert f"127.0.0.1:{dead}: " in failed.value.message
            assert "Connect call failed" in failed.value.message
            assert not {"s3cret", "wr0ng"} & set(failed.value.message.split())
        async with Node(url + "?sentinel_password=s3cret", "n1") as node:
            await push(node.broker, "group:a", b"1")


async def test_a_name_that_no_sentinel_knows_is_said():
    with RedisServer() as master, SentinelServer(master.port) as sentinel:
        address = Address(sentinel_url(sentinel.port).replace("/tide", "/other"))
        with pytest.raises(BrokerDown, match=r"no Sentinel names a master of other .*knows no such name"):
            await address.connect(2.0)


async def test_sentinels_and_redis_are_reached_over_tls_each_with_its_own_user():
    folder, port = certificates(), free_port()
    files: dict[str, Any] = {
        "tls_cert_file": f"{folder}/fullchain.pem",
        "tls_key_file": f"{folder}/privkey.pem",
        "tls_ca_cert_file": f"{folder}/fullchain.pem",
        "tls_auth_clients": "no",
    }
    lines = [f"{name.replace('_', '-')} {value}" for name, value in files.items()]
    encrypted: dict[str, Any] = {"ssl": True, "ssl_ca_certs": files["tls_ca_cert_file"]}
    with RedisServer(tls_port=str(port), **files) as master:
        master.command("ACL", "SETUSER", "app", "on", ">p@ss", "~*", "&*", "+@all")
        watching = SentinelServer(
            port,
            *lines,
            f"port 0\ntls-port {(listens := free_port())}\ntls-replication yes",
            "user watcher on >w@tch +@all",
            port=listens,
            username="watcher",
            password="w@tch",
            **encrypted,
        )
        with watching as sentinel:
            options = f"?ssl_ca_certs={folder}/fullchain.pem&sentinel_username=watcher&sentinel_password=w%40tch"
            url = f"rediss+sentinel://app:p%40ss@127.0.0.1:{sentinel.port}/tide{options}"
            async with Node(url, "n1") as node:
                await push(node.broker, "group:a", b"1")
                (who,) = await node.broker.membership.commands(("ACL", "WHOAMI"))
                assert who == b"app"
            with pytest.raises(BrokerDown, match="certificate"):
                await Address(url.replace(f"ssl_ca_certs={folder}/fullchain.pem&", "")).connect(2.0)


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:s3cret@a",
        "redis+sentinel://:s3cret@a:1:2/main",
        "redis+sentinel://:s3cret@a:99999/main",
        "redis+sentinel://:s3cret@a/main?db=s3cret",
        "redis+sentinel://:s3cret@a/main?nonsense=s3cret",
        "redis+sentinel://a/main?sentinel_password=s3cret&db=x",
        "redis://:s3cret/@a/0",
        "redis+sentinel://:[s3cret]@a/main?db=x",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_secrets(url: str):
    with pytest.raises(ValueError, match=r"broker\.url: ") as refused:
        Address(url)
    assert "s3cret" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dead", "hung"])
async def test_a_running_node_follows_a_failover_with_one_sentinel_broken(kind: str, expected_logs: Logs):
    expected_logs.allow("redis.went_back")
    with Trio() as trio:
        async with Node(trio.url, "n1") as node:
            (trio.sentinels[0].kill if kind == "dead" else trio.sentinels[0].pause)()
            old = trio.master
            old.kill()
            await eventually(lambda: trio.master is not old, 30)
            begun_s = time.monotonic()
            await node.up()
            took_s = time.monotonic() - begun_s
            print(f"{kind}: up {took_s:.1f} s after the failover")
            assert took_s < scaled(5)


async def test_a_failover_while_messages_flow_is_survived_and_its_loss_announced(expected_logs: Logs):
    expected_logs.allow("redis.went_back")
    with Trio() as trio:
        async with Node(trio.url, "n1") as one, Node(trio.url, "n2") as two:
            await one.broker.subscribe("group:a")
            alone = await push(two.broker, "group:nobody", b"1")
            accepted: dict[Position, bytes] = {}
            flowing = True

            async def flow() -> None:
                number = 0
                while flowing:
                    number += 1
                    data = b"%d" % number
                    (answer,) = await two.broker.publish([Publication("group:a", data, f"k{number}")])
                    while isinstance(answer, BrokerDown):
                        await asyncio.sleep(0.05)
                        (answer,) = await two.broker.publish([Publication("group:a", data, f"k{number}")])
                    assert isinstance(answer, Position)
                    assert accepted.setdefault(answer, data) == data
                    await asyncio.sleep(0.01)

            flow_task = asyncio.ensure_future(flow())  # noqa: TID251
            await eventually(lambda: len(one.heard.of("group:a")) > 20)
            old = trio.master
            old.kill()
            before = len(accepted)
            await eventually(lambda: len(accepted) > before + 50, 40)
            assert trio.master is not old
            flowing = False
            await flow_task
            await one.up()
            newest = list(accepted)[-1]
            await eventually(lambda: one.heard.data("group:a")[-1] == accepted[newest], 10)

            heard, gaps = one.heard.data("group:a"), one.heard.gaps("group:a")
            assert len(set(heard)) == len(heard) or gaps
            if not gaps:  # nothing was lost: then nothing may be missing
                assert heard == list(accepted.values())
                assert newest.epoch == alone[0].epoch.partition(".")[0] + "." + newest.epoch.partition(".")[2]
            else:
                page = await two.broker.history("group:nobody", alone[0], messages=10, size=100)
                assert page.gap is not None
            # What the present epoch says was accepted, its followers have heard.
            assert {data for position, data in accepted.items() if position.epoch == newest.epoch} <= set(heard)
