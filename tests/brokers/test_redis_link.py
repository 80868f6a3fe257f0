"""A line to Redis: what comes is parsed however it is cut, and its end is told once, whoever ended it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.exceptions import ResponseError

from tests.brokers.contract import push
from tests.brokers.nodes import Node
from tests.brokers.server import RedisServer
from tests.edges.edge import certificates
from tests.support import eventually, free_port
from tidegate.brokers.redis.pipeline import Address, Pipeline, RedisConnection
from tidegate.core.errors import BrokerDown

Say = Callable[[asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def line_to(say: Say, *, asked: bool = True) -> AsyncIterator[tuple[RedisConnection, list[Any], list[str]]]:
    """A line to a server that lets it sign in, waits for a command if ``asked``, and then says what it likes: the line,
    its replies, its ends."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"LIB-VER\r\n")
        await reader.readline()
        await reader.readline()
        writer.write(b"+OK\r\n" * 2)  # to CLIENT SETINFO, name and version
        if asked:
            await reader.readuntil(b"PING\r\n")
        await say(writer)
        rest.set_result(await reader.read())
        writer.close()

    rest: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        replies: list[Any] = []
        ends: list[str] = []
        connection = await Address(f"redis://127.0.0.1:{port}/0").connect(2.0)
        line = RedisConnection(connection, on_reply=replies.append, on_end=ends.append)
        line.send("PING")
        yield line, replies, ends
        line.end("the test's")
        assert ends == [line.error]
        assert await asyncio.wait_for(rest, 5) == b"" or not asked


async def test_replies_are_whole_however_they_are_cut():
    async def say(writer: asyncio.StreamWriter) -> None:
        for byte in b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$4\r\n1\r\n2\r\n:7\r\n-OOM command not allowed\r\n+OK\r\n":
            writer.write(bytes([byte]))
            await asyncio.sleep(0.001)

    async with line_to(say) as (_, replies, _):
        await eventually(lambda: len(replies) == 4)
        assert replies[:2] == [[b"message", b"a", b"1\r\n2"], 7]
        assert isinstance(replies[2], ResponseError)
        assert str(replies[2]) == "OOM command not allowed"
        assert replies[3] == b"OK"


async def test_what_no_redis_says_ends_it():
    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(b":1\r\nHTTP/1.1 400 Bad Request\r\n\r\n")

    async with line_to(say) as (_, replies, ends):
        await eventually(lambda: ends)
        assert replies == [1]
        assert ends[0].startswith("this is no Redis")


@pytest.mark.parametrize("asked", [True, False])
async def test_a_close_is_heard_also_right_after_the_sign_in(asked: bool):
    async def say(writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with line_to(say, asked=asked) as (_, replies, ends):
        await eventually(lambda: ends)
        assert replies == []


async def test_after_its_end_nothing_is_passed_on_or_sent():
    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(b":1\r\n:2\r\n")

    async with line_to(say) as (line, replies, ends):

        def end(reply: Any) -> None:
            replies.append(reply)
            line.end("enough")
            line.send("PING")

        line._on_reply = end
        await eventually(lambda: ends)
        await asyncio.sleep(0.05)
        assert (replies, ends) == ([1], ["enough"])


async def test_a_link_whose_oldest_answer_is_late_ends_and_fails_all_that_wait():
    with RedisServer() as server:
        link = Pipeline(await Address(server.url).connect(2.0), 0.3)
        assert await link.call("PING") == b"PONG"
        await asyncio.sleep(0.4)  # idle is not late
        assert link.error is None
        server.pause()
        answers = [link.call("PING") for _ in range(3)]
        began_s = asyncio.get_running_loop().time()
        for answer in answers:
            with pytest.raises(BrokerDown, match=r"no answer from Redis within 0\.3 s"):
                await answer
        assert 0.25 < asyncio.get_running_loop().time() - began_s < 1.5
        server.resume()


async def test_a_redis_behind_tls_is_used():
    certificate, key, port = f"{certificates()}/fullchain.pem", f"{certificates()}/privkey.pem", free_port()
    with RedisServer(tls_port=str(port), tls_cert_file=certificate, tls_key_file=key, tls_auth_clients="no"):
        url = f"rediss://localhost:{port}/0"
        async with Node(f"{url}?ssl_ca_certs={certificate}", "n1") as node:
            await node.broker.subscribe("group:a")
            await push(node.broker, "group:a", b"1", b"x" * 500)
            await eventually(lambda: node.heard.offsets("group:a") == [1, 2])
        with pytest.raises(BrokerDown, match="certificate verify failed"):
            await Address(url).connect(2.0)
