"""The settings as values: what holds for all of them, and what groups and streams get."""

from __future__ import annotations

import pytest
from msgspec import inspect

from tidegate.config.load import load
from tidegate.config.section import Section
from tidegate.config.settings import POLICIES_KEPT, Config, GroupPolicy, HistorySettings
from tidegate.core.model import Retention


def _fields(kind: inspect.Type) -> list[inspect.Field]:
    assert isinstance(kind, inspect.StructType)
    return list(kind.fields)


def _settings() -> list[tuple[str, inspect.Field]]:
    sections = [field for field in _fields(inspect.type_info(Config)) if isinstance(field.type, inspect.StructType)]
    found = [(f"{section.name}.{field.name}", field) for section in sections for field in _fields(section.type)]
    found += [(f"groups.{field.name}", field) for field in _fields(inspect.type_info(GroupPolicy))]
    return found + [(f.name, f) for f in _fields(inspect.type_info(Config)) if f not in sections]


@pytest.mark.parametrize("field", [pytest.param(field, id=key) for key, field in _settings()])
def test_each_setting_has_a_sentence_a_default_and_if_a_number_its_limits(field: inspect.Field) -> None:
    kind = field.type
    assert isinstance(kind, inspect.Metadata)
    assert not field.required
    sentence = (kind.extra_json_schema or {})["description"]
    assert isinstance(sentence, str)
    assert sentence.endswith(".")
    kinds = kind.type.types if isinstance(kind.type, inspect.UnionType) else [kind.type]
    for one in kinds:
        if isinstance(one, inspect.IntType | inspect.FloatType):
            assert one.ge is not None
            assert one.le is not None


@pytest.mark.parametrize("section", Section.__subclasses__())
def test_each_section_says_what_it_is_about(section: type[Section]) -> None:
    assert section.__doc__


def test_the_first_pattern_that_covers_a_group_gives_its_policy() -> None:
    first, second = GroupPolicy(join="nobody"), GroupPolicy(publish="members")
    config = Config(groups={"news.*": first, "*": second})
    assert config.policy("news.sport") is first
    assert config.policy("news") is second
    assert Config(groups={"*": second, "news.*": first}).policy("news.sport") is second


def test_a_group_that_no_pattern_covers_has_the_default_policy() -> None:
    policy = Config(groups={"news": GroupPolicy(history="nobody")}).policy("chat")
    assert policy == GroupPolicy(join="anyone", publish="nobody", history="members", presence="nobody", slow="close")


def test_policies_of_ever_new_names_do_not_pile_up() -> None:
    config = Config(groups={"7*": GroupPolicy(publish="anyone")})
    for number in range(3 * POLICIES_KEPT):
        assert (config.policy(str(number)).publish == "anyone") is str(number).startswith("7")
    assert len(config._policies) <= POLICIES_KEPT


def test_retention_is_the_groups_own_where_its_policy_says_so() -> None:
    groups = {
        "short": GroupPolicy(messages=5),
        "brief": GroupPolicy(age_s=0.5),
        "both": GroupPolicy(messages=1, age_s=2),
    }
    config = Config(history=HistorySettings(messages=100, age_s=60), groups=groups)
    assert config.retention("group:short") == Retention(5, 60)
    assert config.retention("group:brief") == Retention(100, 0.5)
    assert config.retention("group:both") == Retention(1, 2)
    for stream in ("group:other", "client:short", "all"):
        assert config.retention(stream) == Retention(100, 60)


def test_defaults_pass_their_own_limits() -> None:
    assert load(None, {}) == Config()
