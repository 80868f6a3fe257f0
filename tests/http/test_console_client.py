"""The console's client where its cursor is too long for a handshake: what it takes for received, and what it joins."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT

CONSOLE = ROOT / "service/tidegate/http/console"
DRIVER = ROOT / "tests/http/console_driver.js"
LONG = [f"{n:02}-{'long' * 20}" for n in range(60)]
LAST = f"group:{LONG[-1]}"  # has no room


Play = Callable[..., Any]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """``play(*steps)``: what came of them for alice, who stands at offset 5 of 60 groups with long names."""
    for file in (*CONSOLE.glob("*.js"), DRIVER):
        shutil.copy(file, tmp_path)
    (tmp_path / "package.json").write_text('{"type":"module"}')
    streams = ["client:alice", "all", *(f"group:{group}" for group in LONG)]
    client = {"client": "alice", "groups": LONG, "positions": {stream: ["e", 5] for stream in streams}}

    def run(*steps: Any) -> Any:
        result = subprocess.run(
            ["node", str(tmp_path / "console_driver.js")],
            input=json.dumps({"client": client, "steps": ["open", *steps]}),
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return json.loads(result.stdout)

    return run


def welcome() -> dict[str, Any]:
    """Names all groups, those that were not in the cursor by a lasting membership, from now on."""
    at = {"epoch": "e", "offset": 9, "top": 9}
    streams = dict.fromkeys(("client:alice", "all", *(f"group:{group}" for group in LONG)), at)
    return {"type": "welcome", "client": "alice", "connection": "n-1", "node": "n", "streams": streams}


def message(offset: int) -> dict[str, Any]:
    return {"type": "message", "stream": LAST, "epoch": "e", "offset": offset, "time": 0, "data": offset}


def join_of(sent: list[dict[str, Any]]) -> dict[str, Any]:
    (join,) = [command for command in sent if command.get("type") == "join" and command["group"] == LONG[-1]]
    return join


def offsets(handled: list[dict[str, Any]]) -> list[int]:
    return [event["offset"] for event in handled if event["type"] == "message"]


def test_what_did_not_fit_is_joined_from_its_position_and_passed_over_until_then(play: Play) -> None:
    before = play(welcome(), message(10))
    join = join_of(before["sent"])
    assert (join["epoch"], join["offset"]) == ("e", 5)
    assert before["positions"][LAST] == ["e", 5], "though welcome says 9"
    assert offsets(before["handled"]) == []
    reply = {"type": "reply", "id": join["id"], "stream": LAST, "epoch": "e", "offset": 5, "top": 10}
    after = play(
        welcome(), message(10), reply | {"recovered": True, "missed": 5}, *(message(offset) for offset in range(6, 12))
    )
    assert offsets(after["handled"]) == [6, 7, 8, 9, 10, 11]
    assert after["positions"][LAST] == ["e", 11]
    assert not any(event["type"] == "alarm" for event in after["handled"])


def test_a_cut_before_the_answer_loses_no_position(play: Play) -> None:
    after = play(welcome(), message(10), "cut", "open", welcome())
    assert after["positions"][LAST] == ["e", 5]
    joins = [command for command in after["sent"] if command.get("group") == LONG[-1]]
    assert [(join["epoch"], join["offset"]) for join in joins] == [("e", 5)] * 2


@pytest.mark.parametrize(
    ("code", "state", "kept"), [("broker_down", "waiting", True), ("not_allowed", "online", False)]
)
def test_a_join_that_is_refused_keeps_the_position_where_it_may_succeed_later(
    play: Play, code: str, state: str, kept: bool
) -> None:
    join = join_of(play(welcome())["sent"])
    after = play(welcome(), {"type": "error", "id": join["id"], "code": code, "message": "…"})
    assert after["state"] == state
    assert (LAST in after["positions"]) is kept
