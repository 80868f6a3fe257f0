"""What words of a configuration mean, as nginx reads them."""

from __future__ import annotations

import pytest

from tidegate.nginx.values import number, regex, seconds, size


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("90s", 90), ("1m30s", 90), ("1h 30m", 5400), ("500ms", 0.5), ("2d", 172_800), ("1M", 2_592_000)],
)
def test_a_time_is_in_seconds_unless_it_says_otherwise(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("0", 0), ("1024", 1024), ("8k", 8192), ("1M", 1024**2), ("2g", 2**31)])
def test_a_size_has_a_unit_of_either_case(text: str, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "x", "-1", "1x", "$a", "\u0661", "9" * 5000])
def test_what_is_no_number_is_none(text: str) -> None:
    assert (seconds(text), size(text), number(text)) == (None, None, None)


@pytest.mark.parametrize(
    ("pattern", "text", "groups"),
    [
        ("^/(?<name>[[:alpha:]]+)/$", "/live/", {"name": "live"}),
        ("^(?P<a>.)(?:b)", "ab", {"a": "a"}),
        ("[[a-z]+", "[", {}),
        (r"\.php\z", "a.php", {}),
    ],
)
def test_expressions_are_those_of_pcre(pattern: str, text: str, groups: dict[str, str]) -> None:
    compiled = regex(pattern)
    assert compiled is not None
    found = compiled.search(text)
    assert found is not None
    assert found.groupdict() == groups


def test_an_expression_that_is_not_understood_is_none() -> None:
    assert [regex(pattern) for pattern in ("(", "a(?i)b", "(?<1>a)", "*")] == [None] * 4
