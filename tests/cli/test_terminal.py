"""What people see who sit before a terminal, and nobody else does."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

import pytest

from tests.support import eventually
from tidegate.cli import terminal
from tidegate.cli.main import main
from tidegate.cli.terminal import paint, progress


class Terminal:
    """``stream`` is what a program writes to; ``shown``, what came out so far."""

    def __init__(self) -> None:
        self._master, slave = os.openpty()
        os.set_blocking(self._master, False)
        self.stream: TextIO = open(slave, "w")  # noqa: SIM115 - closed below
        self._shown = b""

    @property
    def shown(self) -> str:
        try:
            while data := os.read(self._master, 65536):
                self._shown += data
        except BlockingIOError:
            pass
        return self._shown.decode()

    def close(self) -> None:
        self.stream.close()
        os.close(self._master)


@pytest.fixture
def term(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    it = Terminal()
    yield it
    it.close()


def test_colours_are_for_terminals_that_have_them_and_people_who_want_them(
    term: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert paint("ok", "green", term.stream) == "\x1b[32mok\x1b[0m"
    assert paint("ok", "green", io.StringIO()) == paint("ok", "green", None) == "ok"
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("ok", "green", term.stream) == "ok"
    monkeypatch.setenv("NO_COLOR", "")
    monkeypatch.setenv("TERM", "dumb")
    assert paint("ok", "green", term.stream) == "ok"


def test_headings_of_help_stand_out_on_a_terminal_alone(
    term: Terminal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for args in (["--help"], ["push", "--help"]):
        with pytest.raises(SystemExit, match=r"^0$"):
            main(args)
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdout", term.stream)
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["push", "--help"])
    term.stream.flush()
    assert "\x1b[" in term.shown


def test_what_a_command_says_has_colours_on_a_terminal_alone(
    term: Terminal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIDEGATE_SERVER__PORT", "0")
    assert main(["check"]) == 0
    assert "configuration: ok\n" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdout", term.stream)
    assert main(["check"]) == 0
    term.stream.flush()
    assert "configuration: \x1b[32mok\x1b[0m" in term.shown


async def test_long_work_shows_how_far_it_is_and_leaves_no_trace(
    term: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(sys, "stderr", term.stream)
    with progress("checking the dump") as say:
        say("3 of 12")
        await eventually(lambda: "tidegate: checking the dump (3 of 12, 0 s)" in term.shown)
    assert term.shown.endswith("\r\x1b[K")


def test_short_work_and_a_stream_that_is_no_terminal_show_nothing(
    term: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stream in (term.stream, written := io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress("pushing") as say:
            say("1 of 1")
    assert (term.shown, written.getvalue()) == ("", "")
