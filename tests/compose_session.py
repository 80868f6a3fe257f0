"""What ``tools/compose_test.sh`` asks of running containers: ``python -m tests.compose_session VARIANT NODES``. Ends
with an AssertionError where something is not as it should be."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

PATH = "/ws-notifications/"
LIMIT_S = 60.0


def compose(*args: str) -> str:
    done = subprocess.run(["docker", "compose", "--profile", "*", *args], capture_output=True, text=True)
    assert done.returncode == 0, f"docker compose {' '.join(args)}: {done.stderr}"
    return done.stdout


class Session:
    """A client's WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

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
    api = "http://" + compose("port", "service", "8001").strip()  # one of 8001 to 8010
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # self-signed, by init
    async with aiohttp.ClientSession() as http:
        for url in (f"ws://127.0.0.1:8080{PATH}", f"wss://127.0.0.1:8443{PATH}"):
            async with http.ws_connect(f"{url}?client=alice&groups=news", ssl=context) as socket:
                await one_session(http, Session(socket), api)
            print(f"compose: {variant}: a session over {url.partition(':')[0]}")
        await refusals(http)
        await spread(http, nodes, api)
        print(f"compose: {variant}: sessions on {nodes} node(s)")
    log = compose("logs", "--no-color", "--no-log-prefix", variant)
    bad = [line for line in log.splitlines() if re.search(r"\[(error|crit|alert|emerg)\]", line)]
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


async def spread(http: aiohttp.ClientSession, nodes: int, api: str) -> None:
    """Sessions reach ``nodes`` nodes, once the edge has found them, and what one missed another has."""
    seen: set[str] = set()

    async def reached() -> bool:
        async with http.ws_connect(f"ws://127.0.0.1:8080{PATH}?client=bob") as one:
            seen.add((await Session(one).event())["node"])
            async with http.ws_connect(f"ws://127.0.0.1:8080{PATH}?client=bob") as other:
                seen.add((await Session(other).event())["node"])
        return len(seen) == nodes

    await patiently(reached)
    async with http.ws_connect(f"ws://127.0.0.1:8080{PATH}?client=carol") as socket:
        carol = Session(socket)
        first = (await carol.event())["node"]
        cursor = (await carol.ask(type="ping", id=1))["cursor"]
    async with http.post(f"{api}/api/clients/carol/push", json={"data": "missed"}) as answer:
        assert answer.status == 202, await answer.text()

    async def elsewhere() -> bool:
        async with http.ws_connect(f"ws://127.0.0.1:8080{PATH}?client=carol&cursor={cursor}") as socket:
            carol = Session(socket)
            welcome = await carol.event()
            assert (await carol.event())["data"] == "missed"
            return nodes == 1 or welcome["node"] != first

    await patiently(elsewhere)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
