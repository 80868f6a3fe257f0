"""The library for JavaScript, in Node, through the scenarios of vectors/clients.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.clients.libraries import JAVASCRIPT, play


@pytest.mark.parametrize("scenario", JAVASCRIPT.cases())
async def test_scenario(scenario: dict[str, Any], tmp_path: Path) -> None:
    await play(JAVASCRIPT, scenario, tmp_path)
