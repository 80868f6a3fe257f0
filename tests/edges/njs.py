"""The njs edge's code, run by the njs command line (Debian's package ``njs``)."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.peer import PING, PONG, frame
from tests.support import ROOT
from tidegate.core import frames

REQUEST = b"GET /ws-notifications/?client=alice HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\r\n"
ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nTidegate-Client: alice\r\nTidegate-Connection: n1.ab-7\r\n\r\n"
WELCOME = frames.text(b'{"type":"welcome"}')
PUSH = frames.text(b'{"type":"message","data":"' + b"x" * 200 + b'"}')
LARGE_PUSH = frames.text(b"y" * 70_000)
SIGN_OF_LIFE = frame(PONG, mask=b"\0\0\0\0")
OUR_PING = frame(PING, mask=b"\0\0\0\0")

Step = tuple[Any, ...]


def njs(job: dict[str, Any]) -> Any:
    program = shutil.which("njs")
    assert program is not None, "the njs command line is missing: apt-get install njs"
    version = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stdout.strip()
    module = ["-t", "module"] if version.startswith("0.") else ["-m"]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "job").write_text(json.dumps(job))
        done = subprocess.run(
            [program, *module, "-p", ROOT / "nginx/njs", ROOT / "tests/edges/njs_driver.js", folder],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr or done.stdout
        return json.loads((Path(folder) / "result").read_text())


def sessions(*jobs: list[Step], **settings: Any) -> list[list[Step]]:
    """What each session does: ("client" | "service", bytes), ("call", id, method, data, who…), ("relay",)."""
    steps = [[[step[0], *(_packed(part) for part in step[1:])] for step in job] for job in jobs]
    results = njs({"kind": "sessions", "sessions": [{"settings": settings, "steps": it} for it in steps]})
    return [[_unpacked(action) for action in result] for result in results]


def _packed(part: Any) -> Any:
    return part.hex() if isinstance(part, bytes) else part


def _unpacked(action: list[Any]) -> Step:
    if action[0] == "end":
        return ("end",)
    if action[0] == "call":
        return ("call", action[1], action[2], bytes.fromhex(action[3]), *action[4:])
    if action[0] == "relay":
        return ("relay",)
    return (action[0], bytes.fromhex(action[1]))


def after_handshake(*steps: Step, **settings: Any) -> list[Step]:
    """What a session does that has just been welcomed."""
    (did,) = sessions([("client", REQUEST), ("service", ANSWER + WELCOME), *steps], **settings)
    assert did[:2] == [("service", REQUEST), ("client", ANSWER + WELCOME)]
    return did[2:]


def call(number: int, data: bytes = b"1") -> bytes:
    return b'{"type":"call","id":%d,"method":"echo","data":%b}' % (number, data)


def all_for(whom: str, did: list[Step]) -> bytes:
    return b"".join(action[1] for action in did if action[0] == whom)
