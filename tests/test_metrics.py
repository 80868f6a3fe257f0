from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from tidegate.app import App
from tidegate.config.settings import BrokerSettings, Config
from tidegate.metrics import _FAST, Metrics


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.0001, 0.00011, 0.3, 1.0, 9.5, 10.0, 60.0]), st.integers(1, 4))))
def test_durations_are_told_as_a_prometheus_histogram(seen: list[tuple[float, int]]):
    metrics, registry = Metrics(), CollectorRegistry()
    peer = Histogram("tidegate_call_seconds", "Calls by outcome.", ["outcome"], buckets=_FAST, registry=registry)
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


def told(text: bytes) -> dict[str, str]:
    lines = [line for line in text.decode().splitlines() if line.startswith("tidegate_call_seconds_")]
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
