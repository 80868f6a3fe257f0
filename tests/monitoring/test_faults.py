"""Debian's Prometheus watches running nodes and edges: all targets are up, and each fault fires its alert."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.monitoring.faults import FAULTS, OTHERS, Fault, Gateway
from tests.monitoring.queries import ALERTS
from tests.support import eventually

CASES = [*FAULTS.items(), *OTHERS]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    it = Gateway(tmp_path_factory.mktemp("gateway"))
    try:
        it.start()
        yield it
    finally:
        it.close()


def test_each_alert_has_a_fault_for_real() -> None:
    assert FAULTS.keys() == ALERTS.keys()


@pytest.mark.slow
async def test_all_targets_are_up_and_a_node_that_dies_is_noticed(gateway: Gateway) -> None:
    targets = await gateway.watch.all_up()
    assert sorted(target.split()[0] for target in targets) == ["tidegate"] * 2 + ["tidegate-edge"] * 3
    await eventually(lambda: gateway.watch.value("tidegate:connections:sum + 1"), 10)  # rules have been run
    assert await gateway.watch.firing() == {}
    async with gateway.node_down():
        alert = await gateway.watch.fires("TidegateNodeDown")
        assert alert["annotations"]["summary"] == f"The node 127.0.0.1:{gateway.nodes[1].internal} does not answer"
    await gateway.watch.ends("TidegateNodeDown")


@pytest.mark.soak
@pytest.mark.parametrize(("name", "fault"), CASES, ids=[name for name, _ in CASES])
async def test_its_fault_fires_it(gateway: Gateway, name: str, fault: Fault) -> None:
    """What else fires follows from the fault, or from the one before it, and is printed."""
    await gateway.watch.ends(name)  # it lingers, where the one before has fired it too
    begun = time.monotonic()
    async with fault(gateway):
        alert = await gateway.watch.fires(name)
        after_s, others = time.monotonic() - begun, (await gateway.watch.firing()).keys() - {name}
    words = alert["annotations"]
    assert "<error" not in words["summary"] + words["description"], words
    print(f"{name} ({words['summary']}) fired after {after_s:.0f} s; beside it: {', '.join(sorted(others)) or 'none'}")
    await gateway.watch.ends(name)
