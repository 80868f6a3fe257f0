"""State, then stream, without a hole: pages that load at random moments end equal to the data (pages.mjs)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from clients.js.tests.node import TESTS, node
from tests.browser.chromium import Service
from tests.support import Process

# So few messages are kept that some pages come back too late.
SETTINGS = {"TIDEGATE_GROUPS": json.dumps({"rows": {"messages": 10}})}


async def pages(start_process: Callable[..., Process], number: int, timeout_s: float) -> dict[str, Any]:
    """What they have been through."""
    service = Service(start_process, SETTINGS)
    await service.start()
    process = start_process(
        node(), TESTS / "pages.mjs", f"ws://127.0.0.1:{service.public}/ws-notifications/", service.url, str(number)
    )
    assert await process.ended(timeout_s) == 0, process
    seen: dict[str, Any] = json.loads(process.stdout)
    assert seen["equals"] == number
    return seen


@pytest.mark.timeout(seconds=120)
async def test_fifty_pages_end_equal_to_the_data(start_process: Callable[..., Process]) -> None:
    await pages(start_process, 50, 60)


@pytest.mark.slow
async def test_a_thousand_pages_end_equal_to_the_data(start_process: Callable[..., Process]) -> None:
    seen = await pages(start_process, 1000, 500)
    assert seen["gaps"] > 0
    assert seen["states"] > 1000
