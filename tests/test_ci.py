"""What must hold before a change lands is not passed over because a program or a file is not there.

``.ci/run`` is run with a ``make`` that does nothing but note what it was asked for.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT

MAKE = """#!/bin/sh
echo "$*" >>"$NOTES"
case "$*" in *"$FAILS"*) exit 1 ;; esac
"""
PROGRAMS = ("sh", "bash", "env", "dirname", "mktemp", "rm", "id", "tr")


def program(path: Path, text: str = "#!/bin/sh\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that has no more than what ``.ci/run`` asks for by itself."""
    checkout = tmp_path / "checkout"
    (checkout / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci/run", checkout / ".ci/run")
    program(checkout / "tools/compose_test.sh")
    (checkout / "compose.yaml").touch()
    return checkout


def run(checkout: Path, *, fails: str = "nothing") -> tuple[int, str, list[str]]:
    """Its exit code, what it said, and what ``make`` was asked for."""
    program(checkout.parent / "bin/make", MAKE)
    notes = checkout.parent / "notes"
    path = f"{checkout.parent / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        [checkout / ".ci/run"],
        env={"PATH": path, "NOTES": str(notes), "FAILS": fails},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout, notes.read_text().splitlines()


def test_all_is_run_and_an_engine_that_is_not_there_is_said_to_the_last_line(checkout: Path) -> None:
    code, said, asked = run(checkout)
    assert code == 0
    assert [line.split()[1:] for line in asked] == [
        ["setup", "system"],
        ["check"],
        ["test"],
        ["coverage"],
        ["test-all"],
    ]
    assert said.splitlines()[-1].startswith("== all good, but there is no Docker engine here")


@pytest.mark.parametrize("name", ["compose.yaml", "tools/compose_test.sh"])
def test_without_compose_it_fails(checkout: Path, name: str) -> None:
    (checkout / name).unlink()
    code, said, _ = run(checkout)
    assert code == 1
    assert "FAILED: compose:" in said


@pytest.mark.parametrize("status", [0, 1])
def test_with_an_engine_compose_is_run(checkout: Path, status: int) -> None:
    docker = checkout / re.findall(r"^docker=(.*)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)[0]
    program(docker / "engine")
    program(docker / "standins")
    program(checkout / "tools/compose_test.sh", f"#!/bin/sh\necho composed; exit {status}\n")
    code, said, _ = run(checkout)
    assert "composed" in said
    assert code == status
    assert said.splitlines()[-1] == ("FAILED: compose" if status else "== all good")


@pytest.mark.parametrize("fails", ["setup system", "check"])
def test_what_fails_is_named_and_the_rest_is_run_all_the_same(checkout: Path, fails: str) -> None:
    code, said, asked = run(checkout, fails=fails)
    assert code == 1
    assert f"FAILED: make --no-print-directory {fails}" in said
    assert len(asked) == 5


def test_tests_that_failed_have_one_more_try_and_that_is_said(checkout: Path) -> None:
    code, said, asked = run(checkout, fails="test-all")
    assert code == 1
    assert "SECOND CHANCE" in said
    assert "FAILED: make test-all" in said
    assert len(asked) == 6
    assert "--last-failed" in asked[-1]


def bare(tmp_path: Path, *others: str) -> dict[str, str]:
    """An environment that has nothing but what a script itself needs, and ``others``; no apt-get either."""
    folder = tmp_path / "bare"
    folder.mkdir()
    for name in PROGRAMS:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    for name in others:
        program(folder / name)
    return {"PATH": str(folder)}


@pytest.mark.parametrize(("what", "name"), [([], "chromium"), ([], "shellcheck"), (["check"], "shellcheck")])
def test_a_program_that_is_not_there_is_missed(tmp_path: Path, what: list[str], name: str) -> None:
    programs = {"chromium", "shellcheck", "nginx", "redis-server", "openssl", "njs", "luacheck", "node", "npm", "gcc"}
    env = bare(tmp_path, *programs - {name})
    done = subprocess.run([ROOT / "tools/system.sh", *what], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert name in done.stderr.partition("apt-get install")[2].split()


def test_linting_fails_without_its_programs(tmp_path: Path) -> None:
    done = subprocess.run([ROOT / "tools/lint.sh"], env=bare(tmp_path), capture_output=True, text=True)
    assert done.returncode != 0
    assert "shellcheck" in done.stderr
