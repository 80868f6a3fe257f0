from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

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


def told(text: bytes) -> dict[str, str]:
    lines = [line for line in text.decode().splitlines() if line.startswith("tidegate_call_seconds_")]
    return dict(line.rsplit(" ", 1) for line in lines)
