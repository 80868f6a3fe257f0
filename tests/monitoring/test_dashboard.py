"""The dashboard, and that Grafana and Prometheus in containers find what they are given."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import yaml

from tests.monitoring.queries import DASHBOARD, FOLDER, panels, queries
from tests.monitoring.test_rules import promtool
from tests.support import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
PRODUCTION: dict[str, Any] = yaml.safe_load((ROOT / "compose.production.yaml").read_text())
NOT_PANELS = {"Targets", "Service Discovery"}  # pages of Prometheus


def test_prometheus_understands_each_query(tmp_path: Path) -> None:
    rules = [
        {
            "record": f"query:{number}",
            "expr": query.replace("$__rate_interval", "1m").replace("$instance", ".*"),
        }
        for number, (_, query) in enumerate(queries())
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", file)


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    for one, other in itertools.combinations((panel["gridPos"] for panel in everything), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


def test_the_runbook_names_panels_that_there_are() -> None:
    runbook = (ROOT / "docs/runbook.md").read_text()
    named = set(re.findall(r"(?<!\*)\*([A-Z][^*\n]*)\*(?!\*)", runbook)) - NOT_PANELS
    titles = {panel["title"] for panel in panels()}
    assert named <= titles
    assert len(named) > 5


def test_containers_are_given_files_that_there_are() -> None:
    """At the paths that the files themselves name."""
    files = {name: ROOT / config["file"] for name, config in COMPOSE["configs"].items()}
    assert all(path.is_file() for path in files.values())
    given = {
        config["target"]: files[config["source"]]
        for name in ("prometheus", "grafana")
        for config in COMPOSE["services"][name]["configs"]
    }
    assert set(given.values()) == set(files.values())
    prometheus = yaml.safe_load(given["/etc/prometheus/prometheus.yml"].read_text())
    for rules in prometheus["rule_files"]:
        assert f"/etc/prometheus/{rules}" in given
    (provider,) = yaml.safe_load((FOLDER / "grafana/dashboards.yml").read_text())["providers"]
    assert given[f"{provider['options']['path']}/tidegate.json"].name == "tidegate.json"
    (source,) = yaml.safe_load((FOLDER / "grafana/datasources.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"


def test_prometheus_looks_for_the_services_of_compose() -> None:
    """By their names, at the ports where they have their metrics."""
    prometheus = yaml.safe_load((FOLDER / "prometheus/compose.yml").read_text())
    jobs = {job["job_name"]: job["dns_sd_configs"][0] for job in prometheus["scrape_configs"]}
    nodes = set()
    for compose in (COMPOSE, PRODUCTION):
        settings, services = compose["x-settings"], compose["services"]
        nodes |= {name for name in services if name == "service" or name.startswith("node")}
        assert set(jobs["tidegate-edge"]["names"]) == {
            name for name, service in services.items() if service.get("profiles") == [name]
        }
        assert settings["TIDEGATE_EDGE__INTERNAL"].endswith(f":{jobs['tidegate-edge']['port']}")
        assert settings["TIDEGATE_INTERNAL__PROBES_BY_ADDRESS"] == "true"
        for name in nodes & services.keys():
            assert services[name]["ports"][0].endswith(f":{jobs['tidegate']['port']}")
    assert set(jobs["tidegate"]["names"]) == nodes


def test_production_is_watched_as_the_trial_is() -> None:
    assert PRODUCTION["configs"] == COMPOSE["configs"]
    for name in ("prometheus", "grafana"):
        assert PRODUCTION["services"][name]["extends"] == {"file": "compose.yaml", "service": name}
    reached = set(PRODUCTION["services"]["prometheus"]["networks"])
    for name in ("node1", "plain", "grafana"):
        assert reached & set(PRODUCTION["services"][name]["networks"]), name
