"""The libraries that the scenarios are played to, each through its driver."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.clients.driver import Driver, Program
from tests.clients.gateway import Gateway
from tests.clients.player import VECTORS, Play
from tests.npm import install
from tests.support import ROOT


class Library(NamedTuple):
    """``has``: what scenarios name under ``needs``."""

    name: str
    driver: Path
    has: frozenset[str]

    def command(self) -> list[str]:
        interpreter = sys.executable if self.driver.suffix == ".py" else str(node())
        return [interpreter, str(self.driver)]

    def scenarios(self) -> list[dict[str, Any]]:
        return [scenario for scenario in VECTORS["scenarios"] if self.has.issuperset(scenario.get("needs", []))]

    def cases(self) -> list[Any]:
        """One for each scenario, as pytest takes them."""
        return [
            pytest.param(scenario, id=scenario["name"], marks=[pytest.mark.slow] if scenario.get("slow") else [])
            for scenario in self.scenarios()
        ]


JAVASCRIPT = Library("javascript", ROOT / "clients/js/tests/driver.mjs", frozenset({"process", "wake"}))
PYTHON = Library("python", ROOT / "clients/python/tests/driver.py", frozenset({"process", "status", "wake"}))


def node() -> Path:
    """Node 22, installed when it is first asked for."""
    return install(Path(__file__).parent / "node") / ".bin" / "node"


async def play(library: Library, scenario: dict[str, Any], folder: Path) -> None:
    """One scenario, in a process of its own that has its errors in ``folder``."""
    with (folder / "errors").open("w+b") as errors:
        program = Program(library.command(), errors)
        try:
            await program.begin()
            await play_to(program, scenario)
        except AssertionError as exc:
            errors.seek(0)
            raise AssertionError(f"{exc}\nits standard error:\n{errors.read().decode(errors='replace')}") from None
        finally:
            program.stop()


async def play_to(driver: Driver, scenario: dict[str, Any]) -> None:
    async with Gateway() as gateway:
        await Play(scenario, gateway, driver).play()
