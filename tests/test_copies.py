"""What stands in two languages says the same in both.

The edges and the console have copies of what the service decides. Each is read here as text and compared. One that
cannot be found any more is an error too.
"""

from __future__ import annotations

import re

import pytest

from tests.support import ROOT
from tidegate import calls
from tidegate.auth import tokens
from tidegate.brokers.memory import keys as memory_keys
from tidegate.brokers.redis import streams
from tidegate.config import settings
from tidegate.core import model, protocol
from tidegate.core.errors import CloseCode, Refused
from tidegate.http import api, openapi, operations
from tidegate.nginx import render, render_njs, render_nodes
from tidegate.nginx.hardening import LINE_BYTES
from tidegate.websocket import peer

CONSOLE = "service/tidegate/http/console"
NUMBER = r"\d[\d_]*"


def found(path: str, pattern: str) -> re.Match[str]:
    """The one place in a file."""
    text = (ROOT / path).read_text()
    places = list(re.finditer(pattern, text, re.MULTILINE))
    assert len(places) == 1, f"{path}: {len(places)} places look like {pattern}"
    return places[0]


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(NUMBER, text)]


def constant(path: str, name: str) -> int:
    return int(found(path, rf"^(?:local|const|export const) {name} = ({NUMBER})\b")[1])


def refusals(base: type[Refused] = Refused) -> list[type[Refused]]:
    return [base, *(one for sub in base.__subclasses__() for one in refusals(sub))]


CODES = {cls.code: cls.status for cls in refusals() if "code" in vars(cls)}
COMMANDS = list(protocol.TYPES)

# Statuses


def test_both_edges_that_count_answers_tell_the_same_statuses_apart() -> None:
    lua = found("nginx/lua/metrics.lua", r"^local STATUSES = \{([\d,\s]+), \"other\",\s+\}")[1]
    njs = found("nginx/njs/metrics.js", r"^const STATUSES = \[([\d,\s']+)\];")[1]
    assert numbers(lua) == numbers(njs)


# Close codes

COME_BACK = {CloseCode.NO_STATUS, CloseCode.ABNORMAL, CloseCode.GOING_AWAY, CloseCode.INTERNAL_ERROR, CloseCode.RESTART}
FINAL = {code for code in CloseCode if code not in COME_BACK | {CloseCode.TRY_LATER} and not 4000 <= code < 4500}


def test_the_lua_edge_counts_each_close_code_by_itself() -> None:
    listed = found("nginx/lua/metrics.lua", r"^local CODES = \{([\d,\s]+), \"other\", \"cut\",\s+\}")[1]
    assert numbers(listed) == [code for code in CloseCode if code is not CloseCode.ABNORMAL]  # that is its `cut`


def test_the_edges_close_with_the_codes_of_the_service() -> None:
    line = found("nginx/lua/session.lua", r"^local (GOING_AWAY, [A-Z_, ]+) = ([\d, ]+)$")
    named = dict(zip(line[1].split(", "), numbers(line[2]), strict=True))
    ours = found("nginx/lua/session.lua", r"^local (UNACCEPTABLE_DATA, SLOW_CONSUMER) = ([\d, ]+)$")
    named |= dict(zip(ours[1].split(", "), numbers(ours[2]), strict=True))
    assert len(named) == 7
    assert named == {name: CloseCode[name] for name in named}
    assert constant("nginx/njs/session.js", "RESTART") == CloseCode.RESTART


def test_the_console_has_words_for_each_close_code() -> None:
    table = found(f"{CONSOLE}/client.js", r"^export const CLOSES = new Map\(\[\n((?:  \[.*\n)+)\]\);")[1]
    assert [int(code) for code in re.findall(rf"\[({NUMBER}), '.*'\]", table)] == list(CloseCode)


def test_the_javascript_library_comes_back_where_the_protocol_says_so() -> None:
    table = found("clients/js/src/closes.js", r"^const CODES = \{\n((?:  .*\n)+)\};")[1]
    rows = {int(code): delay for code, delay in re.findall(rf"({NUMBER}): \['\w+'(?:, '(\w+)')?\]", table)}
    assert set(rows) == set(CloseCode) - {CloseCode.NO_STATUS, CloseCode.ABNORMAL}
    assert {code for code, delay in rows.items() if not delay} == FINAL
    assert [code for code, delay in rows.items() if delay == "longer"] == [CloseCode.TRY_LATER]
    assert [code for code, delay in rows.items() if delay == "token"] == [CloseCode.TOKEN_EXPIRED]


@pytest.mark.parametrize("path", ["examples/vue-heartbeat/src/useTidegate.js", "examples/flutter/lib/tidegate.dart"])
def test_the_examples_give_up_where_the_protocol_says_so(path: str) -> None:
    final = found(path, r"\(?\[([\d, ]+)\]\.(?:includes|contains)\(code\) \|\| code >= (\d+)")
    listed, least = numbers(final[1]), int(final[2])
    assert {code for code in CloseCode if code in listed or code >= least} == FINAL
    assert int(found(path, r"_?(?:OVERLOADED|overloaded) = (\d+)")[1]) == CloseCode.TRY_LATER


