"""The orders of the load client that ``compare`` gives beside those of ``load.py``. Receiving, checking and the clocks
are in ``crowd.c``: each message at the time it was read, each question at the time it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import uvloop

from bench.load import system
from bench.load.client import Load, apply_order, come_to_rest
from bench.load.crowd import Crowd
from bench.load.processes import cpu_s
from bench.load.publisher import LoadError, post
from bench.load.storm import bound, make_tokens, request_of
from tidegate.core.model import Position, encode_cursor, group_stream

PATH = "/ws-notifications/"
JSON = {"Content-Type": "application/json"}
WAIT_S = 10.0
# Of a curve of latencies: the percentiles at which it has points.
PERCENTILES = (0, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100)
CURVE_POINTS = 100
ENOUGH = 1000  # latencies, for a percentile of 99.9
_MEANWHILE = 5  # messages pushed while nginx reloads


class Watch:
    """CPU time by program, the client's own, and the time, from its making to ``close``. It begins when all servers
    have done what they had to do before, those of other modes too."""

    def __init__(self, groups: dict[str, list[int]], others: list[int]) -> None:
        self._groups = groups
        come_to_rest(others)
        self._began_s = {name: cpu_s(pids) for name, pids in groups.items()}
        self._began = (time.process_time(), time.monotonic())

    def close(self) -> dict[str, Any]:
        client_s, wall_s = time.process_time() - self._began[0], time.monotonic() - self._began[1]
        used_s = {name: cpu_s(pids) - self._began_s[name] for name, pids in self._groups.items()}
        return {"cpu_s": used_s, "client_cpu_s": client_s, "wall_s": wall_s}


class ModeLoad(Load):
    """Clients are in sets, whose names the orders choose: those of ``a`` are a-0, a-1, … Offsets are counted from 1, so
    a set that is pushed to has a name, or a group, that was never used. ``watch``: the arguments of ``Watch``."""

    def __init__(self) -> None:
        super().__init__()
        self._throng = Crowd(WAIT_S)
        self._sets: dict[str, list[socket.socket]] = {}

    def tick(self) -> None:
        self._throng.idle()

    # Connections

    async def enter(
        self, name: str, port: int, count: int, group: str, watch: dict[str, Any], at_once: int = 50
    ) -> dict[str, Any]:
        """``count`` clients connect, join ``group`` unless it is empty, and stay."""
        requests = self._requests(name, port, count, f"groups={group}" if group else "")
        socks = [bound(number) for number in range(count)]
        nothing = [0] * count
        running = Watch(**watch)
        took_ms = self._throng.dial(unblocked(socks), requests, port, after=nothing, until=nothing, at_once=at_once)
        answer = running.close()
        self._sets[name] = socks
        self._throng.check()
        return {**answer, **_latencies(took_ms)}

    async def leave(self, name: str) -> dict[str, Any]:
        """All of a set are cut."""
        self._throng.drop(self._sets.pop(name))
        return {}

    async def leave_all(self) -> dict[str, Any]:
        for name in list(self._sets):
            await self.leave(name)
        return {}

    async def rest(self, seconds: float, watch: dict[str, Any]) -> dict[str, Any]:
        """All stay connected and answer pings."""
        running = Watch(**watch)
        self._throng.listen(seconds)
        answer = running.close()
        self._throng.check()
        return answer

    async def storm(
        self, name: str, port: int, api_port: int, group: str, missed: int, watch: dict[str, Any]
    ) -> dict[str, Any]:
        """All of a set are cut at once, ``missed`` messages are pushed to their group, and all come back at once with
        their cursor. How long each took until it had all of them, from the first one's beginning."""
        left = await self.cut_off(name, api_port, group, missed)
        return await self.come_back(name, port, group, missed, watch, **left)

    async def cut_off(self, name: str, api_port: int, group: str, missed: int) -> dict[str, Any]:
        """All of a set are cut at once, and ``missed`` messages are pushed to their group. What ``come_back`` wants to
        know."""
        socks = self._sets[name]
        count, after = len(socks), self._throng.after(socks[0])
        epoch = push(api_port, group)["epoch"]
        self._throng.collect(count)
        self._throng.check()
        await self.leave(name)
        for _ in range(missed):
            push(api_port, group)
        return {"count": count, "epoch": epoch, "after": after + 1}

    async def come_back(
        self,
        name: str,
        port: int,
        group: str,
        missed: int,
        watch: dict[str, Any],
        count: int,
        epoch: str,
        after: int,
        salt: int = 0,
        patient: bool = False,
    ) -> dict[str, Any]:
        """They come all at once with their cursor, and, with a ``salt``, with new tokens; see ``Crowd.dial``."""
        throng = self._throng
        query = f"cursor={cursor_of(group, epoch, after)}"
        tokens = make_tokens(system.TOKEN_KEY, count, salt, prefix=f"{name}-")
        requests = [request(port, query, token) for token in tokens]
        socks = [bound(number) for number in range(count)]
        running = Watch(**watch)
        throng.dial(
            unblocked(socks),
            requests,
            port,
            after=[after] * count,
            until=[after + missed] * count,
            at_once=count,
            patient=patient,
        )
        answer = running.close()
        self._sets[name] = socks
        await self._settle()
        began_ns = min(map(throng.begun_ns, socks))
        welcomed_s = sorted((throng.welcomed_ns(sock) - began_ns) / 1e9 for sock in socks)
        return {
            **answer,
            **_returns([(throng.completed_ns(sock) - began_ns) / 1e9 for sock in socks]),
            "p50_s": percentile(welcomed_s, 50),
            "refused": throng.refused(),
        }

    async def reload(
        self, name: str, port: int, api_port: int, group: str, pid: int, within_s: float
    ) -> dict[str, Any]:
        """nginx (``pid``) is told to reload, and messages are pushed meanwhile. Clients come back with their cursor as
        soon as they are closed. How they were closed, how long each was away, and when all were back, from the order
        on."""
        throng, socks = self._throng, self._sets[name]
        count = len(socks)
        tokens = self._tokens(name, count)
        epoch = push(api_port, group)["epoch"]
        throng.collect(count)
        top = throng.after(socks[0]) + _MEANWHILE
        codes = Counter[int]()
        back_s: list[float] = []
        away_ms: list[float] = []
        returned: list[socket.socket] = []
        received, replayed = throng.received, 0
        began_s = time.monotonic()
        os.kill(pid, signal.SIGHUP)
        for _ in range(_MEANWHILE):
            push(api_port, group)
        staying = dict(enumerate(socks))
        while staying:
            throng.listen(0.005)
            lost = {number: sock for number, sock in staying.items() if throng.code(sock)}
            lost_s = time.monotonic()
            if lost_s > began_s + within_s:
                raise LoadError(
                    f"{len(staying)} of {count} clients were not closed within {within_s:g} s of the reload"
                )
            if not lost:
                continue
            codes.update(throng.code(sock) for sock in lost.values())
            after = [throng.after(sock) for sock in lost.values()]
            replayed += sum(top - each for each in after)
            throng.drop(list(lost.values()))
            queries = [f"cursor={cursor_of(group, epoch, each)}" for each in after]
            requests = [request(port, *each) for each in zip(queries, (tokens[n] for n in lost), strict=True)]
            new = [bound(number) for number in lost]
            throng.dial(unblocked(new), requests, port, after=after, until=[top] * len(new), at_once=50)
            back_s += [throng.completed_ns(sock) / 1e9 - began_s for sock in new]
            away_ms += [throng.completed_ns(sock) / 1e6 - lost_s * 1000 for sock in new]
            staying = {number: sock for number, sock in staying.items() if number not in lost}
            returned += new
            self._sets[name] = [*staying.values(), *returned]
        throng.count_in(throng.received - received - replayed)
        await self._settle()
        return {"codes": dict(codes), **_returns(back_s), **_latencies(away_ms)}

    # What is measured

    async def ask(
        self, name: str, kind: str, total: int, in_flight: int, watch: dict[str, Any], size: int = 0
    ) -> dict[str, Any]:
        """Questions of a set, spread evenly; see ``Crowd.ask``."""
        running = Watch(**watch)
        took = self._throng.ask(self._sets[name], kind, total, in_flight, size)
        answer = running.close()
        await self._settle()
        return {**answer, "count": total, **_latencies([each / 1e6 for each in took])}

    async def push(
        self,
        name: str,
        api_port: int,
        path: str,
        size: int,
        count: int,
        watch: dict[str, Any],
        every_s: float = 0.0,
        batch: int = 1,
        heard: bool = True,
    ) -> dict[str, Any]:
        """``count`` pushes with ``size`` bytes of data each: to ``path``, or, where that has a ``{}``, to one client of
        the set after the other; see ``Crowd.push``."""
        socks = self._sets[name]
        in_turn = "{}" in path
        data = b'"%b"' % (b"x" * (size - 2))
        if batch > 1:
            kind, address = path.removeprefix("/api/").removesuffix("/push").split("/")
            item = b'{"%b":"%b","data":%b}' % (kind.rstrip("s").encode(), address.encode(), data)
            requests = [post("/api/push", b'{"pushes":[%b]}' % b",".join([item] * batch))] * count
        else:
            paths = [path.format(f"{name}-{number}") for number in range(len(socks))] if in_turn else [path]
            posts = [post(each, b'{"data":%b}' % data) for each in paths]
            requests = list(itertools.islice(itertools.cycle(posts), count))
        with socket.create_connection(("127.0.0.1", api_port)) as publisher:
            running = Watch(**watch)
            took = self._throng.push(
                publisher, requests, socks, every_s=every_s, in_turn=in_turn, batch=batch, heard=heard
            )
        answer = running.close()
        await self._settle(check=heard)
        return {**answer, "count": len(took), **(_latencies([each / 1e6 for each in took]) if took else {})}

    async def mute(self, name: str) -> dict[str, Any]:
        """All of a set stop reading."""
        self._throng.mute(self._sets[name], muted=True)
        return {}

    async def hear(self, name: str, messages: int) -> dict[str, Any]:
        """They go on, until nothing more comes: each gets all ``messages``, or the first of them and its close."""
        throng, socks = self._throng, self._sets[name]
        before = throng.received
        throng.mute(socks, muted=False)
        received = -1
        while received != throng.received:
            received = throng.received
            throng.listen(0.15)
        throng.count_in(throng.received - before)
        codes = Counter(throng.code(sock) for sock in socks)
        short = [sock for sock in socks if not throng.code(sock) and throng.after(sock) != messages]
        if short:
            raise LoadError(f"{len(short)} clients that stayed have {throng.after(short[0])} of {messages} messages")
        closed = [sock for sock in socks if throng.code(sock)]
        throng.drop(closed)
        self._sets[name] = [sock for sock in socks if sock not in closed]
        throng.check()
        return {"codes": dict(codes)}

    # What they have in common

    def _tokens(self, name: str, count: int) -> list[str]:
        return make_tokens(system.TOKEN_KEY, count, prefix=f"{name}-")

    def _requests(self, name: str, port: int, count: int, query: str) -> list[bytes]:
        return [request(port, query, token) for token in self._tokens(name, count)]

    async def _settle(self, *, check: bool = True) -> None:
        """What should not come has time to; then all is checked."""
        await asyncio.sleep(0.02)
        if check:
            self._throng.check()


