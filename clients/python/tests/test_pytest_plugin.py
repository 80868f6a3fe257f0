"""The fixtures that applications get, in a test run of their own, from the packed distribution where that is asked
for."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support import ROOT
from tidegate_client.publisher import NotConfirmed
from tidegate_client.publisher.fake import FakePublisher
from tidegate_client.pytest import gateway

THEIRS = """
import asyncio
import pytest
from tidegate_client import BadPush, Publisher

def greet(publisher, name):
    publisher.push(client=name, data={"text": "Hello"})

def test_fake(tidegate_publisher):
    greet(tidegate_publisher, "alice")
    tidegate_publisher.push_many([{"group": "news", "data": n} for n in (1, 2)])
    assert tidegate_publisher.gateway.to("client:alice") == [{"text": "Hello"}]
    assert [(push.stream, push.data) for push in tidegate_publisher.gateway.pushed[1:]] == [
        ("group:news", 1), ("group:news", 2)
    ]

def test_the_fake_has_the_rules(tidegate_publisher):
    with pytest.raises(BadPush):
        greet(tidegate_publisher, "user:42")

def test_async_fake(tidegate_async_publisher, tidegate_publisher):
    asyncio.run(tidegate_async_publisher.push(group="news", data=1))
    assert tidegate_publisher.gateway.to("group:news") == [1]

def test_real(tidegate_gateway):
    with Publisher(tidegate_gateway.api_url) as publisher:
        assert publisher.push(group="news", data=1).offset == 1

def test_real_is_new(tidegate_gateway):
    with Publisher(tidegate_gateway.api_url) as publisher:
        assert publisher.history(group="news").top == 0
"""


def run(folder: Path, python: str, path: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_theirs.py").write_text(THEIRS)
    env = {"PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [
        python,
        "-W",
        "error",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "tidegate_client.pytest",
        str(folder),
    ]
    return subprocess.run(command, env=env, cwd=folder, text=True, capture_output=True, timeout=50, check=False)


def test_an_application_uses_the_fixtures(tmp_path: Path) -> None:
    path = f"{ROOT / 'clients/python'}{os.pathsep}{ROOT / 'service'}"
    done = run(tmp_path, sys.executable, path)
    assert "5 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_is_registered_and_costs_nothing_until_it_is_used() -> None:
    about = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text())
    assert about["project"]["entry-points"]["pytest11"] == {"tidegate_client": "tidegate_client.pytest"}
    heavy = "{'httpx', 'redis', 'jwt', 'django', 'websockets', 'tidegate'}"
    script = f"import sys, tidegate_client.pytest; print(sorted({heavy} & sys.modules.keys()))"
    env = {"PYTHONPATH": f"{ROOT / 'clients/python'}"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, text=True, capture_output=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_gateway_that_cannot_start_says_why() -> None:
    with pytest.raises(ValueError, match="unknown"), gateway(server={"prot": 1}):
        pass


def test_a_fake_fails_as_it_is_told() -> None:
    fake = FakePublisher()
    fake.gateway.error = NotConfirmed("unreachable", "nobody there", may_be_taken=True)
    with pytest.raises(NotConfirmed):
        fake.push(group="news", data=1)
    fake.gateway.clear()
    fake.push(group="news", data=1)
    assert [push.offset for push in fake.gateway.pushed] == [1]
