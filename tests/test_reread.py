"""SIGHUP has a node read its keys and the policies of groups again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.handshakes import token
from tests.peer import Peer, Refusal
from tests.service_fixture import Held, running
from tests.support import Process, eventually
from tests.test_app import Node
from tests.tokens import SECRET, jwk, private_pem
from tidegate.config.load import ConfigError, load
from tidegate.core.errors import Unusable
from tidegate.node import reread

Start = Callable[..., Process]


class Rereading(Node):
    """With a file of its own for its settings."""

    def __init__(self, start_process: Start, folder: Path, settings: dict[str, Any]) -> None:
        self.file = folder / "config.yaml"
        self.write(settings)
        self.times = 0
        super().__init__(start_process, TIDEGATE_CONFIG=str(self.file))

    def write(self, settings: dict[str, Any] | str) -> None:
        self.file.write_text(settings if isinstance(settings, str) else json.dumps(settings))

    async def hang_up(self, event: str = "settings.read") -> dict[str, Any]:
        """The line that says what it has read."""
        before = len(self.logged(event))
        self.process.signal(signal.SIGHUP)
        lines: list[dict[str, Any]] = await eventually(lambda: self.logged(event)[before:])
        return lines[0]

    async def let_in(self, **options: Any) -> bool:
        headers = {"Authorization": "Bearer " + token(groups=["*"], **options)}
        try:
            async with Peer(self.port, headers=headers):
                return True
        except Refusal as refusal:
            return refusal.status != 401


def key(kid: str) -> dict[str, str]:
    return {"kid": kid, "key": private_pem("HS256", kid).decode()}


async def test_keys_and_policies_are_read_again_and_what_has_changed_is_said(
    start_process: Start, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "auth": {"mode": "jwt", "keys": [key("old")]},
        "internal": {"api_keys": [{"name": "crm", "key": "crm-0123456789abcdef"}]},
        "groups": {"chat": {"publish": "anyone"}},
    }
    node = await Rereading(start_process, tmp_path, settings).started()
    headers = {"Authorization": "Bearer " + token(name="old", kid="old", groups=["*"])}
    async with Peer(node.port, headers=headers, groups="chat,news") as alice:
        await alice.event()
        assert (await node.hang_up())["changed"] == []
        settings["auth"]["keys"] = [key("new"), key("old")]
        node.write(settings)
        assert (await node.hang_up())["changed"] == ["auth: key new is new"]
        assert await node.let_in(name="old", kid="old")
        assert await node.let_in(name="new", kid="new")
        settings["auth"]["keys"] = [key("new")]
        settings["internal"]["api_keys"] = [{"name": "erp", "key": "erp-0123456789abcdef"}]
        settings["groups"] = {"chat": {"join": "nobody"}}
        settings["history"] = {"messages": 7}
        node.write(settings)
        line = await node.hang_up()
        assert line["level"] == "info"
        assert line["changed"] == [
            "internal.api_keys: crm is gone",
            "internal.api_keys: erp is new",
            "auth: key old is gone",
            "groups: chat has changed",
        ]
        assert line["need_restart"] == ["history.messages"]
        assert not await node.let_in(name="old", kid="old")
        assert await node.let_in(name="new", kid="new")
        # Who is in stays in, but in groups that its policy opens.
        left = await alice.event()
        assert (left["stream"], left["reason"]) == ("group:chat", "not_allowed")
        await node.push("groups/news", 1, Authorization="Bearer erp-0123456789abcdef")
        assert (await alice.event())["stream"] == "group:news"
        assert "0123456789abcdef" not in node.process.stderr
        assert SECRET not in node.process.stderr


BROKEN: dict[str, Any] = {
    "no YAML": "auth: [",
    "unknown": {"auth": {"mode": "jwt", "kyes": []}},
    "short": {"auth": {"mode": "jwt", "keys": [{"kid": "a", "key": "short"}]}},
    "no file": {"auth": {"mode": "jwt", "keys": [{"kid": "a", "key_file": "/nowhere"}]}},
    "API key": {
        "auth": {"mode": "jwt", "keys": [key("new")]},
        "internal": {"api_keys": [{"name": "x", "key_file": "/no"}]},
    },
}


async def test_a_broken_file_keeps_what_there_was_and_says_why(start_process: Start, tmp_path: Path) -> None:
    good = {"auth": {"mode": "jwt", "keys": [key("old")]}, "internal": {"api_keys": ["0123456789abcdef"]}}
    node = await Rereading(start_process, tmp_path, good).started()
    for broken in BROKEN.values():
        node.write(broken)
        line = await node.hang_up("settings.refused")
        assert line["level"] == "warning"
        assert line["error"]
        assert await node.let_in(name="old", kid="old")
        assert not await node.let_in(name="new", kid="new")
        assert (await node.get("/api/nodes"))[0] == 401
    node.file.unlink()
    assert "cannot be read" in (await node.hang_up("settings.refused"))["error"]
    assert node.logged("settings.read") == []
    node.write(good)
    assert (await node.hang_up())["changed"] == []


async def test_a_key_set_is_read_again_at_once(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [jwk("ES256", "a", kid="a")]}))
    settings = {"AUTH__MODE": "jwt", "AUTH__ALGORITHM": "ES256", "AUTH__JWKS_FILE": str(file)}
    environ = {f"TIDEGATE_{name}": value for name, value in settings.items()}
    async with running(**settings) as app:
        file.write_text(json.dumps({"keys": [jwk("ES256", "b", kid="b"), jwk("ES256", "a", kid="a")]}))
        changed, _ = await reread(app, load(None, environ))
        assert changed == ["auth: key b is new"]
        file.write_text("{")
        with pytest.raises(ValueError, match="JSON Web Key Set"):
            await reread(app, load(None, environ))
        assert app.verifier is not None
        assert app.verifier.verify(token(algorithm="ES256", name="b", kid="b"), 0).client == "alice"


async def test_what_only_goes_with_another_address_is_not_taken() -> None:
    """Without a key is fine on loopback. This node listens everywhere."""
    key = {"name": "crm", "key": "crm-0123456789abcdef"}
    async with running(INTERNAL__ADDRESS="0.0.0.0", INTERNAL__API_KEYS=[key]) as app:
        with pytest.raises(ConfigError, match=r"internal\.api_keys"):
            await reread(app, load(None, {}))
        assert app.api_keys.required


async def test_an_emptied_file_opens_the_api_to_nobody() -> None:
    """As of a pipe that was read before, or of one who writes the file anew at that moment."""
    async with running(INTERNAL__API_KEYS=["crm-0123456789abcdef"]) as app:
        with pytest.raises(Unusable, match=r"internal\.api_keys: are no more"):
            await reread(app, load(None, {"TIDEGATE_GROUPS": '{"a": {}}'}))
        assert app.api_keys.required


async def test_a_pipe_in_place_of_a_key_stops_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key")
    key = {"name": "crm", "key_file": str(tmp_path / "key")}
    async with running(INTERNAL__API_KEYS=["crm-0123456789abcdef"]) as app:
        with pytest.raises(Unusable, match="no regular file"):
            await reread(app, load(None, {"TIDEGATE_INTERNAL__API_KEYS": json.dumps([key])}))


async def test_keys_of_another_mode_wait_for_the_restart_with_it() -> None:
    async with running(AUTH__MODE="jwt", AUTH__KEY=SECRET) as app:
        environ = {"TIDEGATE_AUTH__MODE": "none", "TIDEGATE_GROUPS": '{"a": {}}'}
        changed, waiting = await reread(app, load(None, environ))
        assert changed == ["groups: a is new"]
        assert waiting == ["server.port", "server.node", "internal.port", "auth.mode", "limits.lag_s"]
        assert app.verifier is not None
        assert app.verifier.verify(token(), 0).client == "alice"


# Policies, while somebody is on the way in


CLOSED = {"TIDEGATE_GROUPS": '{"chat": {"join": "nobody"}}'}


async def test_who_is_joining_while_a_policy_closes_its_group_is_refused() -> None:
    async with running() as app, Peer(app.public_port, client="alice") as alice:
        await alice.event()
        subscribe = Held(app, "subscribe")
        alice.send(type="join", id=1, group="chat")
        await eventually(lambda: subscribe.waiting)
        await reread(app, load(None, CLOSED))
        subscribe.open.set()
        assert (await alice.event())["code"] == "not_allowed"
        assert await app.gateway.presence("chat") == ([], 0)


async def test_who_is_let_in_while_a_policy_closes_its_group_leaves_it_behind_its_welcome() -> None:
    async with running() as app:
        subscribe = Held(app, "subscribe")
        alice = Peer(app.public_port, client="alice", groups="chat,news")
        async with asyncio.TaskGroup() as group:
            group.create_task(alice.__aenter__())
            await eventually(lambda: subscribe.waiting)
            await reread(app, load(None, CLOSED))
            subscribe.open.set()
        welcome, left = await alice.events(2)
        assert welcome["type"] == "welcome"
        assert (left["type"], left["stream"]) == ("left", "group:chat")
        assert await app.gateway.presence("news") == (["alice"], 1)
        await alice.__aexit__(None, None, None)


async def test_rights_that_come_before_new_policies_are_kept() -> None:
    async with running(AUTH__MODE="jwt", AUTH__KEY=SECRET, GROUPS={"chat": {}}) as app:
        headers = {"Authorization": "Bearer " + token(groups=["news", "chat"])}
        async with Peer(app.public_port, headers=headers, groups="chat") as alice:
            await alice.event()
            subscribe = Held(app, "subscribe")
            alice.send(type="join", id=1, group="news")
            alice.send(type="refresh", id=2, token=token(groups=["late"]))
            await eventually(lambda: subscribe.waiting and app.metrics.commands["refresh",] == 1)
            environ = CLOSED | {"TIDEGATE_AUTH__MODE": "jwt", "TIDEGATE_AUTH__KEY": SECRET}
            await reread(app, load(None, environ))
            subscribe.open.set()
            events = await alice.events(4)
            assert [event["type"] for event in events] == ["left", "reply", "reply", "left"]
            assert (await alice.ask(type="join", id=3, group="late"))["type"] == "reply"
            assert (await alice.ask(type="join", id=4, group="news"))["code"] == "not_allowed"
