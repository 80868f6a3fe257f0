"""Nodes of the last release and of this checkout vote together whether a Redis that came back has lost anything."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tests.brokers.server import RedisServer
from tests.upgrades.release import last_release
from tidegate.brokers.redis import scripts
from tidegate.brokers.redis.scripts import KeyNames

BEATS = 7  # at the last of which the server said that it syncs


def earlier(name: str) -> str:
    """A script of the last release, as Redis is given it."""
    program = f"from tidegate.brokers.redis import scripts; print(scripts.{name}.text.decode(), end='')"
    release = last_release()
    ran = subprocess.run(
        [release.command()[0], "-c", program],
        cwd=release.folder,
        env=release.environ({}),
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout


@pytest.mark.slow
def test_what_the_present_release_notes_of_its_vote_is_no_vote_to_the_last_one() -> None:
    keys = KeyNames("tidegate", "")
    names = [keys.life, keys.nodes, keys.infos, keys.votes("after")]
    with RedisServer() as server:
        server.command("HSET", keys.life, "generation", "g", "incarnation", "before", "writes", 1, "beats", BEATS)
        for node in ("old", "new"):
            server.command("HSET", keys.nodes, node, "1 1")

        def vote(script: str, node: str, *more: Any) -> str:
            asked = ["other", node, "after", "g", 1, "1", "old new", "{}", 3000, keys.nodes_channel, 60000, *more]
            answer = server.command("EVAL", script, len(names), *names, *asked)
            return str(answer[0])

        assert vote(scripts.BEGIN.text.decode(), "new", BEATS) == "wait"
        assert vote(earlier("BEGIN"), "old") == "kept", "both have voted that nothing is missing"


@pytest.mark.slow
def test_a_farewell_that_a_node_of_the_last_release_has_passed_over_is_believed_by_nobody() -> None:
    """It joins and leaves without a word of it; were it believed, what that node served might be missing."""
    keys = KeyNames("tidegate", "")
    names = [keys.life, keys.nodes, keys.infos]
    with RedisServer() as server:

        def begin(script: str, node: str, incarnation: str, *more: Any) -> list[Any]:
            asked = ["other", node, incarnation, "", 0, "0", node, "{}", 3000, keys.nodes_channel, 60000, *more]
            return server.command("EVAL", script, 4, *names, keys.votes(incarnation), *asked)

        begin(earlier("BEGIN"), "old", "first")
        generation = server.command("HGET", keys.life, "generation")
        leave = [generation, "old", "first", keys.nodes_channel, 600_000]
        assert server.command("EVAL", scripts.LEAVE.text.decode(), 3, *names, *leave) == 1
        begin(earlier("BEGIN"), "older", "first")
        server.command("HDEL", keys.nodes, "older")
        assert begin(scripts.BEGIN.text.decode(), "new", "second", "", "1")[0] == "lost"