def test_the_protocol_tells_the_same_of_each_close_code() -> None:
    rows = re.findall(r"^\| (\d{4}) \|.*\| ([^|]*) \|$", (ROOT / "docs/protocol.md").read_text(), re.MULTILINE)
    assert {int(code) for code, back in rows if back == "no"} == FINAL
    assert {int(code) for code, _ in rows} == set(CloseCode) - {CloseCode.NO_STATUS, CloseCode.ABNORMAL}


# Commands and calls


def test_the_console_offers_each_command() -> None:
    listed = found(f"{CONSOLE}/command.js", r"^const COMMANDS = \{\n((?:  .*\n)+)\};")[1]
    assert sorted(re.findall(r"^  (\w+): .*type: '\1'", listed, re.MULTILINE)) == sorted(COMMANDS)


@pytest.mark.parametrize("path", ["nginx/lua/calls.lua", "nginx/njs/calls.js"])
def test_an_answer_may_nest_as_deeply_at_an_edge(path: str) -> None:
    assert constant(path, "ANSWER_DEPTH") == calls.ANSWER_DEPTH


def test_ids_of_commands_are_as_long_at_an_edge() -> None:
    longest, largest = (
        int(found("service/tidegate/core/protocol.py", rf"^Id: .*{what}")[1])
        for what in (r"max_length=(\d+)", r"le=2\*\*(\d+)\)")
    )
    assert constant("nginx/lua/command.lua", "ID_CHARACTERS") == longest
    assert int(found("nginx/njs/command.js", r"id\.length <= (\d+) ")[1]) == longest + 2  # with its quotes
    assert found("nginx/lua/command.lua", r'^local LARGEST_ID = "(\d+)"')[1] == str(2**largest)
    assert 10 ** (1 + int(found("nginx/njs/command.js", r"\[0-9\]\{0,(\d+)\}\)\$/; // within 2\^53")[1])) < 2**largest


@pytest.mark.parametrize("path", ["service/tidegate/calls.py", "nginx/lua/calls.lua", "nginx/njs/calls.js"])
def test_a_request_of_a_call_has_the_same_headers_whoever_makes_it(path: str) -> None:
    named = set(re.findall(r"X-(?!Tidegate-Failed|Tidegate-Interim)[A-Za-z-]+", (ROOT / path).read_text()))
    assert named == {"X-Client-Id", "X-Connection-Id", "X-Request-Id", "X-Tidegate-Via"}


@pytest.mark.parametrize(
    "paths",
    [
        ["nginx/njs/calls.js"],
        ["nginx/lua/calls.lua", "nginx/lua/callers.lua"],
        ["nginx/njs/metrics.js"],
        ["nginx/lua/metrics.lua"],
    ],
)
def test_the_codes_that_edges_answer_calls_with_are_the_services(paths: list[str]) -> None:
    text = "".join((ROOT / path).read_text() for path in paths)
    codes = set(re.findall(r"[\"'](call_\w+|too_many_\w+)[\"']", text))
    assert codes == {"call_timeout", "call_unavailable", "call_bad_answer", "too_many_calls"}
    assert codes <= set(CODES)


def test_what_nginx_says_of_a_call_is_what_njs_hears() -> None:
    rendered, heard = (ROOT / "nginx/conf.d/calls.inc").read_text(), (ROOT / "nginx/njs/calls.js").read_text()
    made = found("nginx/njs/interim.js", r"^const NAME = '(X-[\w-]+)';")[1]
    for name in ("X-Tidegate-Failed", made):
        assert f"proxy_hide_header {name};" in rendered
        assert f"answer.headers.get('{name}')" in heard
    assert set(re.findall(r"X-Tidegate-Failed (\w+) ", rendered)) <= set(CODES)


# Handshakes


def test_who_was_let_in_is_said_and_heard_in_the_same_headers() -> None:
    for name in ("Client", "Connection"):
        assert f"Tidegate-{name}: {{" in (ROOT / "service/tidegate/websocket/handshake.py").read_text()
        assert rf"\r\nTidegate-{name}: (" in (ROOT / "nginx/njs/handshake.js").read_text()
        assert f'answer.headers["tidegate-{name.lower()}"]' in (ROOT / "nginx/lua/edge.lua").read_text()


def test_nobody_outside_says_what_an_edge_says() -> None:
    ours = found("nginx/lua/handshake.lua", r"^local OURS = \{\n((?:    .*\n)+)\}")[1]
    for name in (settings.NEXT_HEADER, "X-Client-Id", "X-Connection-Id", "X-Tidegate-Via", "X-Request-Id"):
        assert f'["{name.lower()}"] = true' in ours


def test_what_an_edge_refuses_by_itself_has_a_code_of_the_service_and_its_status() -> None:
    said = re.findall(r"return (\d+) '\{\"error\":\{\"code\":\"(\w+)\"", (ROOT / "nginx/conf.d/errors.inc").read_text())
    assert len(said) >= 8
    for status, code in said:
        assert CODES[code] == int(status) or (code, status) == ("bad_request", "414")


