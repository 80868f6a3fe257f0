"""Every library, through every scenario of vectors/clients.json."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.driver import Program
from tests.clients.gateway import Gateway
from tests.clients.libraries import LIBRARIES, Library
from tests.clients.player import VECTORS, Play


def cases() -> Iterator[Any]:
    for library in LIBRARIES:
        for scenario in VECTORS["scenarios"]:
            if library.driver.exists() and library.sees.issuperset(scenario.get("needs", [])):
                marks = [pytest.mark.slow] if scenario.get("slow") else []
                yield pytest.param(library, scenario, id=f"{library.name}: {scenario['name']}", marks=marks)


@pytest.mark.parametrize(
    ("library", "scenario"),
    list(cases()) or [pytest.param(None, None, marks=pytest.mark.skip("no library has a driver yet"))],
)
async def test_scenario(library: Library, scenario: dict[str, Any], tmp_path: Path) -> None:
    with (tmp_path / "errors").open("w+b") as errors:
        program = Program(library.command(), errors)
        try:
            async with Gateway() as gateway:
                await program.begin()
                await Play(scenario, gateway, program).play()
        except AssertionError as exc:
            errors.seek(0)
            raise AssertionError(f"{exc}\nits standard error:\n{errors.read().decode(errors='replace')}") from None
        finally:
            program.stop()
