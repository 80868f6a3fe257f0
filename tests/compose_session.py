"""What ``tools/compose_test.sh`` asks of running containers: ``python -m tests.compose_session VARIANT NODES``. Ends
with an AssertionError where something is not as it should be."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import re
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp

PATH = "/ws-notifications/"
WS, WSS = f"ws://127.0.0.1:8080{PATH}", f"wss://127.0.0.1:8443{PATH}"
LIMIT_S = 60.0
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
# An edge learns within 2 s that a container has gone, and until then may ask it in vain.
PROVOKED = "Host is unreachable|Connection refused|Operation timed out|upstream timed out|no live upstreams"
# A node that is killed with something unread ends its trunks so.
KILLED = r"(recv|send|writev)\(\) failed \((104: Connection reset by peer|32: Broken pipe)\), context: ngx.timer"


def docker(*args: str, text: str = "") -> str:
    """What it prints; ``text`` is what it reads."""
    done = subprocess.run(["docker", *args], input=text, capture_output=True, text=True)
    assert done.returncode == 0, f"docker {' '.join(args)}: {done.stderr}"
    return done.stdout


def log_of(container: str) -> str:
    done = subprocess.run(["docker", "logs", container], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout


def compose(*args: str, text: str = "") -> str:
    return docker("compose", "--profile", "*", *args, text=text)


class Session:
    """A client's WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.node = ""  # from the welcome

    async def is_there(self) -> bool:
        with contextlib.suppress(AssertionError, ConnectionError):
            return bool((await self.ask(type="ping", id=1))["type"] == "pong")
        return False

    async def welcome(self) -> Session:
        self.node = (await self.event())["node"]
        return self

    async def close(self) -> None:
        await self._socket.close()

    async def ended(self) -> int | None:
        """The close code that comes, 1006 without one."""
        while not self._socket.closed:
            await self._socket.receive(timeout=LIMIT_S)
        return self._socket.close_code

    async def event(self) -> Any:
        message = await self._socket.receive(timeout=LIMIT_S)
        assert message.type == aiohttp.WSMsgType.TEXT, message
        return json.loads(message.data) if message.data.startswith("{") else message.data

    async def ask(self, **command: Any) -> Any:
        await self._socket.send_json(command)
        while (event := await self.event()).get("id") != command["id"]:
            pass
        return event

    async def say(self, text: str) -> None:
        await self._socket.send_str(text)


async def patiently(condition: Callable[[], Awaitable[Any]]) -> Any:
    """The first truthy value."""
    deadline = time.monotonic() + LIMIT_S
    while not (value := await condition()):
        assert time.monotonic() < deadline, f"not within {LIMIT_S:g} s"
        await asyncio.sleep(0.2)
    return value


async def main(variant: str, nodes: int) -> None:
    api = "http://127.0.0.1:8001"  # also after a restart
    if nodes > 1:
        api = "http://" + compose("port", "service", "8001").strip()  # one of 8001 to 8010
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # self-signed, by init
    async with aiohttp.ClientSession() as http:
        for url in (WS, WSS):
            async with http.ws_connect(f"{url}?client=alice&groups=news", ssl=context) as socket:
                await one_session(http, Session(socket), api)
            print(f"compose: {variant}: a session over {url.partition(':')[0]}")
        await refusals(http)
        if nodes == 1:
            settings_agree(variant)
            await counted(http, variant)
            await reload(http, variant)
            await again(http)
            print(f"compose: {variant}: check finds nothing, metrics count, a reload and a killed node are survived")
        await spread(http, nodes, api)
        print(f"compose: {variant}: sessions on {nodes} node(s)")
        if variant == "openresty":
            await trunked(variant)
        if nodes > 1:
            await fewest(http, nodes)
            await drain(http)
            print(f"compose: {variant}: the node with the fewest is next, a draining one is passed over")
            await hang(http)
            await kill(http, variant)
            await without_redis(http)
            print(f"compose: {variant}: nodes that hang, die or lose Redis are passed over, and forgiven")
        if nodes > 1 and variant == "openresty":
            await stop(http, context, variant)
            print(f"compose: {variant}: a stop says 1001 to all")
    log = compose("logs", "--no-color", "--no-log-prefix", variant)
    bad = [line for line in log.splitlines() if re.search(r"\[(error|crit|alert|emerg)\]", line)]
    bad = [line for line in bad if not re.search(f"{KILLED}|{PROVOKED}", line)]
    assert bad == [], bad
    closed = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert any(line["client"] == "alice" and line["status"] == 101 for line in closed)
    assert "config.unsafe" in compose("logs", "--no-color", "service")  # the trial settings are warned about


