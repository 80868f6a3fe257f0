"""The recipes of examples/wscat/README.md do what they show, with the real wscat and a real service.

A section of the README is a test. Its ``console`` blocks are typed into a shell on a terminal, those marked ``second``
into another one, in the order of the page. Every line that appears must be in the README, where ``…`` stands for
anything; ports are put in. A ``sh`` block with ``serve`` says how the section wants the service to be started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import npm
from tests.support import ROOT, Process, eventually, free_port

EXAMPLE = ROOT / "examples" / "wscat"

# The first run installs packages.
pytestmark = pytest.mark.timeout(seconds=180)

Block = tuple[str, list[str]]  # (what stands after the fence, lines)


def _sections() -> dict[str, list[Block]]:
    """The blocks of each section of the README that has any to type."""
    sections: dict[str, list[Block]] = {}
    for section in (EXAMPLE / "README.md").read_text().split("\n## ")[1:]:
        title = section.splitlines()[0]
        blocks = re.findall(r"^```(.*)\n((?:.*\n)*?)```$", section, re.MULTILINE)
        sections[title] = [(kind, text.splitlines()) for kind, text in blocks]
    return sections


SECTIONS = _sections()


def screen(output: str) -> list[str]:
    """The lines that a terminal shows, of the few control sequences that wscat and the shell use."""
    lines, column = [""], 0
    for number, command, control, text in re.findall(r"\x1b\[\??(\d*)([A-Za-z])|([\r\n\b])|([^\x1b\r\n\b]+)", output):
        line = lines[-1]
        if text:
            lines[-1] = line.ljust(column)[:column] + text + line[column + len(text) :]
            column += len(text)
        elif control == "\n":
            lines.append("")
        elif control == "\r" or command == "G":
            column = int(number or 1) - 1
        elif control == "\b" or command == "D":
            column = max(0, column - int(number or 1))
        elif command == "J" or (command == "K" and not number):
            lines[-1] = line[:column]
        elif command == "K":
            lines[-1] = ""
    return lines


class Terminal:
    """A shell on a terminal of its own. Its lines are taken one by one, in order."""

    def __init__(self, env: dict[str, str]) -> None:
        self._master, slave = os.openpty()
        os.set_blocking(self._master, False)
        termios.tcsetwinsize(slave, (50, 2000))  # wide: nothing wraps
        shell = ["setsid", "--ctty", "bash", "--norc", "--noprofile", "--noediting"]
        self._process = subprocess.Popen(shell, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=ROOT)
        os.close(slave)
        self._output = b""
        self._taken = 0

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._master)

    async def type(self, prompt: str, text: str) -> None:
        """Types a line where the prompt invites to, and takes it as it appears there."""
        await self._until(lambda: self._look()[-1] == prompt, f"the prompt {prompt!r}")
        os.write(self._master, text.encode() + b"\n")
        await self.take(prompt + text)

    async def take(self, expected: str) -> None:
        """The next line must be as ``expected``."""
        await self._until(lambda: len(self._look()) > self._taken + 1, f"a line like {expected!r}")
        line = self._look()[self._taken]
        self._taken += 1
        pattern = ".*".join(re.escape(part) for part in expected.split("…"))
        assert re.fullmatch(pattern, line), f"expected {expected!r}\ngot      {line!r}"

    async def finish(self) -> None:
        """There must be no more lines, and a prompt."""
        await self._until(lambda: self._look()[-1].endswith(("$ ", "> ")), "a prompt")
        assert self._look()[self._taken : -1] == []

    def _look(self) -> list[str]:
        with contextlib.suppress(BlockingIOError, OSError):  # nothing new; the shell has ended
            while True:
                self._output += os.read(self._master, 65536)
        return screen(self._output.decode(errors="replace"))

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            await eventually(condition, 10)
        except AssertionError:
            shown = "\n".join(self._look())
            raise AssertionError(f"waited in vain for {what}; the terminal shows:\n{shown}") from None


_FOLDERS = [EXAMPLE / "node_modules" / ".bin", Path(sys.executable).parent, os.environ["PATH"]]
_ENVIRONMENT = {
    "PATH": os.pathsep.join(map(str, _FOLDERS)),
    "PS1": "$ ",
    "PS2": "",
    "TERM": "xterm",
    "LANG": "C.UTF-8",
}


class Recipes:
    """Runs a section of the README."""

    def __init__(self, start_process: Callable[..., Process]) -> None:
        self._start = start_process
        self._public, self._internal = free_port(), free_port()
        self._terminals: dict[str, Terminal] = {}

    async def run(self, blocks: list[Block]) -> None:
        await self.serve(blocks)
        for kind, lines in blocks:
            if kind.startswith("console"):
                await self._follow(self._terminal(kind), [self.with_ports(line) for line in lines])
        for terminal in self._terminals.values():
            await terminal.finish()

    def close(self) -> None:
        for terminal in self._terminals.values():
            terminal.close()

    async def script(self, text: str) -> list[str]:
        """The lines that it prints, with no input at all."""
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", text, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, env=_ENVIRONMENT
        )
        output, _ = await process.communicate()
        return output.decode().splitlines()

    async def serve(self, blocks: list[Block]) -> None:
        starts = [line for kind, lines in blocks if kind == "sh" for line in lines if line.endswith(" serve")]
        settings = dict(word.split("=", 1) for line in starts for word in shlex.split(line) if "=" in word)
        env = {"TIDEGATE_SERVER__PORT": str(self._public), "TIDEGATE_INTERNAL__PORT": str(self._internal)}
        process = self._start(sys.executable, "-m", "tidegate", "serve", env=env | settings)
        await asyncio.gather(process.port(self._public), process.port(self._internal))

    async def _follow(self, terminal: Terminal, lines: list[str]) -> None:
        continued = False
        for line in lines:
            if continued:
                await terminal.type("", line)
            elif line.startswith(("$ ", "> ")):
                await terminal.type(line[:2], line[2:])
            else:
                await terminal.take(line)
            continued = line.endswith("\\")

    def _terminal(self, name: str) -> Terminal:
        if name not in self._terminals:
            self._terminals[name] = Terminal(_ENVIRONMENT)
        return self._terminals[name]

    def with_ports(self, line: str) -> str:
        return line.replace(":8000/", f":{self._public}/").replace(":8001/", f":{self._internal}/")


@pytest.fixture
def recipes(start_process: Callable[..., Process]) -> Iterator[Recipes]:
    npm.install(EXAMPLE)
    recipes = Recipes(start_process)
    yield recipes
    recipes.close()


@pytest.mark.parametrize("title", SECTIONS)
async def test_a_recipe_shows_what_its_readme_says(title: str, recipes: Recipes) -> None:
    await recipes.run(SECTIONS[title])


def _commands(blocks: list[Block]) -> Iterator[tuple[str, list[str]]]:
    """The commands of one line, each with what it shows."""
    for kind, lines in blocks:
        if kind == "console":
            starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
            for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
                yield lines[start][2:], lines[start + 1 : end]


SCRIPTS = [title for title, blocks in SECTIONS.items() if any(" -x " in line for _, lines in blocks for line in lines)]


@pytest.mark.parametrize("title", [SCRIPTS[0], *(pytest.param(title, marks=pytest.mark.slow) for title in SCRIPTS[1:])])
async def test_what_is_for_scripts_works_where_the_input_is_at_its_end(title: str, recipes: Recipes) -> None:
    """As cron and CI run them. What a section sets before is typed before."""
    await recipes.serve(SECTIONS[title])
    before, shown = "", 0
    for command, wanted in _commands(SECTIONS[title]):
        if re.match(r"(export )?[A-Z_]+=", command):
            before += recipes.with_ports(command) + "; "
        elif " -x " in command:
            lines = await recipes.script(before + recipes.with_ports(command))
            assert len(lines) == len(wanted), lines
            for line, pattern in zip(lines, wanted, strict=True):
                assert re.fullmatch(".*".join(map(re.escape, pattern.split("…"))), line), line
            shown += 1
    assert shown


@pytest.mark.parametrize(
    ("shown", "complaint"), [(["one", "three"], r"expected 'three'\s+got +'two'"), (["one"], "'two'")]
)
async def test_a_recipe_that_shows_something_else_is_noticed(
    shown: list[str], complaint: str, recipes: Recipes
) -> None:
    with pytest.raises(AssertionError, match=complaint):
        await recipes.run([("console", ["$ echo one; echo two", *shown])])
