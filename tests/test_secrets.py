"""Secrets come from the environment or from files, and go nowhere."""

from __future__ import annotations

import argparse
import json
import re
import stat
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.peer import Peer, Refusal
from tests.support import Process, free_port, free_ports
from tests.tokens import SECRET, make_token
from tidegate.cli import main
from tidegate.config.load import load
from tidegate.config.shown import SECRETS
from tidegate.nginx import render

# What is no secret in spite of its name: an idempotency key, the name of a key, and a file.
NAMED_LIKE_ONE = {
    ("push", "--key"),
    ("token", "--kid"),
    ("token", "--key-file"),
    ("token", "--new-key"),
    ("doctor", "--token-file"),
}

KEY = SECRET + "-hunter2"
API_KEY = "api-hunter2-api-hunter2-api"
EVENTS_KEY = "events-hunter2-events-hunter2"
TRUNK_KEY = "trunk-hunter2-trunk-hunter2"
PASSWORD = "redis-hunter2"


def _options() -> list[tuple[str, str]]:
    found = []
    for name in main.COMMANDS:
        parser = main.command_parser(name)
        for action in parser._actions:
            assert not isinstance(action, argparse._SubParsersAction)
            found += [(name, option) for option in action.option_strings or [action.dest]]
    return found


def test_no_command_takes_a_secret_as_an_argument() -> None:
    """Arguments are read by whoever may list processes."""
    telling = re.compile(r"key|secret|token|pass|credential|auth|user|kid", re.IGNORECASE)
    assert {pair for pair in _options() if telling.search(pair[1])} == NAMED_LIKE_ONE


def test_a_url_with_a_password_is_no_argument(capsys: pytest.CaptureFixture[str]) -> None:
    code = main.main(["push", "--all", "1", "--url", f"http://user:{PASSWORD}@127.0.0.1:1"])
    assert code == 2
    said = capsys.readouterr()
    assert PASSWORD not in said.out + said.err


def test_each_secret_has_a_variable_and_may_stand_in_a_file(tmp_path: Path) -> None:
    secrets: dict[str, object] = {
        "auth.key": KEY,
        "auth.keys": [{"kid": "new", "key": KEY}],
        "internal.api_keys": [API_KEY],
        "events.key": EVENTS_KEY,
        "trunk.key": TRUNK_KEY,
    }
    assert set(secrets) == set(SECRETS)
    file = tmp_path / "config.yaml"
    tree: dict[str, dict[str, object]] = {}
    for key, value in secrets.items():
        section, name = key.split(".")
        tree.setdefault(section, {})[name] = value
    file.write_text(json.dumps(tree))
    variables = {
        f"TIDEGATE_{key.upper().replace('.', '__')}": value if isinstance(value, str) else json.dumps(value)
        for key, value in secrets.items()
    }
    for config in (load(str(file), {}), load(None, variables)):
        assert [named.key for named in config.auth.keys] == [KEY]
        assert (config.auth.key, config.internal.api_keys, config.trunk.key) == (KEY, [API_KEY], TRUNK_KEY)
        assert config.events.key == EVENTS_KEY


def test_what_is_rendered_with_a_secret_is_not_for_everybody(tmp_path: Path) -> None:
    config = load(None, {"TIDEGATE_TRUNK__KEY": TRUNK_KEY})
    written = render.write(config, tmp_path)
    holding = [file for file in written if TRUNK_KEY in file.read_text()]
    assert [file.name for file in holding] == [render.LUA_SETTINGS]
    assert stat.S_IMODE(holding[0].stat().st_mode) & stat.S_IRWXO == 0


async def test_no_line_and_no_answer_shows_a_secret_a_token_or_a_payload(
    start_process: Callable[..., Process], tmp_path: Path
) -> None:
    """At the level debug, with a client who is refused and one who is not, a wrong key and a right one."""
    public, internal = free_ports(2)
    trunk = free_port()
    env = {
        "TIDEGATE_SERVER__PORT": str(public),
        "TIDEGATE_INTERNAL__PORT": str(internal),
        "TIDEGATE_AUTH__MODE": "jwt",
        "TIDEGATE_AUTH__KEY": KEY,
        "TIDEGATE_INTERNAL__API_KEYS": json.dumps([API_KEY]),
        "TIDEGATE_TRUNK__PORT": str(trunk),
        "TIDEGATE_TRUNK__KEY": TRUNK_KEY,
        "TIDEGATE_BROKER__URL": f"redis://user:{PASSWORD}@127.0.0.1:1/0?password={PASSWORD}",  # not used, and logged
        "TIDEGATE_LOG__LEVEL": "debug",
    }
    service = start_process(sys.executable, "-m", "tidegate", "serve", env=env)
    await service.line("service.started")
    good = make_token("HS256", "-hunter2")
    bad = good[:-6] + "AAAAAA"
    answers = [_ask(internal, path, None) for path in ("/metrics", "/console.json", "/api/openapi.json", "/api/nodes")]
    answers.append(_ask(internal, "/api/nodes", "wrong-hunter2-wrong-hunter2"))
    answers.append(_ask(internal, "/api/clients/alice/push", API_KEY, b'{"data":"payload-hunter2"}'))
    answers.append(_ask(internal, "/api/clients/alice/push", API_KEY, b'{"data":"payload-hunter2'))
    with pytest.raises(Refusal) as refused:
        await Peer(public, token=bad).__aenter__()
    answers.append(refused.value.body.decode())
    async with Peer(public, token=good) as peer:
        await peer.event()
        assert (await peer.ask(type="refresh", id=1, token=bad))["type"] == "error"
        peer.send_text(b'{"type":"publish","id":2,"group":"a","data":"payload-hunter2",}')
        answers.append(json.dumps(await peer.event()))
    arguments = _arguments(service)
    assert await service.stop() == 0
    assert len(service.logged("connection.opened")) == 1
    for text in (service.stdout, service.stderr, arguments, *answers):
        assert "hunter2" not in text
        assert good[-20:] not in text
        assert bad[-20:] not in text


def _arguments(process: Process) -> str:
    return Path(f"/proc/{process.pid}/cmdline").read_text()


def _ask(port: int, path: str, key: str | None, body: bytes | None = None) -> str:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as exc:
        return str(exc.read().decode())