async def one_session(http: aiohttp.ClientSession, alice: Session, api: str) -> None:
    assert (await alice.event())["type"] == "welcome"
    async with http.post(f"{api}/api/clients/alice/push", json={"data": {"n": 1}}) as answer:
        assert answer.status == 202, await answer.text()
    assert (await alice.event())["data"] == {"n": 1}
    entry = ("XADD", "tidegate:push", "*", "group", "news", "data", '{"n":2}')
    compose("exec", "-T", "redis", "redis-cli", *entry)
    pushed = await alice.event()
    assert (pushed["stream"], pushed["data"]) == ("group:news", {"n": 2})
    reply = await alice.ask(type="call", id=1, method="echo", data={"big": 2**70})
    assert (reply["status"], reply["data"]) == (200, {"big": 2**70})
    await alice.say("ping")
    assert await alice.event() == "pong"


async def refusals(http: aiohttp.ClientSession) -> None:
    for path in ("/", "/metrics", "/api/nodes"):
        async with http.get(f"http://127.0.0.1:8080{path}") as answer:
            assert answer.status == 404, path


def settings_agree(variant: str) -> None:
    """What nginx says that it runs, held against what the service runs with."""
    nginx = "openresty" if variant == "openresty" else "nginx"
    dump = compose("exec", "-T", variant, nginx, "-T", "-e", "stderr", "-c", f"/edge/conf.d/{variant}.conf")
    said = compose("exec", "-T", "service", "python", "-m", "tidegate", "check", "--nginx-dump", "-", text=dump)
    assert said.endswith("nginx: ok\n"), said


async def counted(http: aiohttp.ClientSession, variant: str) -> None:
    """What ``/metrics`` of the edge says of two live WebSockets, and of the calls and heartbeats so far."""
    writing = 'tidegate_edge_connections{variant="plain",state="writing"} 3\n'  # one is the request that asks

    async def two() -> bool:
        return (writing if variant == "plain" else "tidegate_edge_websockets 2\n") in _metrics(variant)

    async with sessions(http, 2):
        await patiently(two)
    if variant != "plain":
        for text in [_metrics(variant) for _ in range(10)]:
            for counter in ('calls_total{outcome="reply"}', "heartbeats_total"):
                assert f"\ntidegate_edge_{counter} 2\n" in text, (counter, text)
            assert re.search(r'\ntidegate_edge_responses_total{status="101"} [1-9]', text), text


async def trunked(variant: str) -> None:
    """Workers add what they count to the common numbers once in a second: a trunk that is just up is not seen yet."""

    async def has_one() -> bool:
        return re.search(r"\ntidegate_edge_trunks [1-9]", _metrics(variant)) is not None

    await patiently(has_one)


def _metrics(variant: str) -> str:
    return compose("exec", "-T", variant, "wget", "-q", "-O", "-", "http://127.0.0.1:8081/metrics")


async def reload(http: aiohttp.ClientSession, variant: str) -> None:
    """New sessions are taken all the time; old ones go on for a while, and with openresty hear 1001."""
    async with sessions(http, 3) as old:
        compose("kill", "--signal", "HUP", variant)
        for _ in range(10):
            async with sessions(http, 1):
                await asyncio.sleep(0.1)
        if variant == "openresty":
            assert await ends(old) == [1001] * 3
        else:
            assert [(await session.ask(type="ping", id=1))["type"] for session in old] == ["pong"] * 3


