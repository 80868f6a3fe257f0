"""Blocks of documents that are marked as runnable (```console run) are run: what a command prints is what is written
below it, with … for what differs. CONTRIBUTING.md has the convention.

Each page has a folder, and where it needs them a gateway and a Redis of its own. Its blocks are run in order. The ports
are the test's.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.brokers.server import RedisServer
from tests.browser.chromium import Service
from tests.support import ROOT, Process, free_ports, scaled

_BLOCK = re.compile(r"^```console run\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Whose blocks need a gateway, and Redis behind it. What others need is the command `tidegate`.
SERVED = {"docs/pushing.md", "docs/quickstart.md"}


def transcript(block: str) -> Iterator[tuple[str, str]]:
    """(command, what it prints). A command goes on where a line ends with a backslash, or a quote is open."""
    command, printed = "", ""
    for line in block.splitlines():
        if _is_open(command):
            command += f"\n{line}"
        elif line.startswith("$ "):
            if command:
                yield command, printed
            command, printed = line[2:], ""
        else:
            assert command, f"{line!r} is printed by nothing"
            printed += f"{line}\n"
    yield command, printed


def _is_open(command: str) -> bool:
    return command.endswith("\\") or command.count("'") % 2 == 1


def is_as_written(printed: str, written: str) -> bool:
    """``…`` stands for any text that is not empty."""
    pattern = ".+?".join(re.escape(part) for part in written.rstrip("\n").split("…"))
    return re.fullmatch(pattern, printed.rstrip("\n"), re.DOTALL) is not None


def marked() -> dict[str, list[str]]:
    """The blocks of each document that has any, by its path."""
    pages = {path.relative_to(ROOT): _BLOCK.findall(path.read_text()) for path in (ROOT / "docs").glob("*.md")}
    return {str(path): blocks for path, blocks in sorted(pages.items()) if blocks}


def runnable() -> dict[str, list[str]]:
    """The same without translations, whose blocks are those of the original."""
    return {page: blocks for page, blocks in marked().items() if not page.endswith(".ru.md")}


class Shell:
    """What a reader has: the command `tidegate`, curl, redis-cli, and the ports that documents name."""

    def __init__(self, folder: Path) -> None:
        self._programs = folder / ".venv/bin"
        self._programs.mkdir(parents=True)
        self._folder = folder
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TIDEGATE_")}
        path = f"{self._programs}:{environment['PATH']}"
        self._environment = environment | {"PATH": path, "PYTHONPATH": str(ROOT / "service"), "CURL_HOME": str(folder)}
        (folder / ".curlrc").write_text("silent\nshow-error\n")
        self._program("tidegate", f"{sys.executable} -m tidegate")
        self._reach(*free_ports(2))

    def reaches(self, gateway: Service, redis: RedisServer) -> None:
        self._reach(gateway.public, gateway.internal)
        self._program("redis-cli", f"/usr/bin/redis-cli -p {redis.port}")

    def _reach(self, public: int, internal: int) -> None:
        self._ports = {"8000": str(public), "8001": str(internal)}
        self._environment |= {"TIDEGATE_SERVER__PORT": str(public), "TIDEGATE_INTERNAL__PORT": str(internal)}

    def run(self, command: str) -> str:
        """What it prints. Raises AssertionError where it fails."""
        command = re.sub(
            r"(?<=localhost:|127\.0\.0\.1:)800[01]\b", lambda port: self._ports.get(port[0], port[0]), command
        )
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=scaled(20),
        )
        assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}"
        return done.stdout

    def _program(self, name: str, command: str) -> None:
        path = self._programs / name
        path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        path.chmod(0o755)


@pytest.mark.parametrize("page", runnable())
async def test_a_page_prints_what_it_says(page: str, start_process: Callable[..., Process], tmp_path: Path) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    shell = Shell(folder)
    with contextlib.ExitStack() as stack:
        if page in SERVED:
            redis = stack.enter_context(RedisServer())
            gateway = Service(start_process, {"TIDEGATE_BROKER__KIND": "redis", "TIDEGATE_BROKER__URL": redis.url})
            await gateway.start()
            shell.reaches(gateway, redis)
        for block in runnable()[page]:
            for command, written in transcript(block):
                printed = shell.run(command)
                assert is_as_written(printed, written), f"{command}\nprints\n{printed}\nand {page} says\n{written}"


def test_a_translation_has_the_blocks_of_its_original() -> None:
    for page in marked().keys() - runnable().keys():
        assert marked()[page] == runnable()[page.replace(".ru.md", ".md")]


def test_a_transcript_is_read_as_a_reader_reads_it() -> None:
    block = "$ one 'a\nb'\nprinted\n$ two \\\n  --three\n$ four\nx\ny\n"
    assert list(transcript(block)) == [("one 'a\nb'", "printed\n"), ("two \\\n  --three", ""), ("four", "x\ny\n")]


def test_what_differs_is_passed_over_and_nothing_else() -> None:
    assert is_as_written('{"epoch":"07bf","offset":1}\n', '{"epoch":"…","offset":1}\n')
    assert not is_as_written('{"epoch":"07bf","offset":2}\n', '{"epoch":"…","offset":1}\n')
    assert not is_as_written('{"epoch":"","offset":1}\n', '{"epoch":"…","offset":1}\n')
    assert not is_as_written("a\nb\n", "a\n")


def test_a_mark_is_written_as_it_is_looked_for() -> None:
    """Or a block would be left out without a word."""
    for path in (ROOT / "docs").rglob("*.md"):
        for info in re.findall(r"^```(.*\brun\b.*)$", path.read_text(), re.MULTILINE):
            assert info == "console run", f"{path.name}: {info}"
            assert str(path.relative_to(ROOT)) in marked()
