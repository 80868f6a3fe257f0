"""Faults of each kind, several times: three seeds for a short time, which run side by side, and twenty for a minute
(`make soak ARGS="-k minute"`)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.cluster import EDGES
from tests.faults.hazards import (
    EDGE_FAULTS,
    EVERYTHING_FAULTS,
    FAULTS,
    HOST_FAULTS,
    NODE_FAULTS,
    SENTINEL_FAULTS,
    SNAPSHOT_FAULTS,
)
from tests.faults.runner import Scenario, run

KINDS: dict[str, dict[str, Any]] = {
    "direct": {"faults": FAULTS},
    **{edge: {"edge": edge, "faults": FAULTS | NODE_FAULTS | EDGE_FAULTS} for edge in EDGES},
    "host": {"faults": HOST_FAULTS},
    "host, everysec": {"faults": HOST_FAULTS, "fsync": "everysec"},
    "sentinels": {"faults": SENTINEL_FAULTS, "every_s": 5},
    "restart": {"faults": {"kill_node_then_redis": 1}},
}
# What is short is long enough for one of these, and the tests of brokers have them too.
EVERYTHING: dict[str, dict[str, Any]] = {
    "everything": {"faults": EVERYTHING_FAULTS, "fsync": "everysec"},
    "everything, snapshots": {"faults": SNAPSHOT_FAULTS, "every_s": 3},
}
LOSSES = ("flush_redis", "fail_over", "crash_everything")
SYNCED = ("host", "restart", "everything", "everything, snapshots")  # Redis loses nothing, but by these
SEEDS = 20


def resets_that_nothing_excuses(kind: str, scenario: Scenario) -> int:
    """Nobody may be told that Redis lost something which did not."""
    return scenario.resets - sum(scenario.done.get(name, 0) for name in LOSSES) if kind in SYNCED else 0


@pytest.mark.slow
@pytest.mark.parametrize("round", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_faults_of_each_kind_for_a_short_time(tmp_path, kind, round):
    scenario = run(tmp_path, 9, **KINDS[kind])
    print("\n".join(scenario.log))
    assert resets_that_nothing_excuses(kind, scenario) <= 0


@pytest.mark.slow
def test_a_restart_of_everything_resets_nobody(tmp_path):
    scenario = run(tmp_path, 9, most=1, every_s=2, quiet_s=20, **EVERYTHING["everything"])
    assert scenario.done == {"restart_everything": 1}
    assert scenario.resets == 0


@pytest.mark.soak
def test_a_farewell_that_is_believed_twice_is_found(tmp_path):
    """Nodes that serve before the disk has that they came, planted."""
    with pytest.raises(AssertionError, match=r"never came|stands for|recovered from"):
        run(tmp_path, 20, plant="believe_twice", faults={"crash_everything": 1}, most=1, quiet_s=15)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("kind", KINDS | EVERYTHING)
def test_faults_of_each_kind_for_a_minute(tmp_path, kind, seed):
    scenario = run(tmp_path, 60, seed=seed, **(KINDS | EVERYTHING)[kind])
    print(f"{scenario.done}, closed {scenario.ends}, {scenario.resets} resets")
    assert resets_that_nothing_excuses(kind, scenario) <= 0
