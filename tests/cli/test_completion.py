"""What shells complete, asked of the shells themselves."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import scaled
from tidegate.cli.main import COMMANDS, command_parser, main

ASKED = [("", ""), ("", "pu"), *((f"{name} ", "--") for name in COMMANDS)]


@pytest.fixture
def script(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Of the shell that the test's parameter names, which must be here, in a folder with a file and a folder."""
    if shutil.which(request.param) is None:
        pytest.skip(f"there is no {request.param} here")
    assert main(["completion", request.param]) == 0
    file = tmp_path / "script"
    file.write_text(capsys.readouterr().out)
    (tmp_path / "here").mkdir()
    (tmp_path / "here/of a kind.conf").touch()
    (tmp_path / "here/of_folders").mkdir()
    return file


def options(name: str) -> set[str]:
    """As the command itself knows them."""
    return {"--help", *re.findall(r"--[\w-]+", command_parser(name).format_usage())}


def run(shell: str, program: str, folder: Path) -> list[set[str]]:
    """What each line of the answer holds, in words that tabs part."""
    ran = subprocess.run([shell, "-c", program], cwd=folder, capture_output=True, text=True, timeout=scaled(20))
    assert (ran.returncode, ran.stderr) == (0, "")
    return [set(line.strip("\t").split("\t")) - {""} for line in ran.stdout.split("\n")[:-1]]


def in_bash(script: Path, asked: list[tuple[str, str]]) -> list[set[str]]:
    lines = [f"source {script}"]
    for before, word in asked:
        words = f"tidegate {before}".split()
        lines.append(
            f"COMP_WORDS=({' '.join(words)} '{word}'); COMP_CWORD={len(words)}; _tidegate; "
            r"printf '%s\t' ${COMPREPLY[@]+"
            '"${COMPREPLY[@]}"'
            "}; echo"
        )
    return run("bash", "\n".join(lines), script.parent)


def in_fish(script: Path, asked: list[tuple[str, str]]) -> list[set[str]]:
    lines = [f"source {script}"]
    for before, word in asked:
        lines.append(
            f"for line in (complete -C 'tidegate {before}{word}'); "
            r"printf '%s\t' (string split -- \t $line)[1]; end; echo"
        )
    return run("fish", "\n".join(lines), script.parent)


SHELLS = {"bash": in_bash, "fish": in_fish}


@pytest.mark.parametrize("script", SHELLS, indirect=True)
def test_a_shell_offers_each_command_and_each_of_its_options(script: Path, request: pytest.FixtureRequest) -> None:
    ask = SHELLS[request.node.callspec.params["script"]]
    everything, pushing, *of_commands = ask(script, ASKED)
    assert set(COMMANDS) <= everything
    assert pushing == {"push"}
    for name, offered in zip(COMMANDS, of_commands, strict=True):
        assert options(name) <= offered, name
    before, another = ask(script, [("--config here push ", "--g"), ("push --client alice ", "--gr")])
    assert before == another == {"--group"}, "what an option takes is no command"


@pytest.mark.parametrize("script", SHELLS, indirect=True)
def test_a_shell_offers_files_folders_and_the_words_that_may_stand_there(
    script: Path, request: pytest.FixtureRequest
) -> None:
    ask = SHELLS[request.node.callspec.params["script"]]
    files, folders, shells, algorithms, free = ask(
        script,
        [
            ("check --nginx ", "here/of"),
            ("render --out ", "here/of"),
            ("completion ", ""),
            ("token --new-key ", "E"),
            ("push --client ", ""),
        ],
    )
    assert {name.rstrip("/") for name in files} == {"here/of a kind.conf", "here/of_folders"}
    assert {name.rstrip("/") for name in folders} == {"here/of_folders"}
    assert {"bash", "fish", "zsh"} <= shells
    assert {"ES256", "EdDSA"} <= algorithms
    assert free == set()


@pytest.mark.parametrize("script", ["zsh"], indirect=True)
def test_zsh_offers_commands_and_options(script: Path) -> None:
    """It completes for a terminal alone, so one is made inside of another zsh."""
    program = f"""
zmodload zsh/zpty
zpty z zsh -f
zpty -w z 'PS1="at re""st>"; RPS1=; autoload -U compinit; compinit -u -D; source {script}'
zpty -r z answer '*at rest>*'
zpty -w z 'bindkey "^I" list-choices; LISTMAX=0; COLUMNS=200; LINES=100; PS1="rea""dy>"'
zpty -r z answer '*ready>*'
for words in 'tidegate ' 'tidegate push --' 'tidegate completion '; do
    zpty -w -n z "$words"$'\\t\\x15'"print do''ne"$'\\n'
    zpty -r z answer '*done*ready>*'
    print -r -- "$answer"
    print -- "----"
done
zpty -d z
"""
    ran = subprocess.run(["zsh", "-f", "-c", program], capture_output=True, text=True, timeout=scaled(30))
    everything, pushing, shells, _ = ran.stdout.split("----\n")
    assert all(name in everything for name in COMMANDS), everything
    assert all(name in pushing for name in options("push")), pushing
    assert all(name in shells for name in ("bash", "fish", "zsh")), shells
