"""The corpus is right, in each target; and a fault that is planted is found."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.fuzz import __main__ as command
from tests.fuzz import corpus, entries, mutation, one, parsers
from tests.fuzz.targets import TARGETS
from tests.support import Logs
from tidegate.auth import callback, tokens
from tidegate.brokers.redis import ingress
from tidegate.config import load
from tidegate.core import frames, model, protocol
from tidegate.nginx import check as nginx_check
from tidegate.trunk import codec

GUIDED = [name for name, target in TARGETS.items() if target.kind == "guided"]
COMPARED = [name for name, target in TARGETS.items() if target.kind == "compared"]

_check_depth = protocol.check_depth


def _no_words(*args: Any) -> Any:
    raise KeyError("what the command does not catch")


def _stricter(payload: bytes, most: int) -> None:
    _check_depth(payload, most - 1)


# Where, and what is put there.
PLANTS: dict[str, tuple[Any, str, Any]] = {
    "frames": (frames, "may_be_sent", lambda code: True),
    "commands": (protocol, "check_depth", _stricter),
    "cursors": (model, "is_stream", lambda name: True),
    "tokens": (tokens, "is_id", lambda text: True),
    "callbacks": (callback, "is_id", lambda text: True),
    "configs": (load, "masked", lambda key, value: value),
    "entries": (ingress, "check_data", lambda data, limits: data),
    "trunks": (codec, "MOST_BYTES", 2**40),
    "nginx": (nginx_check, "check_dump", _no_words),
    "json": (protocol, "check_depth", _stricter),
    "calls": (protocol, "check_size", lambda data, most: data),
    "edge-frames": (parsers, "_code", lambda error: 1002),
    "edge-trunks": (codec, "MOST_BYTES", 2**40),
}


@pytest.fixture(autouse=True)
def _noise(expected_logs: Logs) -> None:
    expected_logs.allow("trunk.broken")


@pytest.mark.parametrize("name", GUIDED)
def test_the_corpus_is_right(name: str) -> None:
    check = TARGETS[name].check()
    assert [(data, said) for data in corpus.read(name) if (said := one.failure(check, data))] == []


@pytest.mark.parametrize("name", GUIDED)
def test_a_planted_fault_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check = TARGETS[name].check()
    monkeypatch.setattr(*PLANTS[name])
    found = one.loop(TARGETS[name], corpus.read(name), 30, 1, one.checked(check))
    assert found.found
    assert one.failure(check, found.smallest)
    monkeypatch.undo()
    assert one.failure(check, found.smallest) == ""


@pytest.mark.parametrize("name", COMPARED)
def test_the_parsers_agree_about_the_corpus_and_a_planted_fault_is_found(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, seeds = TARGETS[name], corpus.read(name)
    with target.parsers() as three:
        assert list(three.check(seeds)) == []
        monkeypatch.setattr(*PLANTS[name])
        assert next(three.check(seeds), None) is not None


def test_every_target_has_a_corpus_and_a_plant() -> None:
    named = {file.stem for file in corpus.FOLDER.iterdir()}
    assert named == {*GUIDED, *COMPARED} == {*PLANTS}


# The loop


def test_mutants_are_near_their_seeds_and_the_same_again() -> None:
    def made() -> list[bytes]:
        chance = random.Random(7)
        return [mutation.mutant(chance, [b"abcdefgh" * 4, b"12345678"], [b"<word>"]) for _ in range(300)]

    assert made() == made()
    assert len(set(made())) > 250
    assert any(b"<word>" in one for one in made())
    assert sum(b"abcd" in one or b"1234" in one for one in made()) > 150


@pytest.mark.parametrize(
    ("fails", "smallest"),
    [
        (lambda data: b"x" in data, b"x"),
        (lambda data: b"<" in data and b">" in data[data.index(b"<") :], b"<>"),
        (lambda data: len(data) > 9, b"a" * 10),
    ],
)
def test_what_is_found_is_made_small(fails: Callable[[bytes], bool], smallest: bytes) -> None:
    assert mutation.smallest(b"some <long> text with an x in it" * 3, fails) == smallest


def test_an_input_without_an_end_is_a_find(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one, "HANG_S", 0.05)

    def check(data: bytes) -> None:
        while True:
            pass

    assert one.failure(check, b"") == "TimeoutError: no end within 0.05 s"


def test_a_find_ends_with_1_and_the_smallest_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, *_: object) -> dict[str, Any]:
        return {"executions": 5, "smallest": "b'x'", "found": "ValueError: no" if name == "json" else ""}

    monkeypatch.setattr(command, "_run", run)
    assert command.main(["frames", "json", "--seconds", "1"]) == 1
    assert "json: ValueError: no\n  b'x'\n" in capsys.readouterr().out
    assert command.main(["frames", "--seconds", "1"]) == 0


@pytest.mark.slow  # instrumenting alone takes seconds
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="has no wheel for this Python")
@pytest.mark.parametrize("name", ["cursors", "entries"])
def test_guided_by_branches_thousands_are_tried_in_a_second(name: str) -> None:
    outcome = one.run(name, 2, seed=1)
    assert outcome.executions > 2000
    assert outcome.found == ""


@pytest.mark.slow  # a service, and a hundred requests
def test_the_api_answers_as_it_is_described() -> None:
    executions, found = one.run("api", 5, seed=1)[::2]
    assert executions > 50
    assert found == ""


def test_the_limits_of_entries_are_those_of_the_api() -> None:
    assert msgspec.structs.asdict(entries.LIMITS) == {
        name: getattr(entries._api.config.limits, name) for name in ("data_bytes", "json_depth")
    }
