"""The brokers that can be chosen are those that are there, and each is made from the settings."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args, get_type_hints

import pytest

from tidegate.brokers import registry
from tidegate.config import load
from tidegate.config.settings import BrokerSettings
from tidegate.metrics import Metrics


def test_the_setting_allows_the_brokers_that_there_are() -> None:
    assert set(get_args(get_type_hints(BrokerSettings)["kind"])) == set(registry.KINDS)


@pytest.mark.parametrize(
    ("kind", "metric", "swept"),
    [("memory", "tidegate_journal_bytes", True), ("redis", "tidegate_wakeups_total", False)],
)
def test_a_broker_brings_its_metrics_and_says_whether_it_is_swept(kind: str, metric: str, swept: bool) -> None:
    metrics = Metrics()
    broker = registry.make(load.load(None, {"TIDEGATE_BROKER__KIND": kind}), "n1", metrics)
    assert f"\n{metric} 0.0\n" in metrics.text().decode()
    assert (broker.sweep_s is not None) == swept
    broker.sweep()


def test_the_embedded_broker_needs_no_client_of_redis() -> None:
    code = (
        "import sys; from tidegate.brokers import registry; from tidegate.config import load; "
        "from tidegate.metrics import Metrics; registry.make(load.load(None, {}), 'n1', Metrics()); "
        "print([name for name in ('redis', 'hiredis') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