async def again(http: aiohttp.ClientSession) -> None:
    """A node that was killed left its socket behind, and takes it again."""
    container = compose("ps", "--quiet", "service").strip()
    docker("kill", container)
    docker("start", container)
    await patiently(lambda: _is_healthy(container))
    async with sessions(http, 1):
        pass


async def spread(http: aiohttp.ClientSession, nodes: int, api: str) -> None:
    """Sessions reach ``nodes`` nodes, once the edge has found them, and what one missed another has."""
    seen: set[str] = set()

    async def reached() -> bool:
        async with http.ws_connect(f"{WS}?client=bob") as one:
            seen.add((await Session(one).event())["node"])
            async with http.ws_connect(f"{WS}?client=bob") as other:
                seen.add((await Session(other).event())["node"])
        return len(seen) == nodes

    await patiently(reached)
    async with http.ws_connect(f"{WS}?client=carol") as socket:
        carol = Session(socket)
        first = (await carol.event())["node"]
        cursor = (await carol.ask(type="ping", id=1))["cursor"]
    async with http.post(f"{api}/api/clients/carol/push", json={"data": "missed"}) as answer:
        assert answer.status == 202, await answer.text()

    async def elsewhere() -> bool:
        async with http.ws_connect(f"{WS}?client=carol&cursor={cursor}") as socket:
            carol = Session(socket)
            welcome = await carol.event()
            assert (await carol.event())["data"] == "missed"
            return nodes == 1 or welcome["node"] != first

    await patiently(elsewhere)


@contextlib.asynccontextmanager
async def sessions(
    http: aiohttp.ClientSession, number: int, urls: tuple[str, ...] = (WS,), **more: Any
) -> AsyncIterator[list[Session]]:
    """So many at once, one after the other, over each of ``urls`` in turn."""
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for n in range(number):
            url = f"{urls[n % len(urls)]}?client=dave{n}"
            found.append(await Session(await stack.enter_async_context(http.ws_connect(url, **more))).welcome())
        yield found


async def ends(live: list[Session]) -> list[int | None]:
    """The close codes that come. All are read at once: a client that does not answer its close frame is cut after 6 s,
    and then has no code to show."""
    return await asyncio.gather(*(session.ended() for session in live))


async def fewest(http: aiohttp.ClientSession, nodes: int) -> None:
    """Two sessions on each node; both of one node end; the next two go there. In turn they would go to two nodes."""

    async def both() -> bool:
        async with sessions(http, 2 * nodes) as first:
            counts = collections.Counter(session.node for session in first)
            if set(counts.values()) != {2}:
                return False  # the edge has not seen all earlier ones end
            emptied = first[-1].node
            for session in first:
                if session.node == emptied:
                    await session.close()
            await asyncio.sleep(0.2)
            async with sessions(http, 2) as then:
                return {session.node for session in then} == {emptied}

    await patiently(both)


async def drain(http: aiohttp.ClientSession) -> None:
    """While a node drains, and has the fewest connections, every handshake is taken by another, at once. When it is
    back, the edge finds it at its new address."""
    container = compose("ps", "--quiet", "service").split()[0]
    async with sessions(http, 6) as before:
        stopped = asyncio.to_thread(docker, "stop", "--timeout", "30", container)
        (draining, names), _ = await asyncio.gather(_meanwhile(http, container), stopped)
    assert draining in {session.node for session in before}
    assert draining not in names, (draining, names)
    assert len(set(names)) == 2, names
    docker("start", container)

    async def back() -> bool:
        async with sessions(http, 3) as after:
            return len({session.node for session in after}) == 3

    await patiently(back)


