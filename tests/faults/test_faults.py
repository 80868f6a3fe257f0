"""The whole thing under faults: three nodes, one Redis, and an independent record of what was accepted."""

from __future__ import annotations

import itertools

import pytest

from tests.faults.cluster import EDGES
from tests.faults.hazards import FAULTS, NODE_FAULTS
from tests.faults.plants import EDGE_PLANTS, PLANTS
from tests.faults.runner import run

BUSY = 0.97  # a machine without time left: then it is the limit


@pytest.mark.timeout(seconds=180)
def test_everybody_gets_everything_once_and_in_order_or_is_told(tmp_path):
    run(tmp_path, 20)


@pytest.mark.slow
def test_a_push_that_is_answered_behind_the_reset_for_its_loss_is_no_complaint(tmp_path):
    """How a runner that stood still for a moment could complain of seed 414931, once, that a message never came."""
    scenario = run(tmp_path, 9, seed=3, faults={"flush_before_answer": 1}, most=1, every_s=5, rate=160, stall=False)
    (push,) = (push for push in scenario.ledger.pushes if push.pusher == "late")
    followers = [told for reader in scenario.readers if (told := reader.told.get(push.stream)) is not None]
    assert not any(push.id in told.heard for told in followers)
    assert push.accepted_s is not None
    assert any(told.resets_s[-1] < push.accepted_s for told in followers)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "seconds", "faults", "complaint"),
    [
        ("skip_reread", 10, {"kill_pubsub": 1}, "deaf"),
        ("acknowledge_first", 15, {"kill_reader": 1}, "never came"),
        ("keep_epoch", 6, {"flush_redis": 1}, "stands for|came twice|a reset within|after"),
    ],
)
def test_planted_faults_are_found(tmp_path, plant, seconds, faults, complaint):
    assert plant in PLANTS
    with pytest.raises(AssertionError, match=complaint):
        run(tmp_path, seconds, seed=3, plant=plant, faults=faults, quiet_s=10, stall=False)


@pytest.mark.slow
def test_what_is_held_back_from_one_who_reads_again_is_found(tmp_path):
    assert "sleep_on" in EDGE_PLANTS
    with pytest.raises(AssertionError, match="held back"):
        run(tmp_path, 4, seed=3, plant="sleep_on", edge="openresty-trunk", faults={}, quiet_s=10)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill_node", "kill_redis", "kill_pubsub"])
def test_ten_kills_during_500_pushes_a_second_lose_and_repeat_nothing(tmp_path, fault):
    scenario = run(
        tmp_path,
        120,
        faults={fault: 1},
        most=10,
        every_s=1.5,
        groups=100,
        members=10,
        others=0,
        rate=500,
        churn_s=60,
        stall=False,
    )
    print(f"{scenario.pushes_per_second:.0f} pushes per second, the machine was busy for {scenario.busy_share:.0%}")
    assert scenario.pushes_per_second >= 450 or scenario.busy_share > BUSY
    assert scenario.done == {fault: 10}
    assert sum(len(told.resets_s) + len(told.lost) for reader in scenario.readers for told in reader.told.values()) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("edge", "faults"), [(edge, 20 if edge == "openresty-trunk" else 6) for edge in EDGES])
def test_faults_in_a_row_behind_an_edge_lose_and_repeat_nothing(tmp_path, edge, faults):
    """With trunks nobody is closed either who has nothing under way; without them clients come back by themselves."""
    scenario = run(tmp_path, 300, edge=edge, faults=NODE_FAULTS, most=faults, every_s=1)
    print(f"{scenario.done}, closed {scenario.ends}")
    assert sum(scenario.done.values()) == faults


@pytest.mark.slow
def test_an_edge_with_trunks_comes_through_all_kinds_of_faults(tmp_path):
    faults = FAULTS | NODE_FAULTS | {"reload_edge": 2}
    scenario = run(tmp_path, 300, edge="openresty-trunk", faults=faults, most=20, every_s=1)
    print(f"{scenario.done}, closed {scenario.ends}")


@pytest.mark.soak
def test_everybody_gets_everything_for_hours(tmp_path):
    for round in itertools.count():
        folder = tmp_path / str(round)
        folder.mkdir()
        run(folder, 120)
