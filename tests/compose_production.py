"""What ``tools/compose_production_test.sh`` asks of compose.production.yaml's containers: ``python -m
tests.compose_production VARIANT``. Ends with an AssertionError where something is not as docs/deploying.md says."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import jwt

from tests.compose_session import HANDSHAKE, PATH, Session, compose, docker, log_of, patiently

URL = f"wss://localhost:8443{PATH}"
NODES = ("node1", "node2", "node3")
CODE = "import urllib.request as r; r.urlopen('http://127.0.0.1:8001/readyz', timeout=2)"


def secret(name: str) -> str:
    return Path(os.environ["TIDEGATE_SECRETS"], name).read_text().strip()


def bearer(**claims: Any) -> dict[str, str]:
    token = jwt.encode({"sub": "alice", "exp": time.time() + 600, **claims}, secret("tokens"), "HS256")
    return {"Authorization": f"Bearer {token}"}


async def main(variant: str) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # self-signed, for this run
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector) as http:
        await closed(http)
        await pushed(http)
        print(f"compose: production: {variant}: tokens, keys and TLS let in who has them, and nobody else")
        await one_after_the_other(http, variant)
        print(f"compose: production: {variant}: each node was replaced, and nothing was lost")
        if variant == "openresty":
            kept()
            await comes_back(http)
            hung_up()
            print("compose: production: Redis wants its password, who ends is started anew, SIGHUP reads keys again")
    stops()
    print(f"compose: production: {variant}: a stop ends all with 0")


async def closed(http: aiohttp.ClientSession) -> None:
    """Nothing that is open in compose.yaml is open here."""
    for headers, status in (({}, 401), ({"Host": "evil.example"} | bearer(), 403)):
        async with http.get(f"https{URL[3:]}", headers=HANDSHAKE | headers) as answer:
            assert answer.status == status, (answer.status, await answer.text())
    async with http.post("http://127.0.0.1:8001/api/all/push", json={"data": 1}) as answer:
        assert answer.status == 401
    published = {
        port["PublishedPort"]: port["URL"]
        for line in compose("ps", "--format", "json").splitlines()
        for port in json.loads(line)["Publishers"]
        if port["PublishedPort"]
    }
    assert published == dict.fromkeys((8001, 8002, 8003, 8443), "127.0.0.1")


async def pushed(http: aiohttp.ClientSession) -> None:
    """By one node, to a client of each."""
    seen = set()
    for _ in range(12):
        async with http.ws_connect(URL, headers=bearer()) as socket:
            alice = await Session(socket).welcome()
            seen.add(alice.node.partition(".")[0])
            await _push(http, "alice", len(seen))
            assert (await alice.event())["data"] == len(seen)
    assert len(seen) > 1, seen


async def _push(http: aiohttp.ClientSession, client: str, data: Any, port: int = 8001) -> None:
    headers = {"Authorization": f"Bearer {secret('api')}"}
    url = f"http://127.0.0.1:{port}/api/clients/{client}/push"
    async with http.post(url, json={"data": data}, headers=headers) as answer:
        assert answer.status == 202, await answer.text()


async def one_after_the_other(http: aiohttp.ClientSession, variant: str) -> None:
    """An upgrade as the page says it. With trunks a client keeps its connection; else it comes back with its cursor."""
    before = {node: _id(node) for node in NODES}
    socket = await http.ws_connect(URL, headers=bearer(sub="bob"))
    bob = await Session(socket).welcome()
    cursor, connections, got = "", 1, []
    ended = False

    async def read() -> None:
        nonlocal bob, socket, cursor, connections
        while not ended:
            message = await socket.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                event = json.loads(message.data)
                if event["type"] == "message":
                    got.append(event["data"])
                elif event["type"] == "pong":
                    cursor = event["cursor"]
            elif not ended:
                connections += 1
                socket = await http.ws_connect(f"{URL}?cursor={cursor}", headers=bearer(sub="bob"))

    async def write() -> None:
        number = 0
        while not ended:
            for port in (8001, 8002, 8003):
                try:
                    await _push(http, "bob", number, port)
                    break
                except aiohttp.ClientError:
                    continue  # the one that is being replaced
            else:
                raise AssertionError("no node took it")
            number += 1
            await asyncio.sleep(0.1)

    await bob.say('{"type":"ping","id":0}')  # the cursor to come back with
    async with asyncio.TaskGroup() as tasks:
        reading, writing = tasks.create_task(read()), tasks.create_task(write())
        for node in NODES:
            arguments = ("up", "--detach", "--no-deps", "--wait", "--force-recreate", node)
            await asyncio.to_thread(compose, *arguments)
        ended = True
        await writing
        await asyncio.sleep(0.5)
        await socket.close()
        await asyncio.wait_for(reading, 5)
    assert {node: _id(node) for node in NODES}.items().isdisjoint(before.items())
    assert connections == 1 or variant != "openresty", f"{connections} connections"
    assert len(got) > 20
    assert list(dict.fromkeys(got)) == list(range(len(set(got)))), got  # its cursor is of the beginning: they repeat


def _id(service: str) -> str:
    return compose("ps", "--quiet", service).strip()


def kept() -> None:
    """Redis asks for its password; what holds a secret is in no environment and on no command line."""
    said = compose("exec", "-T", "redis", "redis-cli", "dbsize")
    assert "NOAUTH" in said
    for service in ("redis", "init", *NODES):
        (container,) = compose("ps", "--all", "--quiet", service).split()
        told = docker("inspect", container)
        assert not [name for name in ("tokens", "api", "redis") if secret(name) in told], service
    limits = docker("inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}", _id("node1")).split()
    assert limits == [str(2 * 2**30), "1500000000"]


async def comes_back(http: aiohttp.ClientSession) -> None:
    """A node that ends by itself is there again, and takes its socket."""
    container = _id("node2")
    started = docker("inspect", "--format", "{{.State.StartedAt}}", container)
    compose("exec", "-T", "node2", "python", "-c", "import os; os.kill(1, 2)")

    async def again() -> bool:
        state = docker("inspect", "--format", "{{.State.StartedAt}} {{.State.Health.Status}}", container)
        return started.strip() not in state and "healthy" in state.split()

    await patiently(again)
    compose("exec", "-T", "node2", "python", "-c", CODE)


def hung_up() -> None:
    compose("kill", "--signal", "HUP", *NODES)
    deadline = time.monotonic() + 10
    while not all("settings.read" in log_of(_id(node)) for node in NODES):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def stops() -> None:
    begun_s = time.monotonic()
    subprocess.run(["docker", "compose", "stop"], check=True, capture_output=True)
    assert time.monotonic() - begun_s < 40
    codes = {}
    for container in compose("ps", "--all", "--quiet").split():
        name, code = docker("inspect", "--format", "{{.Name}} {{.State.ExitCode}}", container).split()
        codes[re.sub(r"^/tidegate-production-test-|-1$", "", name)] = code
    assert set(codes.values()) == {"0"}, codes


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