def test_an_edge_goes_on_asking_for_addresses_as_often_in_each_variant() -> None:
    assert constant("nginx/lua/addresses.lua", "AGAIN_S") == render_nodes.RESOLVE_S


# Times and sizes


def test_signs_of_life_are_as_the_protocol_says() -> None:
    said = (ROOT / "docs/protocol.md").read_text()
    sign_s = constant("nginx/lua/session.lua", "SIGN_S")
    assert f"by an unsolicited pong, at most once in {sign_s} s" in said
    assert constant("nginx/njs/speech.js", "SIGN_MS") == sign_s * 1000
    assert f"within the last ping interval and {render_njs.PING_LATE_S} s more" in said


def test_the_lua_edge_waits_longer_than_the_service_for_the_end() -> None:
    assert constant("nginx/lua/session.lua", "CLOSE_S") > peer.CLOSE_S


def test_keys_are_remembered_as_long_by_each_broker_and_as_the_protocol_says() -> None:
    assert memory_keys.KEY_AGE_S * 1000 == streams.KEY_MS
    assert f"within {streams.KEY_MS // 60_000} minutes the same key" in (ROOT / "docs/protocol.md").read_text()


def test_names_have_one_alphabet() -> None:
    schemas = openapi.document(operations.OPERATIONS, settings.Config())["components"]["schemas"]
    for schema, expression in (("Id", model._ID), ("Epoch", model._EPOCH), ("Connection", api._CONNECTION)):
        assert schemas[schema]["pattern"].strip("^$").replace("+$)", r"+\Z)") + r"\Z" == expression.pattern
    assert found(f"{CONSOLE}/cursor.js", r"^const ID = /(.*)/;$")[1] == schemas["Id"]["pattern"]
    said = r"1-128 characters of A-Z a-z 0-9 _ \. @ -, not of dots only"
    for path, places in (
        ("core/protocol.py", 1),
        ("core/push.py", 1),
        ("http/handler.py", 1),
        ("websocket/handshake.py", 2),
    ):
        assert len(re.findall(said, (ROOT / "service/tidegate" / path).read_text())) == places
    assert r"{1,128}" in model._ID.pattern


def test_lengths_of_names_and_keys_are_the_same_everywhere() -> None:
    longest = openapi.document(operations.OPERATIONS, settings.Config())["components"]["schemas"]["Key"]["maxLength"]
    assert f"{{1,{longest}}}" in model._ID.pattern
    assert longest == model.KEY_CHARACTERS
    html = (ROOT / CONSOLE / "index.html").read_text()
    assert {int(size) for size in re.findall(r'maxlength="(\d+)"', html)} == {longest}


def test_cursors_and_tokens_are_as_long_as_the_protocol_says() -> None:
    said = (ROOT / "docs/protocol.md").read_text()
    assert f"It has {model.CURSOR_BYTES} characters at most" in said
    assert constant("clients/js/src/cursor.js", "CURSOR_CHARS") == model.CURSOR_BYTES
    assert f"request lines of {LINE_BYTES // 1024} KiB through" in said
    assert f"An event is never longer than {settings.EVENT_BYTES // 1024} KiB" in said
    assert f"frames of {render.FRAME_BYTES // 1024} KiB" in said
    assert tokens.TOKEN_BYTES <= LINE_BYTES


def test_both_edges_that_read_an_answers_head_read_as_much() -> None:
    assert constant("nginx/njs/handshake.js", "HEAD_BYTES") == constant("nginx/lua/http1.lua", "HEAD_BYTES")


def test_the_image_and_compose_know_the_ports() -> None:
    public, internal = settings.Config().server.port, settings.Config().internal.port
    assert found("Dockerfile", r"^EXPOSE (.*)$")[1] == f"{public} {internal}"
    assert found("Dockerfile", r"TIDEGATE_INTERNAL__PORT', '(\d+)'")[1] == str(internal)


def test_what_redis_keeps_of_rejected_pushes_is_what_the_manual_says() -> None:
    most = int(found("service/tidegate/brokers/redis/lua/ingress.lua", r"XADD', rejected, 'MAXLEN', '=', '(\d+)'")[1])
    assert f"capped at {most:,}" in (ROOT / "docs/scaling.md").read_text()


def test_text_heartbeats_are_the_same_words_everywhere() -> None:
    answers = {said.decode(): frame[2:].decode() for said, frame in peer._PONGS.items()}
    answers |= {said.decode(): "" for said in peer._SIGNS_OF_LIFE}
    lua = found("nginx/lua/session.lua", r"^local HEARTBEATS = \{ (.*) \}$")[1]
    assert dict(re.findall(r'(\w+) = "(\w*)"', lua)) == answers
    njs = found("nginx/njs/session.js", r"^const HEARTBEATS = \[(.*)\]\.map")[1]
    assert dict(re.findall(r"\['(\w+)', '(\w*)'\]", njs)) == answers
