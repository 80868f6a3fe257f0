"""What a client sees while a node is stopped, restarted or upgraded, and whether it misses anything.

That cannot be measured without a stop, and the doctor stops nothing: it holds a session on each node that it reaches,
says so, and watches what the operator does. With the API it pushes to them all the while, and asks at which node each
connection is: over a trunk that is all that changes. Source: docs/operations.md, Reload and restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from tidegate.doctor import handshake
from tidegate.doctor.api import Api, ApiError, Client, Pushed, ask_health
from tidegate.doctor.held import Held, Stop
from tidegate.doctor.link import Ended, NoAnswer, Refusal
from tidegate.doctor.reach import judge, reach
from tidegate.doctor.report import Finding, number, ok, unknown, weak, wrong
from tidegate.doctor.target import Target

MOST_S = 600.0  # of watching; a token that the doctor makes lives longer
BACK_S = 10.0  # for what is under way when the time is up
ARRIVAL_S = 5.0  # for the last of the pushes
PUSH_S = 0.5
SLOW_S = 2.0  # of a handshake that waits for a node that does not answer
BLIND_HANDSHAKES = 6  # where no API says how many nodes there are

_RESTARTS = (1001, 1012)  # an edge, or a node, that stops or restarts. Source: docs/protocol.md, Close codes
_CUT = (
    "stop nodes with SIGTERM and nginx with SIGQUIT, and kill them no sooner than server.drain_s and "
    "edge.shutdown_timeout_s are over (TimeoutStopSec=, terminationGracePeriodSeconds, stop_grace_period); else see "
    "what in between ends connections"
)


class Watch:
    """One of them. ``begun`` is called when the sessions are held, with what to do now."""

    def __init__(self, target: Target, api: Api | None, seconds: float, begun: Callable[[str], None]) -> None:
        self._target = target
        self._api = api
        self._seconds = seconds
        self._begun = begun
        self._changed = asyncio.Event()
        self._is_enough = False
        self._is_over = asyncio.Event()
        self._held: list[Held] = []
        self._pushed: dict[tuple[str, int], float] = {}  # positions, and when they were asked for
        self._refused = 0
        self._trouble = ""  # why the last of these was not
        self._blind = ""  # why it is not known at which node they are

    def enough(self) -> None:
        """Ends it, but for what is under way."""
        self._is_enough = True
        self._changed.set()

    async def findings(self) -> list[Finding]:
        greeting = await handshake.greet(self._target)
        if greeting.link is None:
            return greeting.findings
        greeting.link.cut()
        health = None if self._api is None else await ask_health(self._api)
        if isinstance(health, Finding):
            return [health]
        nodes = [] if health is None else [node["node"] for node in health["nodes"] if not node["draining"]]
        try:
            reached = await reach(self._target, nodes, BLIND_HANDSHAKES if health is None else None)
        except (NoAnswer, Refusal, Ended) as exc:
            return [wrong("handshake", str(exc), "examine without --stop: it says more")]
        for link in set(reached.all) - set(reached.links.values()):
            link.cut()
        async with contextlib.AsyncExitStack() as stack:
            self._held = [
                await stack.enter_async_context(Held(self._target, link, self._changed.set))
                for _, link in sorted(reached.links.items())
            ]
            self._begun(self._task(list(reached.links)))
            took_s = await self._watch()
            stops = [finding for held in self._held for finding in self._of(held, took_s)]
            return [*judge(reached, nodes), *stops, self._pushes()]

    def _task(self, nodes: Sequence[str]) -> str:
        held = "a session is" if len(nodes) == 1 else f"{len(nodes)} sessions are"
        return (
            f"{held} held, at {', '.join(sorted(nodes))}: stop, restart or upgrade a node now, within "
            f"{self._seconds:g} s; Ctrl-C when you are done"
        )

    async def _watch(self) -> float:
        """For how many seconds: until the time is up, or it is enough, or something has happened to each."""
        begun_s = time.monotonic()
        attending = asyncio.create_task(self._attend())  # noqa: TID251 - ended below
        try:
            await self._wait(
                self._seconds, lambda: self._is_enough or all(held.stops and held.is_settled for held in self._held)
            )
            took_s = time.monotonic() - begun_s
            await self._wait(BACK_S, lambda: all(held.is_settled for held in self._held))
            if self._api is not None:
                before = len(self._pushed)  # one more shows that they are heard where they are now
                await self._wait(ARRIVAL_S, lambda: len(self._pushed) > before)
        finally:
            self._is_over.set()  # and not cancelled: a request is under way in a thread
            await attending
        await self._look()
        await self._wait(ARRIVAL_S, lambda: not any(self._missed(held) for held in self._held))
        return took_s

    async def _wait(self, seconds: float, is_over: Callable[[], bool]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not is_over():
                    self._changed.clear()
                    await self._changed.wait()

    # With the API

    async def _attend(self) -> None:
        while self._api is not None and not self._is_over.is_set():
            begun_s = time.monotonic()
            try:
                position = await self._api.call(
                    "POST", f"/api/clients/{self._held[0].client}/push", {"data": "doctor"}, shape=Pushed
                )
                self._pushed[position["epoch"], position["offset"]] = begun_s
                self._changed.set()
            except ApiError as exc:
                self._refused += 1
                self._trouble = str(exc)
            await self._look()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_over.wait(), PUSH_S)

    async def _look(self) -> None:
        if self._api is None:
            return
        try:
            answer = await self._api.call("GET", f"/api/clients/{self._held[0].client}", shape=Client)
        except ApiError as exc:
            self._blind = str(exc)
            return
        self._blind = ""
        nodes = {each["connection"]: each["node"] for each in answer["connections"]}
        for held in self._held:
            held.found(nodes)

    # What it comes to

    def _of(self, held: Held, took_s: float) -> Iterator[Finding]:
        for stop in held.stops:
            yield _end(stop)
            if not stop.stayed:
                yield _return(stop)
        if held.stops:
            return
        what, took = f"stop of {held.node}", number(max(took_s, 0.1), "s")
        if self._blind:
            how = f"the session there stayed open for {took}, and the API does not say whether its node is the same"
            yield unknown(what, f"{how}: {self._blind}", "--api of a node that goes on, a key that may read")
        elif self._api is not None:
            do = f"stop, restart or upgrade {held.node} while this waits"
            yield unknown(what, f"nothing happened to the session there within {took}", do)
        else:
            do = "stop it while this waits; over a trunk only --api, of a node that goes on, shows that it was stopped"
            yield unknown(what, f"the session there stayed open for {took}", do)

    def _missed(self, held: Held) -> list[tuple[str, int]]:
        """Of one that never came back nothing can be said."""
        if not held.is_settled:
            return []
        return [position for position in self._pushed if position not in held.arrived]

    def _pushes(self) -> Finding:
        what = "pushes meanwhile"
        if self._api is None:
            return unknown(what, "not made", "--api pushes all the while, and says whether something was missed")
        if not self._pushed:
            return unknown(
                what, f"none was accepted: {self._trouble}", "--api of a node that goes on, a key that may push"
            )
        refused = f"; {self._refused} not accepted: {self._trouble}" if self._refused else ""
        for held in self._held:
            if missed := self._missed(held):
                how = f"{len(missed)} of {len(self._pushed)} did not come to a session that is at {held.node}{refused}"
                told = sorted({reason for reason in held.gaps if reason != "skipped"})
                if told:
                    do = "clients load their state anew; with broker.kind: redis journals outlive a node"
                    return weak(what, f"{how}; it was told so: gap, {', '.join(told)}", do)
                epoch, offset = missed[0]
                return wrong(what, how, f"`tidegate trace client:{held.client} {epoch}:{offset}` says why")
        took_s = [
            held.arrived[position] - begun_s
            for held in self._held
            for position, begun_s in self._pushed.items()
            if position in held.arrived
        ]
        if not took_s:
            return unknown(what, f"{len(self._pushed)} accepted, and no session came back for them{refused}")
        return ok(what, f"all {len(self._pushed)} arrived, each within {number(max(took_s) * 1000, 'ms')}{refused}")


def _end(stop: Stop) -> Finding:
    what = f"stop of {stop.node}"
    if stop.stayed:
        return ok(what, f"the connection stayed open, and went on at {stop.back}")
    moving = "moving came, and " if stop.moving_s is not None else ""
    if stop.end is None or stop.end_s is None:
        how = f"moving came, and the connection is still open {number(stop.away_s, 's')} later"
        return unknown(what, how, "its close is due within server.drain_s: watch for longer")
    after = "" if stop.moving_s is None else f" {number(stop.end_s - stop.moving_s, 's')} later"
    how = f"{moving}the connection was {stop.end}{after}"
    if stop.end.code in _RESTARTS:
        return ok(what, how if moving else f"no moving came, and {how}")
    if stop.end.code is None:
        return wrong(what, f"{how} (1006)", _CUT)
    if 4500 <= stop.end.code < 5000 or stop.end.code in (1000, 4009):
        return unknown(what, f"{how}, which is of no stop", "watch again")
    return wrong(what, how, f"a node that is stopped says 1012, an edge 1001: {_CUT}")


def _return(stop: Stop) -> Finding:
    what, took = f"return from {stop.node}", number(stop.away_s, "s")
    failed = f"; {stop.failed} failed before, the last with {stop.trouble}" if stop.failed else ""
    if stop.back is None:
        how = f"no handshake was taken within {took}: {stop.trouble}"
        return wrong(what, how, "start the node, or another that edge.upstreams names, before this one stops")
    how = f"a new handshake was taken within {took}, by {stop.back}{failed}"
    if stop.failed or stop.away_s > SLOW_S:
        return weak(
            what, how, "where another node is ready before this one stops, and edge.upstreams names it, none waits"
        )
    return ok(what, how)
