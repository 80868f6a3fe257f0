"""Nodes go under 2,000 clients, behind an edge with trunks: nobody is closed, and nobody waits for long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults.runner import Scenario, run
from tests.faults.test_faults import BUSY
from tests.support import scaled

pytestmark = pytest.mark.slow


def run_crowd(folder: Path, fault: str) -> Scenario:
    """Groups of 20, 100 messages a second to groups and one to all, all of them accounted for."""
    options: dict[str, Any] = {
        "drain_s": 20,
        "groups": 100,
        "members": 20,
        "others": 0,
        "rate": 100,
        "to_all": 1,
        "churn_s": 1e9,
        "stall": False,
    }
    scenario = run(folder, 120, edge="openresty-trunk", nodes=2, faults={fault: 1}, most=1, every_s=8, **options)
    print("\n".join(scenario.log))
    print(f"closed {scenario.ends}, the latest message came after {scenario.latest_s:.2f} s")
    print(f"the machine was busy for {scenario.busy_share:.0%}")
    return scenario


@pytest.mark.parametrize(
    ("fault", "within_s"),
    [("restart_all", 2), ("kill_node", 2), ("hang_node", 8)],
)
def test_2000_clients_do_not_notice(tmp_path, fault, within_s):
    scenario = run_crowd(tmp_path, fault)
    assert scenario.done == {fault: 1}
    assert scenario.ends == {}
    assert scenario.latest_s < scaled(within_s) or scenario.busy_share > BUSY
