"""Patterns: what they cover, against a regular expression as the plain reading of the rule."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.patterns import is_pattern, matches


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("news", "news", True),
        ("news", "news2", False),
        ("news", "new", False),
        ("*", "anything@all", True),
        ("news*", "news", True),
        ("news*", "news.sport", True),
        ("news*", "old.news", False),
        ("*.news", "old.news", True),
        ("*.news", "old.news.", False),
        ("team-*-chat", "team-7-chat", True),
        ("team-*-chat", "team-chat", False),
        ("team-*-chat", "team--chat", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*b*a", "aba", True),
        ("a*b*a", "aa", False),
        ("a**b", "ab", True),
        ("News", "news", False),
        ("n.ws", "news", False),
    ],
)
def test_a_pattern_covers_the_whole_name_and_a_star_any_run(pattern: str, name: str, covered: bool) -> None:
    assert matches(pattern, name) is covered


_few = "ab.-"


@given(st.text(_few + "*", min_size=1, max_size=8), st.text(_few, min_size=1, max_size=12))
def test_it_agrees_with_a_regular_expression(pattern: str, name: str) -> None:
    assert matches(pattern, name) is bool(re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name))


def test_many_stars_take_no_longer_than_few() -> None:
    started = time.thread_time()
    assert not matches("a*" * 63 + "b", "a" * 128)
    assert time.thread_time() - started < 0.1


@pytest.mark.parametrize("text", ["*", "news", "news*", "a.b_c-d@e*", "x" * 128])
def test_the_alphabet_is_an_ids_and_the_star(text: str) -> None:
    assert is_pattern(text)


@pytest.mark.parametrize("text", ["", "x" * 129, "news sport", "news?", "group:news", "né", "news\n", "[ab]"])
def test_everything_else_is_no_pattern(text: str) -> None:
    assert not is_pattern(text)
