"""The import contracts of pyproject.toml refuse what they name: a contract that matches nothing would pass for ever."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT

CONTRACTS: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
FORBIDDEN = [(contract, name) for contract in CONTRACTS for name in contract.get("forbidden_modules", ())]
LAYERED = [contract for contract in CONTRACTS if contract["type"] == "layers"]


@pytest.mark.parametrize("name", [name for _, name in FORBIDDEN])
def test_what_is_forbidden_is_a_module(name: str) -> None:
    assert importlib.util.find_spec(name) is not None


def test_what_does_io_is_forbidden_in_the_core() -> None:
    names = {name for contract, name in FORBIDDEN if contract["source_modules"] == ["tidegate.core"]}
    io = "tornado redis aiohttp uvloop asyncio threading socket select selectors subprocess os pathlib logging"
    assert names >= {*io.split(), *["time", "datetime", "random", "secrets", "uuid"]}


@pytest.mark.parametrize("contract", LAYERED, ids=lambda contract: contract["containers"][0])
def test_a_module_outside_of_all_layers_is_an_error(contract: dict[str, Any]) -> None:
    assert contract["exhaustive"] is True
    assert "exhaustive_ignores" not in contract


def test_every_package_has_layers_but_those_whose_modules_are_at_one_height() -> None:
    """``http``, ``config``, ``process``, ``cli`` and the two brokers are small, and have none inside."""
    assert {contract["containers"][0] for contract in LAYERED} >= {
        f"tidegate{name}" for name in ("", ".core", ".gateway", ".websocket", ".auth", ".brokers", ".nginx")
    }


def lint(tmp_path: Path, *planted: tuple[str, str]) -> str:
    """What lint-imports says of a copy of the source with lines planted at the ends of files; made if not there."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("service", "bench"):
        kinds = shutil.ignore_patterns("__pycache__", "results", "*.json", "*.c")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=kinds, dirs_exist_ok=True)
    for name, line in planted:
        with (tmp_path / name).open("a") as file:
            file.write(f"\n{line}\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path / 'service'}:{tmp_path}", "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == (1 if planted else 0), done.stdout + done.stderr
    return done.stdout


def test_as_it_is_nothing_is_broken(tmp_path: Path) -> None:
    assert "0 broken" in lint(tmp_path)


def test_each_module_that_is_planted_in_the_core_is_refused(tmp_path: Path) -> None:
    names = [name for contract, name in FORBIDDEN if contract["source_modules"] == ["tidegate.core"]]
    assert "datetime" in names
    said = lint(tmp_path, *(("service/tidegate/core/model.py", f"import {name}") for name in names))
    for name in names:
        assert f"tidegate.core is not allowed to import {name}:" in said


def test_imports_upwards_and_modules_in_no_layer_are_refused(tmp_path: Path) -> None:
    said = lint(
        tmp_path,
        ("service/tidegate/stray.py", ""),
        ("service/tidegate/core/stray.py", ""),
        ("service/tidegate/auth/hosts.py", "import tidegate.gateway.gateway"),
        ("service/tidegate/auth/keys.py", "import tidegate.auth.tokens"),
    )
    assert "tidegate.stray" in said
    assert "tidegate.core.stray" in said
    assert "tidegate.auth is not allowed to import tidegate.gateway:" in said
    assert "tidegate.auth.keys is not allowed to import tidegate.auth.tokens:" in said
