"""What ``tools/systemd_test.sh`` asks in its Debian, where beside the wheel's own packages there is nothing:
``session.py works|upgrade|faults VARIANT``. Ends with an AssertionError where something is not as the page says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import jwt

URL = "wss://localhost/ws-notifications/"
NODES = ("1", "2")
SECRETS = Path("/etc/tidegate/secrets")
DONE = Path("/root/done")
EDGE_LOG = "/var/log/tidegate/edge.log"


def bearer(client: str) -> dict[str, str]:
    claims = {"sub": client, "exp": time.time() + 600}
    return {"Authorization": f"Bearer {jwt.encode(claims, text(SECRETS / 'tokens'), 'HS256')}"}


def session() -> aiohttp.ClientSession:
    context = ssl.create_default_context(cafile="/etc/tidegate/tls/fullchain.pem")
    context.check_hostname = False
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))


async def push(http: aiohttp.ClientSession, client: str, data: Any, node: str) -> bool:
    headers = {"Authorization": f"Bearer {text(SECRETS / 'api')}"}
    with contextlib.suppress(aiohttp.ClientError):
        url = f"http://127.0.0.1:800{node}/api/clients/{client}/push"
        async with http.post(url, json={"data": data}, headers=headers) as answer:
            return answer.status == 202
    return False


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def unit(name: str, what: str) -> str:
    return run("systemctl", "show", "--value", f"--property={what}", name)


def journal(name: str) -> str:
    return run("journalctl", "-u", name, "-o", "cat")


def text(path: str | Path) -> str:
    return Path(path).read_text().strip()


def is_done() -> bool:
    return DONE.exists()


async def works(variant: str) -> None:
    seen = set()
    async with session() as http:
        for number in range(12):
            async with http.ws_connect(URL, headers=bearer("alice")) as socket:
                seen.add((await socket.receive_json())["node"].partition(".")[0])
                assert await push(http, "alice", number, NODES[number % 2])
                assert (await socket.receive_json())["data"] == number
        async with http.get(f"https{URL[3:]}?client=alice") as answer:
            assert answer.status in (401, 426), answer.status
    assert seen == {"tidegate-1", "tidegate-2"}, seen
    tidegate = pwd.getpwnam("tidegate").pw_uid
    for node in NODES:
        pid = unit(f"tidegate@{node}", "MainPID")
        status = text(f"/proc/{pid}/status")
        assert f"Uid:\t{tidegate}\t" in status
        assert "CapEff:\t0000000000000000" in status
        assert "Seccomp:\t2" in status
        found = os.stat(f"/run/tidegate/{node}/node.sock")
        assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o660, tidegate, pwd.getpwnam("www-data").pw_gid)
    closed = [json.loads(line) for line in text(EDGE_LOG).splitlines()]
    assert closed[-1]["client"] in ("alice", ""), closed[-1]
    print(
        f"systemd: {variant}: clients of both nodes get what is pushed; nodes have no rights, and two sockets for nginx"
    )


async def upgrade(variant: str) -> None:
    """A client that knows `moving` and cursors, and what it hears while nodes and nginx are replaced."""
    got: list[int] = []
    cursor, connections, moved, cut = "", 0, 0, 0
    async with session() as http, asyncio.TaskGroup() as tasks:

        async def connect() -> aiohttp.ClientWebSocketResponse:
            nonlocal connections
            connections += 1
            socket = await http.ws_connect(URL + (f"?cursor={cursor}" if cursor else ""), headers=bearer("bob"))
            welcome = await socket.receive_json()
            assert connections == 1 or welcome["streams"]["client:bob"]["recovered"], welcome
            return socket

        async def write() -> int:
            number = 0
            while not is_done():
                number += await push(http, "bob", number, "1") or await push(http, "bob", number, "2")
                await asyncio.sleep(0.05)
            return number

        socket = await connect()
        print("connected", flush=True)
        writing = tasks.create_task(write())
        while not writing.done() or len(set(got)) < writing.result():
            await socket.send_str('{"type":"ping","id":1}')
            message = await socket.receive(timeout=20)
            if message.type is not aiohttp.WSMsgType.TEXT:
                cut += message.type is not aiohttp.WSMsgType.CLOSE or message.data not in (1001, 1012)
                socket = await connect()
                continue
            event = json.loads(message.data)
            if event["type"] == "pong":
                cursor = event["cursor"]
            elif event["type"] == "message":
                got.append(event["data"])
            elif event["type"] == "gap":
                raise AssertionError(event)
            elif event["type"] == "moving":
                moved += 1
                old, socket = socket, await connect()
                await old.close()
        await socket.close()
    assert list(dict.fromkeys(got)) == list(range(len(set(got)))), got
    for node in NODES:
        assert ".post1" in journal(f"tidegate@{node}"), f"node {node} runs the old one"
    assert (moved, cut) == (connections - 1, 0) or variant == "openresty", f"{connections} connections, {moved} moved"
    told = f"{len(set(got))} pushes in an upgrade: all heard, no gap"
    print(f"systemd: {variant}: {told}, {connections} connections, {moved} moved, {cut} cut")


async def faults(variant: str) -> None:
    """A node that is killed, or hangs, is started anew; a reload reads keys again."""
    before = unit("tidegate@1", "MainPID")
    os.kill(int(before), signal.SIGKILL)
    await until(lambda: unit("tidegate@1", "ActiveState") == "active" and unit("tidegate@1", "MainPID") != before)
    before = unit("tidegate@2", "MainPID")
    os.kill(int(before), signal.SIGSTOP)
    await until(lambda: unit("tidegate@2", "ActiveState") == "active" and unit("tidegate@2", "MainPID") != before)
    run("systemctl", "reload", "tidegate@1", "tidegate@2")
    await until(lambda: "settings.read" in journal("tidegate@2"))
    run("systemctl", "start", "tidegate-forward-events")
    await until(lambda: "events.delayed" in journal("tidegate-forward-events"))  # nobody is there to take them
    run("logrotate", "--force", "/etc/logrotate.d/tidegate")
    async with session() as http:
        async with http.ws_connect(URL, headers=bearer("alice")) as socket:
            assert (await socket.receive_json())["type"] == "welcome"
    await until(lambda: '"alice"' in text(EDGE_LOG))
    print(f"systemd: {variant}: who is killed or hangs is back; SIGHUP and a rotated log are taken, events are posted")


async def until(condition: Any) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run({"works": works, "upgrade": upgrade, "faults": faults}[sys.argv[1]](sys.argv[2]))
