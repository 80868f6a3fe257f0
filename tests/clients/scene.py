"""Real clients of the libraries, a cutter, a real edge, two real nodes, a real Redis, and faults on a seeded schedule.

``await Scene(variant, seed, seconds, folder).run()`` raises AssertionError with every complaint; the schedule is in
``log``. ``python -m tests.clients.scene VARIANT SEED SECONDS`` does so from a shell."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from tests.brokers.server import RedisServer
from tests.clients.application import Application
from tests.clients.cutter import Cutter
from tests.clients.driver import Program
from tests.clients.libraries import JAVASCRIPT, PYTHON
from tests.edges.crowd import all_ready
from tests.edges.edge import DIRECT, NGINX, Stand
from tests.faults.ledger import Ledger, Push
from tests.support import Process, eventually, free_port, scaled

GROUPS = ["g0", "g1", "g2"]
RETENTION = 500
TROUBLE = (OSError, aiohttp.ClientError, TimeoutError)

FAULTS = {
    "reset": 4,
    "end": 3,
    "mute": 1,
    "reload_edge": 2,
    "restart_edge": 1,
    "stop_node": 2,
    "kill_node": 2,
    "pause_node": 1,
    "restart_redis": 1,
    "pause_client": 2,
    "sleep_client": 1,
}
OF_EDGE = ("reload_edge", "restart_edge")

SETTINGS: dict[str, Any] = {
    "BROKER__KIND": "redis",
    "HISTORY__MESSAGES": RETENTION,
    "HEARTBEAT__WEBSOCKET_PING_INTERVAL": 1,
    "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": 3,
    "SERVER__DRAIN_S": 2,
    "EDGE__PROBE_TIMEOUT_S": 1,
    "GROUPS": {"g*": {"publish": "members"}},
}


class Scene:
    """``every_s`` is the mean time between two faults, ``rate`` pushes per second in all; each application publishes
    besides. ``quiet_s`` is what everything has to come right again."""

    def __init__(
        self,
        variant: str,
        seed: int,
        seconds: float,
        folder: Path,
        *,
        javascript: int = 5,
        python: int = 3,
        faults: dict[str, int] | None = None,
        every_s: float = 1.2,
        rate: float = 40,
        quiet_s: float = 45,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.seed = seed
        self.log: list[str] = []
        self.done: dict[str, int] = {}
        self.ledger = Ledger()
        self._variant = variant
        self._seconds = seconds
        self._every_s = every_s
        self._rate = rate
        self._quiet_s = quiet_s
        self._faults = dict(FAULTS if faults is None else faults)
        if variant == DIRECT:
            for name in OF_EDGE:
                self._faults.pop(name, None)
        self._chance = random.Random(seed)
        self._redis = RedisServer(port=free_port(), appendonly="yes", appendfsync="always")
        self.stand = Stand(variant, nodes=2, **{**SETTINGS, "BROKER__URL": self._redis.url, **(settings or {})})
        libraries = [JAVASCRIPT] * javascript + [PYTHON] * python
        self._programs = {
            Application(f"c{n}", self._some_groups(), self.ledger): (library, folder / f"c{n}-errors")
            for n, library in enumerate(libraries)
        }
        self.applications = list(self._programs)
        self.pushing = True
        self._running: list[Program] = []
        self._old: list[Process] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._looker: asyncio.Task[None] | None = None
        self._session: Any = None

    def _some_groups(self) -> list[str]:
        return sorted(self._chance.sample(GROUPS, self._chance.choice([2, 3])))

    async def run(self) -> None:
        async with self:
            await self.play()
            await self.settle()

    async def __aenter__(self) -> Scene:
        """Everybody is connected, and pushes begin."""
        try:
            self._redis.start()
            await self.stand.begin()
            self.stand.provoked(".")
            ports = [node.public for node in self.stand.nodes] if self._variant == DIRECT else [self.stand.port]
            self.cutter = await Cutter(ports, random.Random(self._chance.random())).__aenter__()
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
            self.ledger.begin()
            url = f"ws://127.0.0.1:{self.cutter.port}/ws-notifications/"
            for application in self.applications:
                await self._begin(application, url)
            self._looker = asyncio.create_task(self._look())  # noqa: TID251
            await eventually(lambda: all(application.is_joined() for application in self.applications), 20)
            for number, group in enumerate(GROUPS):
                self._spawn(self._push(f"w{number}", group, random.Random(self._chance.random())))
            for application in self.applications:
                self._spawn(self._publish(application, random.Random(self._chance.random())))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in [*self._tasks, *([self._looker] if self._looker else [])]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for program in self._running:
            program.stop()
        if hasattr(self, "cutter"):
            await self.cutter.__aexit__()
        if self._session is not None:
            await self._session.close()
        self.stand.stop()
        self._redis.close()

    async def _begin(self, application: Application, url: str) -> None:
        library, errors = self._programs[application]
        with errors.open("wb") as file:
            program = Program(library.command(), file)
        self._running.append(program)
        await program.begin()
        application.begin(program, url)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)  # noqa: TID251
        self._tasks.append(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.ledger.complain(f"the runner failed: {error!r}")

    async def _look(self) -> None:
        while True:
            for application in self.applications:
                application.look()
            await asyncio.sleep(0.005)

    # What is pushed

    async def _push(self, name: str, group: str, chance: random.Random) -> None:
        """When so many are due, each until it was accepted, with its key."""
        begun_s, made = time.monotonic(), 0
        while self.pushing:
            await asyncio.sleep(begun_s + made * len(GROUPS) / self._rate - time.monotonic())
            await self._push_until_accepted(self.ledger.push(name, group), chance)
            made += 1

    async def _push_until_accepted(self, push: Push, chance: random.Random) -> None:
        headers = {"Idempotency-Key": f"k{push.id}"}
        while push.accepted_s is None:
            node = chance.choice(self.stand.nodes)
            url = f"http://127.0.0.1:{node.internal}/api/groups/{push.group}/push"
            self.ledger.asked(push)
            try:
                async with self._session.post(url, json={"data": push.data}, headers=headers) as answer:
                    body = await answer.json()
                if answer.status == 202:
                    self.ledger.accepted(push, (body["epoch"], body["offset"]))
                    return
                self.ledger.refused(push, str(body))
            except TROUBLE as exc:
                self.ledger.refused(push, repr(exc))
            await asyncio.sleep(0.05)

    async def _publish(self, application: Application, chance: random.Random) -> None:
        """One after the other: what becomes of it under faults is the library's affair."""
        while self.pushing:
            await asyncio.sleep(chance.uniform(0.2, 0.6))
            push = self.ledger.push(application.name, application.groups[-1])
            error = await application.publish(push)
            if error not in (None, "timeout", "broker_down"):
                self.ledger.complain(f"{application.name} published {push.id}: {error}")

    # Faults

    async def play(self) -> None:
        names, weights = list(self._faults), list(self._faults.values())
        end_s = time.monotonic() + self._seconds
        while names and (wait_s := self._chance.uniform(0.5, 1.5) * self._every_s) < end_s - time.monotonic():
            await asyncio.sleep(wait_s)
            (name,) = self._chance.choices(names, weights)
            self.done[name] = self.done.get(name, 0) + 1
            fault: Callable[[], Awaitable[None]] = getattr(self, f"_{name}")
            await fault()
        await asyncio.sleep(max(0, end_s - time.monotonic()))

    def say(self, text: str) -> None:
        self.log.append(f"{self.ledger.now_s():7.3f} {text}")

    def _some_links(self) -> list[Any]:
        links = self.cutter.links
        return self._chance.sample(links, self._chance.randint(min(1, len(links)), min(4, len(links))))

    async def _reset(self) -> None:
        links = self._some_links()
        self.say(f"reset {len(links)} connections")
        for link in links:
            link.reset()

    async def _end(self) -> None:
        links = self._some_links()
        self.say(f"end {len(links)} connections")
        for link in links:
            link.end()

    async def _mute(self) -> None:
        self.say("one connection goes mute")
        for link in self._some_links()[:1]:
            link.mute = True

    async def _reload_edge(self) -> None:
        self.say("reload the edge")
        self.stand.edge.process.signal(signal.SIGHUP)

    async def _restart_edge(self) -> None:
        number = self._chance.choice([signal.SIGQUIT, signal.SIGTERM, signal.SIGKILL])
        self.say(f"end the edge by {number.name}")
        edge = self.stand.edge
        edge.process.signal(number)
        if number is signal.SIGKILL:
            edge.process.kill()
        await edge.process.ended()
        for left_behind in (edge.folder / "run").glob("*.sock"):  # as docs/operations.md says, before nginx starts
            left_behind.unlink()
        await asyncio.sleep(self._chance.uniform(0, 0.5))
        edge.process = Process(
            NGINX, "-e", "stderr", "-c", edge.file, "-g", "daemon off;", folder=edge.folder / "run", cwd=edge.folder
        )
        await edge.ready()
        assert edge.process.exit_code is None, edge.process

    async def _stop_node(self) -> None:
        """It drains, and comes back."""
        node = self._chance.choice(self.stand.nodes)
        self.say(f"stop {node.name}")
        await node.process.stop(30)
        await self._start(node)

    async def _kill_node(self) -> None:
        node = self._chance.choice(self.stand.nodes)
        self.say(f"kill {node.name}")
        node.process.kill()
        await asyncio.sleep(self._chance.uniform(0, 0.5))
        await self._start(node)

    async def _start(self, node: Any) -> None:
        self._old.append(node.process)
        node.start()
        await all_ready(self.stand.nodes)

    async def _pause_node(self) -> None:
        node, pause_s = self._chance.choice(self.stand.nodes), self._chance.uniform(0.5, 5)
        self.say(f"pause {node.name} for {pause_s:.1f} s")
        node.process.signal(signal.SIGSTOP)
        await asyncio.sleep(pause_s)
        node.process.signal(signal.SIGCONT)

    async def _restart_redis(self) -> None:
        self.say("restart Redis")
        self._redis.kill()
        await asyncio.sleep(self._chance.uniform(0, 1))
        await asyncio.to_thread(self._redis.start)

    async def _pause_client(self) -> None:
        """So short that the gateway does not mind, so long that its own timers are late."""
        await self._let_sleep(2.5)

    async def _sleep_client(self) -> None:
        """Until the gateway has given it up."""
        await self._let_sleep(6)

    async def _let_sleep(self, seconds: float) -> None:
        application = self._chance.choice(self.applications)
        self.say(f"{application.name} does not run for {seconds} s")
        await application.sleep(seconds)

    # End

    async def settle_pushes(self) -> None:
        """No more of them, and everybody has been told of all."""
        self.pushing = False
        await asyncio.wait_for(asyncio.gather(*self._tasks), scaled(self._quiet_s))
        await eventually(lambda: not self._waiting(), self._quiet_s)

    def _waiting(self) -> list[Push]:
        return [
            push
            for push in self.ledger.pushes
            for application in self.applications
            if push.accepted_s is not None and push.group in application.groups and push.id not in application.heard_s
        ]

    def slowest_s(self) -> float:
        """From when a push was accepted, at most, until each application was told."""
        return max(
            application.heard_s[push.id] - self.ledger.begun_s - push.accepted_s
            for push in self.ledger.pushes
            for application in self.applications
            if push.accepted_s is not None and push.id in application.heard_s
        )

    async def settle(self) -> None:
        """Faults are over: everything comes right by itself, and then is looked at."""
        ledger = self.ledger
        self.pushing = False
        try:
            await all_ready(self.stand.nodes)
            await asyncio.wait_for(asyncio.gather(*self._tasks), scaled(self._quiet_s))
            for group in GROUPS:
                await self._push_until_accepted(ledger.push("last", group), self._chance)
            journals = {f"group:{group}": await self._journal(group) for group in GROUPS}
        except (AssertionError, TimeoutError) as exc:
            ledger.complain(f"did not come right: {exc!r}")
            journals = {}
        processes = [node.process for node in self.stand.nodes] + self._old
        if any(process.logged("redis.went_back") for process in processes):
            ledger.resets_allowed_s.append(ledger.now_s())
        records = [application.record for application in self.applications]
        tops = {stream: top for stream, (top, _) in journals.items()}

        def behind() -> list[str]:
            return [
                f"{record.name} {stream} {told.epoch}/{told.offset} of {tops[stream]}"
                for record in records
                for stream, told in record.told.items()
                if stream in tops and (told.epoch, told.offset) != tops[stream]
            ]

        with contextlib.suppress(AssertionError):
            await eventually(lambda: not behind(), self._quiet_s)
        ledger.wrong += [f"deaf: {text}" for text in behind()]
        for record in records if journals else []:
            offsets = {stream: offset for stream, (_, offset) in tops.items()}
            record.settle(RETENTION, offsets, {stream: ids for stream, (_, ids) in journals.items()})
        for application in self.applications:
            ledger.wrong += application.wrong
            if text := self._programs[application][1].read_text(errors="replace"):
                ledger.complain(f"{application.name} wrote to its standard error: {text[-2000:]}")
        for process in processes:
            ledger.wrong += [f"logged: {line}" for line in process.lines() if '"level":"error"' in line]
        if ledger.wrong:
            states = [f"{it.name} {it.states[-8:]}" for it in self.applications]
            head = f"{self._variant}, seed {self.seed}: {len(ledger.wrong)} complaints"
            raise AssertionError("\n".join([head, *ledger.wrong[:20], *self.log, *states]))

    async def _journal(self, group: str) -> tuple[tuple[str, int], set[int]]:
        """Its top, and the ids of all that it still holds."""
        answer = await self.stand.node.call("GET", f"/api/groups/{group}/history?limit=1000")
        body = answer.json
        return (body["epoch"], body["top"]), {message["data"]["id"] for message in body["messages"]}

    def deliveries(self) -> int:
        return sum(len(told.heard) for it in self.applications for told in it.record.told.values())


async def _main(variant: str, seed: int, seconds: float) -> None:
    folder = Path(tempfile.mkdtemp(prefix="tidegate-scene-"))
    scene = Scene(variant, seed, seconds, folder)
    try:
        await scene.run()
        shutil.rmtree(folder)
    finally:
        print(f"{variant}, seed {seed}: {scene.deliveries()} deliveries, faults {scene.done}, {folder}")
        print("\n".join(scene.log))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
