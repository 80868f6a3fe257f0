"""The orders of a load client of ``python -m bench soak``: some connections stay and are busy, others come and go."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections import deque
from typing import Any

import uvloop

from bench.load import system
from bench.load.client import apply_order
from bench.load.orders import ModeLoad, cursor_of, push, request, unblocked
from bench.load.publisher import LoadError
from bench.load.storm import bound, make_tokens

GROUP = "busy"
QUIET_GROUPS = 100
POOL = 500  # names of those who come and go: what is kept for each of them for long is not to grow
STREAMS = 3  # of each: its own, all, its group
BACK = 5  # messages that one misses
STEP_S = 0.2
ASKED = 5  # questions in a step
GOODBYE_S = 5.0
CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"  # 1000


class SoakLoad(ModeLoad):
    """``begin``, then ``churn`` again and again."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count()
        self._here: deque[tuple[socket.socket, bool]] = deque()  # who came, the oldest first; whether it is in GROUP
        self._epoch, self._top = "", 0
        self._stay = 0
        self._tokens_by_kind = {kind: make_tokens(system.TOKEN_KEY, POOL, prefix=f"{kind}-") for kind in ("new", "old")}

    async def begin(self, port: int, api_port: int, count: int) -> dict[str, Any]:
        """``count`` are in the busy group, and stay."""
        answer = await self.enter("stay", port, count, GROUP, {"groups": {}, "others": []})
        self._stay = count
        self._throng.take_resets()
        self._push(api_port)
        return answer

    async def churn(self, seconds: float, port: int, api_port: int, per_second: int, lives_s: float) -> dict[str, Any]:
        """For so long ``per_second`` come, and as many go when they have been here for ``lives_s``; each step has a
        message for all who are in the busy group, and some questions. How many came and went, and by how much the
        client was late at the end."""
        throng, each = self._throng, max(1, round(per_second * STEP_S))
        began_s, came, went = time.monotonic(), 0, 0
        steps = max(1, round(seconds / STEP_S))
        for step in range(1, steps + 1):
            came += self._come(port, each)
            went += self._go(max(0, len(self._here) - round(per_second * lives_s)))
            self._push(api_port)
            throng.ask(self._sets["stay"], "ping", ASKED, ASKED)
            throng.listen(max(began_s + step * STEP_S - time.monotonic(), 0))
        await self._settle()
        if throng.resets > STREAMS * POOL:  # the first time there is no record yet
            raise LoadError(f"{throng.resets} resets, where there should be {STREAMS * POOL} at the most")
        return {"came": came, "went": went, "late_s": max(0.0, time.monotonic() - began_s - seconds)}

    def _push(self, api_port: int) -> None:
        """All who are there have it when this returns."""
        position = push(api_port, GROUP)
        self._epoch, self._top = position["epoch"], position["offset"]
        self._throng.collect(self._stay + sum(is_busy for _, is_busy in self._here))

    def _come(self, port: int, count: int) -> int:
        """One half with a cursor and something that it missed, the other with cursor=last."""
        socks, requests, after, until = [], [], [], []
        for number in itertools.islice(self._numbers, count):
            is_busy = bool(number % 2)
            missed = self._top - BACK if is_busy else 0
            query = f"cursor={cursor_of(GROUP, self._epoch, max(0, missed))}"
            if not is_busy:
                query = f"cursor=last&groups=quiet{number % QUIET_GROUPS}"
            socks.append(bound(number))
            requests.append(request(port, query, self._tokens_by_kind["new" if is_busy else "old"][number // 2 % POOL]))
            after.append(max(0, missed))
            until.append(self._top if is_busy else 0)
            self._here.append((socks[-1], is_busy))
        self._throng.dial(unblocked(socks), requests, port, after=after, until=until, at_once=count)
        return count

    def _go(self, count: int) -> int:
        """The oldest: two in three say goodbye, the others are cut."""
        socks = [self._here.popleft()[0] for _ in range(count)]
        polite = [sock for number, sock in enumerate(socks) if number % 3]
        for sock in polite:
            sock.send(CLOSE)
        until_s = time.monotonic() + GOODBYE_S
        while left := [sock for sock in polite if not self._throng.code(sock)]:
            self._throng.listen(0.005)
            if time.monotonic() > until_s:
                raise LoadError(f"{len(left)} goodbyes were not answered")
        codes = {self._throng.code(sock) for sock in polite} - {1000}
        self._throng.drop(socks)
        if codes:
            raise LoadError(f"goodbyes were answered with {sorted(codes)}")
        return count

    async def end(self) -> dict[str, Any]:
        """All go."""
        went = self._go(len(self._here))
        await self.leave_all()
        return {"went": went}


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(apply_order(SoakLoad()))