def unblocked(socks: list[socket.socket]) -> list[socket.socket]:
    for sock in socks:
        sock.setblocking(False)
    return socks


def request(port: int, query: str, token: str) -> bytes:
    return request_of("127.0.0.1", port, f"{PATH}?{query}" if query else PATH, token)


def push(api_port: int, group: str) -> dict[str, Any]:
    """The position of a small message to a group."""
    connection = http.client.HTTPConnection("127.0.0.1", api_port, timeout=WAIT_S)
    with contextlib.closing(connection):
        connection.request("POST", f"/api/groups/{group}/push", b'{"data":"missed"}', JSON)
        answer = connection.getresponse()
        body = answer.read()
    if answer.status != 202:
        raise LoadError(f"push: HTTP {answer.status} {body[:200]!r}")
    position: dict[str, Any] = json.loads(body)
    return position


def cursor_of(group: str, epoch: str, offset: int) -> str:
    token = encode_cursor({group_stream(group): Position(epoch, offset)})
    assert token is not None  # one position is short
    return token


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The least value that so many percent are not above."""
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, min(len(ordered), int(rank)) - 1)]


def _latencies(took_ms: Sequence[float]) -> dict[str, Any]:
    ordered = sorted(took_ms)
    found = {"p50_ms": percentile(ordered, 50), "p99_ms": percentile(ordered, 99)}
    if len(ordered) >= ENOUGH:
        found["p999_ms"] = percentile(ordered, 99.9)
    return {**found, "latency": [(percent, percentile(ordered, percent)) for percent in PERCENTILES]}


def _returns(back_s: Sequence[float]) -> dict[str, Any]:
    """When the last was back, and the share that was, over time."""
    ordered = sorted(back_s)
    count = len(ordered)
    step = max(1, count // CURVE_POINTS)
    chosen = sorted({*range(0, count, step), count - 1})
    return {"back_s": ordered[-1], "back": [(0.0, 0.0), *((ordered[at], (at + 1) / count) for at in chosen)]}


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(apply_order(ModeLoad()))
