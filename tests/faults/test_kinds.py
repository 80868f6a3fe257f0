"""Faults of each kind, several times: three seeds for a short time, which run side by side, and twenty for a minute
(`make soak ARGS="-k minute"`)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.cluster import EDGES
from tests.faults.hazards import EDGE_FAULTS, FAULTS, HOST_FAULTS, NODE_FAULTS, SENTINEL_FAULTS
from tests.faults.runner import run

KINDS: dict[str, dict[str, Any]] = {
    "direct": {"faults": FAULTS},
    **{edge: {"edge": edge, "faults": FAULTS | NODE_FAULTS | EDGE_FAULTS} for edge in EDGES},
    "host": {"faults": HOST_FAULTS},
    "host, everysec": {"faults": HOST_FAULTS, "fsync": "everysec"},
    "sentinels": {"faults": SENTINEL_FAULTS, "every_s": 5},
    "restart": {"faults": {"kill_node_then_redis": 1}},
}
SYNCED = ("host", "restart")  # Redis loses nothing, and nobody may be told that it did
SEEDS = 20


@pytest.mark.slow
@pytest.mark.parametrize("round", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_faults_of_each_kind_for_a_short_time(tmp_path, kind, round):
    scenario = run(tmp_path, 10, **KINDS[kind])
    print("\n".join(scenario.log))
    assert kind not in SYNCED or scenario.resets == 0


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("kind", KINDS)
def test_faults_of_each_kind_for_a_minute(tmp_path, kind, seed):
    scenario = run(tmp_path, 60, seed=seed, **KINDS[kind])
    print(f"{scenario.done}, closed {scenario.ends}, {scenario.resets} resets")
    assert kind not in SYNCED or scenario.resets == 0
