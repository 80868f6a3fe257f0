from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from tidegate.app import App
from tidegate.brokers.redis import vitals
from tidegate.brokers.redis.vitals import Vitals
from tidegate.config.settings import BrokerSettings, Config
from tidegate.metrics import _FAST, Metrics


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.0001, 0.00011, 0.3, 1.0, 9.5, 10.0, 60.0]), st.integers(1, 4))))
def test_durations_are_told_as_a_prometheus_histogram(seen: list[tuple[float, int]]):
    metrics, registry = Metrics(), CollectorRegistry()
    peer = Histogram("tidegate_call_seconds", "Calls by outcome.", ["outcome"], buckets=_FAST, registry=registry)
    peer.labels("reply")
    for seconds, times in seen:
        metrics.call_seconds["reply",].observe(seconds, times)
        for _ in range(times):
            peer.labels("reply").observe(seconds)
    mine, theirs = told(metrics.text()), told(generate_latest(registry))
    total = 'tidegate_call_seconds_sum{outcome="reply"}'
    assert abs(float(mine.pop(total, "0")) - float(theirs.pop(total, "0"))) < 1e-6
    assert mine == theirs


def test_a_push_is_counted_by_the_kind_of_its_address_where_it_had_one() -> None:
    metrics = Metrics()
    for stream in ("client:a", "group:a", "all", ""):
        metrics.pushed(stream, "rejected")
    assert {kind for kind, _ in metrics.pushes} == {"client", "group", "all", "unknown"}


def test_what_is_told_apart_is_there_from_the_start_at_0() -> None:
    metrics = App(Config(broker=BrokerSettings(kind="redis"))).metrics
    text = metrics.text().decode()
    labelled = [metric for metric in metrics.described() if metric.labels]
    assert len(labelled) > 15
    for metric in labelled:
        sample = f"{metric.name}_count" if metric.kind == "histogram" else metric.name
        values = re.findall(rf"^{sample}{{.*}} (.*)$", text, re.MULTILINE)
        assert values, metric.name
        if metric.kind != "gauge":
            assert set(values) == {"0.0"}, metric.name


def test_what_was_not_foreseen_is_found() -> None:
    metrics = Metrics()
    assert metrics.unforeseen() == {}
    metrics.refusals["of_tomorrow",] += 1
    metrics.call_seconds["late",].observe(1)
    assert metrics.unforeseen() == {"tidegate_refusals": {("of_tomorrow",)}, "tidegate_call_seconds": {("late",)}}


def test_each_reason_for_which_every_epoch_changes_is_counted() -> None:
    script = (Path(vitals.__file__).parent / "lua" / "begin.lua").read_text()
    lines = [line for line in script.splitlines() if re.search(r"\bwhy\b.* = ", line)]
    words = set(re.findall(r"'([^']*)'", " ".join(lines))) - {"same", "", "0", "lost", "no word of "}
    seen = Vitals(lambda: True)
    for why in (*words, "no word of n2"):
        seen.went_back(why)
    seen.emptied()
    assert set(seen._resets.values()) == {1}


def test_limits_and_the_process_are_told() -> None:
    text = App(Config(), "n1").metrics.text().decode()
    assert '\ntidegate_limit{key="limits.connections"} 15000.0\n' in text
    assert '\ntidegate_limit{key="heartbeat.websocket_ping_timeout"} 60.0\n' in text
    assert re.search(r'^tidegate_build_info{broker="memory",node="n1",python=".*",version=".*"} 1.0$', text, re.M)
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_virtual_memory_bytes"):
        (value,) = re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)
        assert float(value) > 0.05
    (begun_s,) = re.findall(r"^process_start_time_seconds (\S+)$", text, re.MULTILINE)
    assert abs(time.time() - float(begun_s)) < 60


def told(text: bytes) -> dict[str, str]:
    lines = [
        line for line in text.decode().splitlines() if line.startswith("tidegate_call_seconds_") and "reply" in line
    ]
    return dict(line.rsplit(" ", 1) for line in lines)


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_what_is_described_is_what_is_told(kind: Literal["memory", "redis"]) -> None:
    """And a node that is not started has all its metrics, as the table in docs/operations.md takes for granted."""
    metrics = App(Config(broker=BrokerSettings(kind=kind))).metrics
    families = {family.name: family for family in metrics.collect()}
    described = metrics.described()
    assert {metric.name.removesuffix("_total") for metric in described} == families.keys()
    for metric in described:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.text)
        assert metric.text.endswith(".")
