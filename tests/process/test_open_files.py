"""Open files: shared out before they are gone, and a node that lives on where they are gone all the same."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.brokers.server import RedisServer
from tests.edges.edge import ask
from tests.peer import Peer, Refusal
from tests.support import Process, eventually, free_port, scaled
from tidegate.process import open_files

Start = Callable[..., Process]
LIMIT = 160


class Node:
    """A service process that may have ``LIMIT`` open files."""

    def __init__(self, start_process: Start, **environment: str) -> None:
        self.port, self.internal = free_port(), free_port()
        program = ("sh", "-c", f'ulimit -n {LIMIT}; exec "$@"', "sh", sys.executable, "-m", "tidegate", "serve")
        ports = {"TIDEGATE_SERVER__PORT": str(self.port), "TIDEGATE_INTERNAL__PORT": str(self.internal)}
        self.process = start_process(*program, env=ports | environment)
        self.peers: list[Peer] = []

    async def started(self) -> Node:
        await self.process.line("service.started")
        return self

    async def crowd(self, count: int) -> Counter[str]:
        """So many clients come; what became of them."""
        results = await asyncio.gather(*(self._come(number) for number in range(count)))
        return Counter(results)

    async def _come(self, number: int) -> str:
        peer = Peer(self.port, client=f"c{number}")
        try:
            await peer.connect()
        except Refusal as refusal:
            return refusal.code
        self.peers.append(peer)
        return "accepted"

    async def leave(self) -> None:
        for peer in self.peers:
            await peer.cut()
        self.peers.clear()

    async def get(self, path: str) -> tuple[int, str]:
        answer = await ask(self.internal, "GET", path)
        return answer.status, answer.body.decode()

    async def open_files(self) -> dict[str, float]:
        _, text = await self.get("/metrics")
        lines = [line.split() for line in text.splitlines() if line.startswith("tidegate_open_files")]
        return {name: float(value) for name, value in lines}

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@given(
    st.integers(min_value=open_files.LEAST, max_value=2_000_000),
    st.integers(min_value=1, max_value=1_000_000),
    st.integers(min_value=1, max_value=10_000),
)
def test_shares_never_add_up_to_more_than_the_limit_and_the_needed_limit_is_enough(
    limit: int, connections: int, calls: int
) -> None:
    shares = open_files.share(limit, connections=connections, calls=calls)
    assert 0 < shares.connections < shares.public < shares.sockets < limit
    assert shares.connections >= min(connections, limit // 2)
    assert limit - shares.sockets >= min(calls, limit // 4)
    enough = open_files.share(max(shares.needed, open_files.LEAST), connections=connections, calls=calls)
    assert enough.connections == connections
    assert enough.limit - enough.sockets == open_files.OWN + calls or enough.limit // 4 == enough.limit - enough.sockets


def test_a_limit_without_room_for_clients_is_refused() -> None:
    with pytest.raises(ValueError, match="ulimit -Hn"):
        open_files.share(open_files.LEAST - 1, connections=1, calls=1)


def test_open_files_are_counted() -> None:
    before = open_files.count()
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(10)]
    try:
        assert open_files.count() == before + 10
    finally:
        for file in held:
            os.close(file)


async def test_the_soft_limit_is_raised_to_the_hard_one(start_process: Start) -> None:
    code = "from tidegate.process import open_files; print(open_files.raise_limit(), open_files.limit())"
    process = start_process("sh", "-c", f"ulimit -S -n 200; ulimit -H -n 300; exec {sys.executable} -c '{code}'")
    assert await process.ended() == 0
    assert process.stdout.split() == ["300", "300"]


async def test_a_node_is_full_before_its_files_are_gone_and_says_so_at_its_start(start_process: Start) -> None:
    node = await Node(start_process).started()
    (warning,) = node.process.logged("connections.limited")
    room = open_files.share(LIMIT, connections=15000, calls=100)
    assert (warning["connections"], warning["open_files_limit"]) == (room.connections, LIMIT)
    assert warning["open_files_needed"] == room.needed
    came = await node.crowd(LIMIT + 20)
    assert came == {"accepted": room.connections, "full": LIMIT + 20 - room.connections}
    assert (await node.get("/readyz"))[0] == 200
    files = await node.open_files()
    assert files["tidegate_open_files_limit"] == LIMIT
    assert room.connections < files["tidegate_open_files"] < LIMIT - 10
    await node.leave()
    assert (await eventually(lambda: node.crowd(1)))["accepted"] == 1
    await node.leave()
    assert not node.process.logged("asyncio")


async def test_with_no_file_left_both_ports_pause_with_one_line_and_health_is_answered(start_process: Start) -> None:
    node = await Node(start_process).started()
    assert await node.crowd(20) == {"accepted": 20}
    highest = max(int(name) for name in os.listdir(f"/proc/{node.process.pid}/fd"))
    resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, (highest + 1, LIMIT))
    begun_s, before_s = time.monotonic(), node.cpu_s()
    late = asyncio.ensure_future(node.crowd(10))  # noqa: TID251 - held here, awaited below
    await eventually(lambda: node.process.logged("accept.paused"))
    held = [await asyncio.open_connection("127.0.0.1", node.internal) for _ in range(3)]  # as idle pools do
    for _ in range(5):
        assert (await node.get("/healthz"))[0] == 200
        assert (await ask(node.internal, "POST", "/api/all/push", _JSON, b'{"data":1}')).status == 202
    await eventually(lambda: time.monotonic() > begun_s + 1)  # long enough for a share of a core to be one
    assert node.cpu_s() - before_s < 0.5 * (time.monotonic() - begun_s)
    assert not late.done()
    (line,) = node.process.logged("accept.paused")
    assert (line["listener"], line["open_files_limit"]) == ("server.port", highest + 1)
    assert "Too many open files" in line["error"]
    assert "Traceback" not in node.process.stderr
    resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    assert await late == {"accepted": 10}
    for _, writer in held:
        writer.close()
    await node.leave()


_JSON = {"Content-Type": "application/json"}


async def test_connections_that_ask_for_nothing_use_up_the_public_port_alone(start_process: Start) -> None:
    node = await Node(start_process, TIDEGATE_SERVER__HEADER_TIMEOUT_S=str(scaled(1))).started()
    idle = [await asyncio.open_connection("127.0.0.1", node.port) for _ in range(2 * LIMIT)]
    (line,) = await eventually(lambda: node.process.logged("accept.paused"))
    assert line["open_files"] < LIMIT - 20
    assert (await node.get("/readyz"))[0] == 200
    for _, writer in idle:
        writer.close()
    assert await node.crowd(1) == {"accepted": 1}
    await node.leave()


async def test_a_full_node_finds_redis_again(start_process: Start) -> None:
    with RedisServer() as redis:
        settings = {"TIDEGATE_BROKER__KIND": "redis", "TIDEGATE_BROKER__URL": redis.url}
        node = await Node(start_process, **settings).started()
        assert (await node.crowd(LIMIT))["full"] > 0
        for kind in ("normal", "pubsub"):
            redis.command("CLIENT", "KILL", "TYPE", kind)

        async def pushed() -> bool:
            return (await ask(node.internal, "POST", "/api/all/push", _JSON, b'{"data":1}')).status == 202

        await eventually(pushed)
        await node.leave()
