"""Alerts: each fires on its fault alone, has a heading in the runbook, and a word for who is woken up."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.monitoring.queries import ALERTS, FOLDER
from tests.support import ROOT

PROMETHEUS = FOLDER / "prometheus"
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
TESTS = yaml.safe_load((PROMETHEUS / "tidegate.test.yml").read_text())


def promtool(*args: str | Path) -> str:
    done = subprocess.run(["promtool", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("name", ["compose.yml", "hosts.yml"])
def test_prometheus_takes_its_configuration(name: str) -> None:
    assert f"{len(ALERTS) + 1} rules found" in promtool("check", "config", PROMETHEUS / name)


def test_each_alert_fires_on_its_fault_and_no_other_does() -> None:
    """In deploy/monitoring/prometheus/tidegate.test.yml, which asks for all that fire."""
    promtool("test", "rules", PROMETHEUS / "tidegate.test.yml")


def test_a_rolling_upgrade_and_its_storms_are_quiet() -> None:
    promtool("test", "rules", PROMETHEUS / "quiet.test.yml")


def test_each_alert_has_its_fault_and_a_quiet_moment() -> None:
    (day,) = TESTS["tests"]
    expected = [check["exp_samples"] for check in day["promql_expr_test"]]
    alone = [re.findall(r'"(\w+)"', samples[0]["labels"])[0] for samples in expected if len(samples) == 1]
    assert set(alone) == ALERTS.keys()
    assert [] in expected
    assert {check["expr"] for check in day["promql_expr_test"]} == {
        'group by (alertname) (ALERTS{alertstate="firing"})'
    }


def test_each_alert_has_its_heading_in_the_runbook() -> None:
    headings = re.findall(r"^### (Tidegate\w+)$", RUNBOOK, re.MULTILINE)
    assert sorted(headings) == sorted(ALERTS)
    for name, alert in ALERTS.items():
        assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_each_heading_says_what_to_look_at_or_to_do() -> None:
    for section in re.split(r"^#+ ", RUNBOOK, flags=re.MULTILINE):
        name, _, text = section.partition("\n")
        if name in ALERTS:
            assert "**Do.**" in text or "It needs no restart" in text, name
            assert ALERTS[name]["labels"]["severity"] in ("critical", "warning")
            assert ALERTS[name]["annotations"].keys() == {"summary", "description", "runbook_url"}
