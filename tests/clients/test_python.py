"""The library for Python, through the scenarios of vectors/clients.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.clients.libraries import PYTHON, play


@pytest.mark.parametrize("scenario", PYTHON.cases())
async def test_scenario(scenario: dict[str, Any], tmp_path: Path) -> None:
    await play(PYTHON, scenario, tmp_path)
