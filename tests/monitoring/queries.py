"""What queries in PromQL ask for: the names of metrics, and what their labels must be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Set
from typing import Any, NamedTuple

import yaml

from tests.support import ROOT

FOLDER = ROOT / "deploy/monitoring"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((FOLDER / "prometheus/tidegate.rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana/tidegate.json").read_text())

OURS = {"job", "instance"}  # Prometheus adds these labels to each series
OF_PROMETHEUS = {"up", "ALERTS"}

_TOKEN = re.compile(
    r"""(?P<string>"[^"]*") | (?P<range>\[[^\]]*\]) | (?P<number>\d[\w.]*)
    | (?P<name>[A-Za-z_:][\w:]*) | (?P<other>\S)""",
    re.VERBOSE,
)
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_OPERATORS = {"and", "or", "unless", "bool", "offset"}
_LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}  # of labels


class Selector(NamedTuple):
    """One metric in a query; ``values``: of each label that is named, what it may, or may not, be."""

    name: str
    values: Mapping[str, Set[str]]


def selectors(query: str) -> Iterator[Selector]:
    tokens = [match for match in _TOKEN.finditer(query) if match.lastgroup not in ("range", "number")]
    at = 0
    while at < len(tokens):
        token = tokens[at]
        after = tokens[at + 1].group() if at + 1 < len(tokens) else ""
        at += 1
        if token.lastgroup != "name" or token.group() in _OPERATORS:
            continue
        if token.group() in _LISTS:
            if after == "(":
                at = next(n for n in range(at, len(tokens)) if tokens[n].group() == ")") + 1
        elif after == "{":
            end = next(n for n in range(at, len(tokens)) if tokens[n].group() == "}")
            text = query[tokens[at].end() : tokens[end].start()]
            at = end + 1
            yield Selector(token.group(), {label: set(value.split("|")) for label, _, value in _MATCHER.findall(text)})
        elif after not in ("(", "by", "without"):  # what stands before these is a function
            yield Selector(token.group(), {})


def panels() -> Iterator[dict[str, Any]]:
    """Those of the dashboard that show something."""
    return (panel for panel in DASHBOARD["panels"] if panel["type"] not in ("row", "text"))


def queries() -> Iterator[tuple[str, str]]:
    """Where it stands, and the query: of each rule, panel, annotation and variable."""
    for rule in RULES:
        yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in panels():
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield (
                f"variable {variable['name']}",
                re.sub(r"label_values\((.*), *\w+\)", r"\1", variable["query"]["query"]),
            )
