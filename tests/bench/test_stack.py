"""Whole stacks and deploys: that the commands run, and that they find what is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench.load.publisher import Publisher
from bench.stack import suites
from bench.stack.crew import Client, Crew, Line
from tests.support import Process
from tidegate.core.model import Position


def test_targets_name_suites_and_the_series_that_these_have() -> None:
    names = {suite.name for suite in suites.SUITES}
    assert {target.suite for target in suites.TARGETS} <= names
    assert {"openresty", "plain", "plain-tcp", "openresty-relay"} == set(suites.EDGES)


def test_one_request_has_a_message_of_the_same_size_for_each_group() -> None:
    publisher = Publisher({"kind": "groups", "ports": [], "groups": ["g1", "g20"]})
    body = publisher._request(7, 1).partition(b"\r\n\r\n")[2]
    pushes = json.loads(body)["pushes"]
    assert [each["group"] for each in pushes] == ["g1", "g20"]
    assert len(pushes[0]["data"]) - len(pushes[1]["data"]) == 1  # a longer name, a shorter text


class Heard:
    """A crew of one client, which hears what it is told."""

    def __init__(self) -> None:
        self.crew = Crew(0, 1, 1, moves=True)
        self.client: Client = self.crew._clients[0]
        self.client.positions = {"all": Position("e", 0)}

    def line(self) -> Line:
        return Line(sock=None, client=self.client)  # type: ignore[arg-type] # nothing is written

    def hear(self, line: Line, *offsets: int) -> None:
        for offset in offsets:
            event = {"type": "message", "stream": "all", "epoch": "e", "offset": offset, "data": {"at": 0}}
            self.crew._event(line, event)


def test_a_crew_counts_what_is_lost_and_what_comes_twice() -> None:
    heard = Heard()
    line = heard.line()
    heard.hear(line, 1, 2, 2, 5)
    found = heard.crew.found({"all": 7})
    assert (found.received, found.repeated, found.lost) == (3, 1, 2 + 2)
    assert not heard.crew.has_all({"all": 7})


def test_what_a_new_connection_brings_once_more_is_no_repetition() -> None:
    heard = Heard()
    heard.hear(heard.line(), 1, 2)
    heard.hear(heard.line(), 1, 2, 3)
    found = heard.crew.found({"all": 3})
    assert (found.received, found.repeated, found.lost) == (3, 0, 0)


@pytest.mark.slow
async def test_the_stacks_are_measured(tmp_path: Path) -> None:
    only = [word for name in ("group-1000", "groups", "neighbour") for word in ("--only", name)]
    command: list[str | Path] = [sys.executable, "-m", "bench", "stack", "--quick", *only, "--out", tmp_path / "out"]
    run = Process(*command, folder=tmp_path)
    assert await run.ended(120) in (0, 1)  # a quick run's targets say nothing
    report = (tmp_path / "out" / "report.md").read_text()
    assert "no figures" not in report
    assert "Not measured" not in report
    assert "gorilla behind plain nginx" in report


@pytest.mark.slow
async def test_a_deploy_behind_trunks_closes_nobody(tmp_path: Path) -> None:
    chosen = ["--modes", "openresty-tcp", "--clients", "60", "--drain", "1"]
    run = Process(sys.executable, "-m", "bench", "deploys", *chosen, folder=tmp_path)
    assert await run.ended(120) == 0, run
    assert "| openresty-tcp | restart | 0 | 0 |" in run.stdout
