"""The library for JavaScript, in a page of a real browser, through the scenarios of vectors/clients.json. There is one
browser for all of them, because to start one takes longer than to play one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.clients.libraries import play_to
from tests.clients.page import CHROMIUM_PAGE, pages

FAST = 24  # every so many of those that are not slow


async def play_all(scenarios: Iterable[dict[str, Any]], **options: Any) -> None:
    """Raises AssertionError with all that went wrong."""
    wrong = []
    async with pages() as chromium:
        for scenario in scenarios:
            async with chromium.driver(**options) as driver:
                try:
                    await play_to(driver, scenario)
                except AssertionError as exc:
                    wrong.append(f"{scenario['name']}: {exc}")
    assert not wrong, "\n\n".join([f"{len(wrong)} scenarios", *wrong])


async def test_some_scenarios() -> None:
    quick = [scenario for scenario in CHROMIUM_PAGE.scenarios() if not scenario.get("slow")]
    await play_all(quick[::FAST])


@pytest.mark.slow
async def test_all_scenarios() -> None:
    await play_all(CHROMIUM_PAGE.scenarios())
