"""docs/security.md says what is so."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from tests.support import ROOT
from tidegate.config.load import ConfigError, load
from tidegate.config.settings import Config

TEXT = (ROOT / "docs/security.md").read_text()


def _defaults() -> dict[str, str]:
    table = TEXT.split("## Defaults")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([\w.]+)` \| ([^|]+?) \|", table, re.MULTILINE))


def test_the_defaults_are_those_of_the_settings() -> None:
    settings = msgspec.to_builtins(Config())
    told = _defaults()
    assert len(told) > 10
    for key, words in told.items():
        value: Any = settings
        for name in key.split("."):
            value = value[name]
        values = value if isinstance(value, list) else [value]
        shown = ["`" + (str(one).lower() if isinstance(one, bool) else str(one)) + "`" for one in values]
        assert words == (", ".join(shown) or "none"), key


@pytest.mark.parametrize("open_to_all", ["SERVER__ADDRESS", "INTERNAL__ADDRESS"])
def test_what_opens_a_port_to_others_is_refused_unless_it_is_said_in_so_many_words(open_to_all: str) -> None:
    environ = {f"TIDEGATE_{open_to_all}": "0.0.0.0"}
    with pytest.raises(ConfigError):
        load(None, environ)
    name = {"SERVER__ADDRESS": "AUTH__ANONYMOUS_ANYWHERE", "INTERNAL__ADDRESS": "INTERNAL__KEYLESS_ANYWHERE"}[
        open_to_all
    ]
    load(None, environ | {f"TIDEGATE_{name}": "true"})


def test_every_setting_that_is_named_is_one() -> None:
    settings = msgspec.to_builtins(Config())
    named = set(re.findall(r"`((?:server|internal|auth|edge|trunk|calls|events|limits|log|broker)\.\w+)[:`]", TEXT))
    assert (
        named
        - {f"{section}.{name}" for section, those in settings.items() if isinstance(those, dict) for name in those}
        == set()
    )
    assert len(named) > 15


def test_of_groups_what_is_off_until_it_is_allowed() -> None:
    policy = Config().policy("any")
    assert (policy.join, policy.history, policy.publish, policy.presence) == ("anyone", "members", "nobody", "nobody")
