"""What rules and dashboard ask for is there: in /metrics of a running node, or of an edge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.brokers.server import RedisServer
from tests.edges.edge import Edge, ask
from tests.monitoring.queries import OF_PROMETHEUS, OURS, RECORDED, Selector, queries, selectors
from tests.service_fixture import running

EDGES = ("plain", "njs", "openresty")

Found = dict[str, dict[str, set[str]]]  # name of a series -> label -> its values


def read(text: str, found: Found) -> None:
    for family in text_string_to_metric_families(text):
        named = {
            "counter": [f"{family.name}_total"],
            "histogram": [f"{family.name}_{part}" for part in ("bucket", "count", "sum")],
            "summary": [f"{family.name}_{part}" for part in ("count", "sum")],
        }.get(family.type, [family.name])
        for name in named:
            found.setdefault(name, defaultdict(set))
        for sample in family.samples:
            for label, value in sample.labels.items():
                found[sample.name][label].add(value)


def faults(found: Found) -> Iterator[str]:
    for where, query in queries():
        for name, values in selectors(query):
            if name in OF_PROMETHEUS | RECORDED:
                continue
            if name not in found:
                yield f"{where}: there is no {name}"
                continue
            for label in values.keys() - OURS:
                for value in values[label] - found[name][label]:
                    yield f'{where}: there is no {name}{{{label}="{value}"}}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """That nginx's workers may enter."""
    tmp_path.chmod(0o755)
    return tmp_path


async def test_each_query_names_what_a_node_or_an_edge_has(folder: Path) -> None:
    found: Found = {}
    with RedisServer() as redis:
        async with running(BROKER__KIND="redis", BROKER__URL=redis.url) as app:
            answer = await ask(app.internal_port, "GET", "/metrics")
            assert answer.headers["content-type"].startswith("text/plain; version=")
            read(answer.body.decode(), found)
            for variant in EDGES:
                (folder / variant).mkdir()
                edge = Edge(variant, folder / variant, {"EDGE__UPSTREAMS": [f"127.0.0.1:{app.public_port}"]})
                edge.start()
                try:
                    await edge.ready()
                    answer = await ask(edge.internal, "GET", "/metrics")
                finally:
                    edge.process.kill()
                assert answer.headers["content-type"].startswith("text/plain; version="), variant
                read(answer.body.decode(), found)
    assert list(faults(found)) == []


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("tidegate_ready == 0", [Selector("tidegate_ready", {})]),
        (
            'sum by (instance, le) (rate(a_bucket{le="0.1"}[5m] offset 10m)) > on (instance) group_left (x) 2 * b',
            [Selector("a_bucket", {"le": {"0.1"}}), Selector("b", {})],
        ),
        (
            'absent(up{job="tidegate"}) or a{code=~"1006|4007", by!="x"} unless b - time() < 14 * 86400',
            [
                Selector("up", {"job": {"tidegate"}}),
                Selector("a", {"code": {"1006", "4007"}, "by": {"x"}}),
                Selector("b", {}),
            ],
        ),
        ("a > ignoring(result) group_left 0.2 * sum(rate(b[5m])) > 0.2", [Selector("a", {}), Selector("b", {})]),
    ],
)
def test_a_query_is_read_as_prometheus_reads_it(query: str, asked: list[Selector]) -> None:
    assert list(selectors(query)) == asked
