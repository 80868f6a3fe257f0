"""Nodes of the last release and of this checkout on one Redis, under load, with the oracle of tests/faults: forward and
back, one after the other, as docs/upgrading.md says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults.cluster import EDGES
from tests.faults.runner import Scenario, run
from tests.upgrades.release import last_release

THROUGH = {"upgrade_and_roll_back": 1}
MIXED = {"swap_version": 4, "kill_node": 1, "kill_pubsub": 1, "kill_redis": 1}


def run_through(folder: Path, **options: Any) -> Scenario:
    """All nodes are of the last release at first, and at the end."""
    release = last_release()
    scenario = run(folder, 10, before=release, nodes=2, faults=THROUGH, most=1, every_s=0.5, drain_s=1, **options)
    print("\n".join(scenario.log), f"closed {scenario.ends}")
    assert scenario.done == THROUGH
    return scenario


def losses(scenario: Scenario) -> int:
    """Resets and gaps that anybody was told of."""
    return sum(len(told.resets_s) + len(told.lost) for reader in scenario.readers for told in reader.told.values())


@pytest.mark.slow
def test_a_rolling_upgrade_and_its_rollback_reset_nobody_and_lose_nothing(tmp_path):
    scenario = run_through(tmp_path, rate=160)
    assert (scenario.resets, losses(scenario)) == (0, 0)


@pytest.mark.soak
@pytest.mark.parametrize("edge", EDGES)
def test_the_same_behind_each_edge(tmp_path, edge):
    scenario = run_through(tmp_path, edge=edge)
    assert (scenario.resets, losses(scenario)) == (0, 0)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_two_versions_side_by_side_come_through_faults(tmp_path, seed):
    scenario = run(tmp_path, 60, seed=seed, before=last_release(), faults=MIXED)
    print("\n".join(scenario.log), f"closed {scenario.ends}, {scenario.resets} resets")