async def hang(http: aiohttp.ClientSession) -> None:
    """While a node hangs, one handshake at a time waits for it, and no longer than ``edge.probe_timeout_s``."""
    container = compose("ps", "--quiet", "service").split()[0]
    async with sessions(http, 6) as before:
        docker("pause", container)
        try:
            waited_s = []
            for _ in range(6):
                begun_s = time.monotonic()
                async with sessions(http, 1):
                    waited_s.append(time.monotonic() - begun_s)
        finally:
            docker("unpause", container)
        assert max(waited_s) < 4, waited_s
        assert len([waited for waited in waited_s if waited > 1]) <= 3, waited_s
        await evenly(http, before)


async def kill(http: aiohttp.ClientSession, variant: str) -> None:
    """A node that was killed costs nobody more than a moment, and gets its share when it is back. Behind an edge with
    trunks its clients are elsewhere then."""
    container = compose("ps", "--quiet", "service").split()[0]
    async with sessions(http, 6) as before:
        docker("kill", container)
        for _ in range(4):
            async with sessions(http, 1):
                pass
        docker("start", container)
        await patiently(lambda: _is_healthy(container))
        there = [session for session in before if await session.is_there()]
        assert len(there) == len(before) or variant != "openresty"
        await evenly(http, there)


async def without_redis(http: aiohttp.ClientSession) -> None:
    """While Redis is away clients hear 503; when it is back all get in."""
    containers = compose("ps", "--quiet", "service").split()
    redis = compose("ps", "--quiet", "redis").strip()
    async with sessions(http, 6) as before:
        docker("pause", redis)
        try:
            begun_s, refused = time.monotonic(), []
            while time.monotonic() - begun_s < 10:
                async with http.get(f"http{WS[2:]}?client=late", headers=HANDSHAKE) as answer:
                    refused.append(answer.status)
                await asyncio.sleep(0.5)
        finally:
            docker("unpause", redis)
        assert set(refused) <= {503}, refused
        await patiently(lambda: _is_healthy(*containers))
        await evenly(http, before)


async def _is_healthy(*containers: str) -> bool:
    return set(docker("inspect", "--format", "{{.State.Health.Status}}", *containers).split()) == {"healthy"}


async def evenly(http: aiohttp.ClientSession, before: list[Session]) -> None:
    """Within 3 s everybody gets in, and nodes have numbers within a factor of two, those of before with them."""
    await asyncio.sleep(3)  # this is what is promised
    async with sessions(http, 30):

        async def counted() -> list[int]:
            counts = await _connections(http)
            return counts if sum(counts) >= 30 + len(before) else []

        counts = await patiently(counted)
        assert len(counts) == 3, counts
        assert max(counts) <= 2 * min(counts), counts


async def _connections(http: aiohttp.ClientSession) -> list[int]:
    """How many each node has. A client does not notice that it is at another one."""
    async with http.get("http://" + compose("port", "service", "8001").strip() + "/api/nodes") as answer:
        return [node["connections"] for node in (await answer.json())["nodes"]]


async def _meanwhile(http: aiohttp.ClientSession, container: str) -> tuple[str, list[str]]:
    """The node that drains, and where new sessions go meanwhile."""

    async def begun() -> str:
        lines = [json.loads(line) for line in log_of(container).splitlines() if "drain.started" in line]
        return str(lines[-1]["node"]) if lines else ""

    draining = await patiently(begun)
    names = []
    for _ in range(4):
        async with sessions(http, 5) as late:
            names += [session.node for session in late]
    assert "service.stopped" not in log_of(container), "too slow: it has ended"
    return draining, names


async def stop(http: aiohttp.ClientSession, context: ssl.SSLContext, variant: str) -> None:
    """As `docker compose stop` does it, every client hears 1001."""
    async with sessions(http, 20, (WS, WSS), ssl=context) as live:
        codes, _ = await asyncio.gather(ends(live), asyncio.to_thread(compose, "stop", variant))
    assert codes == [1001] * 20, codes


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
