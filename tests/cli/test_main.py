"""The command line as such: what there is, what each command's help says, and what starting one imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, free_port, scaled
from tidegate.cli.main import COMMANDS, main

SERVING = ("tornado", "redis", "aiohttp", "uvloop")

# Each command that serves nothing: its exit code where no gateway runs, and what makes it go that far.
WORK = {
    "push": (1, ["--all", "1"]),
    "tail": (1, ["all", "--count", "1"]),
    "trace": (1, ["all", "1"]),
    "token": (0, ["--sub", "alice"]),
    "render": (0, ["--out", "OUT"]),
    "doctor": (1, ["ws://127.0.0.1:1/", "--api"]),
    "completion": (0, ["bash"]),
}


def imported(*args: str, **environ: str) -> tuple[int, list[str]]:
    """The exit code of ``tidegate`` with these arguments in a process of its own, and what it imported of SERVING."""
    program = (
        "import sys\n"
        "from tidegate.cli.main import main\n"
        "code = 0\n"
        "try:\n"
        "    code = main()\n"
        "except SystemExit as exc:\n"
        "    code = exc.code or 0\n"
        f"print('imported:', *(name for name in {SERVING} if name in sys.modules))\n"
        "sys.exit(code)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *args],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")} | environ,
        timeout=scaled(30),
    )
    last = ran.stdout.splitlines()[-1]
    assert last.startswith("imported:"), ran.stderr
    return ran.returncode, last.split()[1:]


def test_each_command_is_a_module_with_help_that_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        with pytest.raises(SystemExit, match=r"^0$"):
            main([name, "--help"])
        said = capsys.readouterr().out
        assert said.startswith(f"usage: tidegate {name} "), said
        examples = said.partition("examples:\n")[2].splitlines()
        assert any(f"tidegate {name}" in example or "tidegate --config" in example for example in examples), said


def test_the_help_lists_each_command_with_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--help"])
    listed = capsys.readouterr().out.partition("commands:\n")[2].partition("\n\n")[0].splitlines()
    assert [tuple(line.split(maxsplit=1)) for line in listed] == list(COMMANDS.items())


@pytest.mark.parametrize("name", [None, *sorted(COMMANDS)])
def test_help_imports_nothing_of_serving(name: str | None) -> None:
    assert imported(*([name] if name else []), "--help") == (0, [])


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"serve", "check", "forward-events"}))
def test_a_command_that_serves_nothing_imports_nothing_of_serving(name: str, tmp_path: Path) -> None:
    """Done, and not only described: push and tail go as far as they can where nobody listens."""
    code, given = WORK[name]
    args = [str(tmp_path) if arg == "OUT" else arg for arg in given]
    key = {"TIDEGATE_AUTH__KEY": "0123456789abcdef" * 2}
    assert imported(name, *args, TIDEGATE_INTERNAL__PORT=str(free_port()), **key) == (code, [])


def test_check_imports_what_serve_builds_but_no_loop() -> None:
    """It refuses what ``serve`` refuses by building it: broker, calls and ports, whose modules import the others."""
    code, found = imported("check", TIDEGATE_SERVER__PORT=str(free_port()), TIDEGATE_INTERNAL__PORT=str(free_port()))
    assert code == 0
    assert "uvloop" not in found


@pytest.mark.parametrize("args", [[], ["no-such-command"], ["--no-such-option"], ["push"], ["serve", "now"]])
def test_a_command_line_that_is_none_is_2_with_the_usage(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(args)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: tidegate ")
