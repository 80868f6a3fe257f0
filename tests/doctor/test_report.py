"""How findings are said, and where they lead."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from tests.http.node import node as running
from tests.support import free_port
from tidegate.cli import doctor as command
from tidegate.cli.command import Usage
from tidegate.cli.main import main
from tidegate.config.load import load
from tidegate.doctor import nodes
from tidegate.doctor.handshake import greet
from tidegate.doctor.report import heaviest_first, ok, size, summary, unknown, weak, wrong
from tidegate.doctor.target import read
from tidegate.doctor.tls import judge_end


def test_the_heaviest_comes_first_and_each_has_one_line() -> None:
    found = [
        ok("a", "is fine"),
        weak("b", "is near", "raise it"),
        unknown("c", "cannot be seen"),
        wrong("d", "is not", "do"),
    ]
    ordered = heaviest_first(found)
    assert [finding.what for finding in ordered] == ["d", "b", "c", "a"]
    assert str(ordered[0]) == "wrong   d: is not -> do"
    assert str(ordered[3]) == "ok      a: is fine"
    assert summary(found) == "1 wrong, 1 weak, 1 unknown, 1 ok"


def test_sizes_are_said_as_one_says_them() -> None:
    assert [size(count) for count in (9, 131072, 1 << 20, 3 << 30)] == ["9 bytes", "128 KiB", "1 MiB", "3 GiB"]


def test_a_url_is_what_clients_are_given() -> None:
    target = read("wss://[::1]:8443")
    assert (target.url, target.origin) == ("wss://[::1]:8443/ws-notifications/", "https://[::1]:8443")
    assert read("wss://push.example.org/x/").authority == "push.example.org"
    for url in ("http://h/", "ws://", "ws://h:99999/", "ws://u:p@h/", "ws://h/?token=x"):
        with pytest.raises(ValueError, match=r"."):
            read(url)


@pytest.mark.parametrize(
    "args",
    [
        ["http://127.0.0.1/"],
        ["ws://h/", "--client", "..."],
        ["ws://h/", "--header-file", "/none"],
        ["ws://h/", "--api", "ftp://h"],
        ["ws://h/", "--origin", "http://a\r\nX: y"],
        ["ws://h/a b"],
        ["ws://h/", "--stop", "0"],
    ],
)
def test_a_wrong_command_line_is_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *args]) == 2
    assert capsys.readouterr().err.startswith("tidegate: ")


def test_where_nobody_listens_it_says_so_and_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", f"ws://127.0.0.1:{free_port()}"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("wrong   handshake: ws://127.0.0.1:")
    assert "see that the edge runs" in said[0]
    assert said[-1] == "1 wrong, 2 unknown"


async def test_where_a_token_is_needed_it_says_so() -> None:
    async with running(AUTH__MODE="jwt", AUTH__KEY="0123456789abcdef" * 2) as n:
        url = read(f"ws://127.0.0.1:{n.app.public_port}")
        for client in ("doctor", None):
            ((finding,), link) = await greet(msgspec.structs.replace(url, client=client))
            assert link is None
            assert "TIDEGATE_TOKEN" in finding.do


def node(name: str, **departures: object) -> dict[str, object]:
    health = {
        "departures": departures,
        "connections_limit": 100,
        "open_files": 90,
        "open_files_limit": 100,
        "clock_off_ms": -2500.0,
    }
    return {"node": name, "version": "1", "started_ms": 0, "connections": 85, "draining": False, "lag_ms": 700.0,
            "trunks": [], "trunk_sessions": 0, "health": health}  # fmt: skip


def test_nodes_near_their_limits_and_that_differ_are_named() -> None:
    health = {
        "node": "n1",
        "broker": "redis",
        "trouble": None,
        "time_ms": 1,
        "ports": 100,
        "settings": {"edge": {"upstreams": ["h:1"]}},
        "nodes": [node("n1", **{"auth.mode": "jwt", "server.port": 1}), {**node("n2"), "version": "2"}],
    }
    found = {finding.what: finding for finding in nodes.examine(health)}
    levels = {what: finding.level for what, finding in found.items()}
    assert levels == {
        "readiness": "ok",
        "versions": "weak",
        "settings": "wrong",
        "broker through each node": "weak",
        "clocks": "wrong",
        "connections": "weak",
        "descriptors": "weak",
        "ports": "weak",
    }
    assert found["settings"].how == "auth.mode is n1 jwt, n2 the default"
    old = {**node("n2"), "health": None}
    found = {finding.what: finding for finding in nodes.examine({**health, "nodes": [node("n1"), old]})}
    assert (found["settings"].level, found["settings"].how) == ("unknown", "n2 (1) does not tell its own")


async def test_cookies_come_from_a_file_and_go_with_each_handshake(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("Cookie: session=hunter2\nX-Other: 1\n")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    target = command._target(parser.parse_args(["ws://h/", "--header-file", str(file)]), load(None, {}))
    assert target.headers == (("Cookie", "session=hunter2"), ("X-Other", "1"))
    assert target.client is None
    file.write_text("Cookie session=hunter2")
    with pytest.raises(Usage) as info:
        command._target(parser.parse_args(["ws://h/", "--header-file", str(file)]), load(None, {}))
    assert "hunter2" not in str(info.value)


@pytest.mark.parametrize(
    ("lives", "left", "level"),
    [
        (365, 22, "ok"),
        (365, 20, "weak"),
        (90, 20, "weak"),
        (47, 15, "ok"),
        (6, 3, "ok"),
        (6, 1, "weak"),
        (90, -1, "wrong"),
    ],
)
def test_a_certificate_near_its_end_is_told_by_how_long_it_lives(lives: int, left: int, level: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    end = now + timedelta(days=left)
    assert judge_end(end - timedelta(days=lives), end, now).level == level
