"""Each setting is read by a part of the service: one that nobody reads would be accepted, logged and without effect."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest

from tests.support import ROOT
from tidegate.config.section import Section
from tidegate.config.settings import Config, GroupPolicy

SOURCE = ROOT / "service" / "tidegate"

# What says whether a setting may be as it is has not put it to use.
JUDGES = {SOURCE / "check.py", SOURCE / "config" / "load.py", SOURCE / "config" / "contradictions.py"}

# Settings that allow what is refused without them: to be looked at there is their use.
CONSENTS = {"internal.keyless_anywhere", "auth.anonymous_anywhere"}


def _sections() -> dict[str, type[Section]]:
    found = {name: kind for name, kind in get_type_hints(Config).items() if isinstance(kind, type)}
    return {name: kind for name, kind in found.items() if issubclass(kind, Section)} | {"groups": GroupPolicy}


SECTIONS = _sections()
BY_CLASS = {kind.__name__: name for name, kind in SECTIONS.items()}
KEYS = [f"{name}.{field}" for name, kind in SECTIONS.items() for field in kind.__struct_fields__]
KEYS += [name for name in Config.__struct_fields__ if name not in SECTIONS or name == "groups"]


class Reads:
    """The settings that a module reads, by its source: ``….section.field``, or ``x.field`` where ``x`` is a section by
    its annotation or by what was assigned to it."""

    def __init__(self, source: str) -> None:
        tree = ast.parse(source)
        self._named: defaultdict[str, set[str]] = defaultdict(set)  # variable or attribute -> sections that it may be
        for _ in range(2):  # self._x = x, where x is known only by then
            for node in ast.walk(tree):
                self._learn(node)
        self.keys = {key for node in ast.walk(tree) if isinstance(node, ast.Attribute) for key in self._read(node)}

    def _learn(self, node: ast.AST) -> None:
        match node:
            case ast.arg(arg=name, annotation=annotation) if annotation is not None:
                self._annotated(name, annotation)
            case ast.AnnAssign(target=ast.Name(id=name) | ast.Attribute(attr=name), annotation=annotation):
                self._annotated(name, annotation)
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                for target, value in zip(targets, values, strict=True):
                    self._assigned(target, value)
            case ast.Assign(targets=[target], value=value):
                self._assigned(target, value)
            case ast.For(target=target, iter=ast.Tuple(elts=values)):
                for value in values:
                    self._assigned(target, value)

    def _annotated(self, name: str, annotation: ast.expr) -> None:
        section = BY_CLASS.get(ast.unparse(annotation))
        if section is not None:
            self._named[name].add(section)

    def _assigned(self, target: ast.expr, value: ast.expr) -> None:
        match target, value:
            case ast.Tuple(elts=[first, *_]), ast.Tuple(elts=[value, *_]):
                self._assigned(first, value)
            case ((ast.Name(id=name) | ast.Attribute(attr=name)), _):
                self._named[name] |= set(self._sections_of(value))

    def _sections_of(self, value: ast.expr) -> Iterator[str]:
        match value:
            case ast.Call(func=ast.Attribute(attr="policy")):
                yield "groups"
            case ast.IfExp(body=one, orelse=other):
                yield from (*self._sections_of(one), *self._sections_of(other))
            case ast.Attribute(attr=name) | ast.Name(id=name):
                if isinstance(value, ast.Attribute) and name in SECTIONS:
                    yield name
                yield from self._named.get(name, ())

    def _read(self, node: ast.Attribute) -> Iterator[str]:
        if node.attr in Config.__struct_fields__:
            yield node.attr
        for section in self._sections_of(node.value):
            yield f"{section}.{node.attr}"


def read_in(paths: list[Path]) -> set[str]:
    return set[str]().union(*(Reads(path.read_text()).keys for path in paths))


def test_each_setting_is_read_by_what_it_is_for() -> None:
    found = read_in([path for path in sorted(SOURCE.rglob("*.py")) if path not in JUDGES])
    assert [key for key in KEYS if key not in found | CONSENTS] == []


def test_a_consent_is_looked_at_where_things_are_refused() -> None:
    assert read_in([SOURCE / "config" / "contradictions.py"]) >= CONSENTS


@pytest.mark.parametrize(
    ("source", "keys"),
    [
        ("x = config.limits.connections", {"limits", "limits.connections"}),
        ("limits = config.limits\nlimits.connections", {"limits", "limits.connections"}),
        ("def f(auth: AuthSettings): return auth.key", {"auth.key"}),
        ("class A:\n  def __init__(self, a: AuthSettings): self._a = a\n  def f(self): self._a.key", {"auth.key"}),
        ("def f(own: LimitsSettings): return own.nothing", set()),
        ("for one in (c.server, c.internal): one.port", {"server", "internal", "server.port", "internal.port"}),
        ("p = config.policy(group)\np.join", {"groups.join"}),
        ("config.policy(group).join", {"groups.join"}),
        ("other.port", set()),
        ("config.origins", {"origins"}),
    ],
)
def test_the_check_knows_the_ways_in_which_settings_are_read(source: str, keys: set[str]) -> None:
    assert Reads(source).keys & {*KEYS, *SECTIONS} == keys
