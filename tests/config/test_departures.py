"""What differs from the defaults, for others to see."""

from __future__ import annotations

import json

from tidegate.config.departures import SHOWN_BYTES, departures
from tidegate.config.load import load


def of(**environ: str) -> dict[str, object]:
    return departures(load(None, {f"TIDEGATE_{name}": value for name, value in environ.items()}))


def test_only_what_differs_is_there() -> None:
    assert of() == {}
    assert of(HISTORY__MESSAGES="7", ORIGINS='["https://a.example"]') == {
        "history.messages": 7,
        "origins": ["https://a.example"],
    }


def test_secrets_are_told_apart_and_not_told() -> None:
    one, two = (of(AUTH__MODE="jwt", AUTH__KEY=secret * 32)["auth.key"] for secret in ("0123456789", "abcdefghij"))
    assert one != two
    assert [str(each)[:4] for each in (one, two)] == ["*** ", "*** "]
    assert len(str(one)) == 8
    assert of(BROKER__URL="redis://u:secret@h/0")["broker.url"] == "redis://***@h/0"


def test_what_is_long_is_cut_and_still_told_apart() -> None:
    groups = {f"g{n}": {"publish": "members"} for n in range(100)}
    one = of(GROUPS=json.dumps(groups))["groups"]
    two = of(GROUPS=json.dumps({**groups, "g99": {"publish": "nobody"}}))["groups"]
    assert one != two
    assert len(str(one)) < SHOWN_BYTES
