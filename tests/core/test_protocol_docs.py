"""docs/protocol.md and vectors/protocol.json say the same as the code, and as each other."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import msgspec
import pytest

from tests.scenarios import VECTORS
from tests.support import ROOT
from tidegate import metrics
from tidegate.brokers.redis import backlog, ingress
from tidegate.config.load import Config
from tidegate.config.settings import LimitsSettings
from tidegate.core import protocol
from tidegate.core.errors import CloseCode, Refused
from tidegate.core.model import Gap, Position, decode_cursor, encode_cursor, is_id

TEXT = (ROOT / "docs" / "protocol.md").read_text()


def rows(heading: str, number: int = 1) -> list[list[str]]:
    """The cells of the first table under a heading, or of another one."""
    section = re.split(r"^#+ ", TEXT.split(f"\n{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    table = re.findall(r"(?:^\|.*\n)+", section, flags=re.MULTILINE)[number - 1]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]


def refusals(base: type[Refused] = Refused) -> list[type[Refused]]:
    return [base, *(found for sub in base.__subclasses__() for found in refusals(sub))]


# Tables


def test_every_error_is_in_the_table_with_its_status() -> None:
    own = {cls.code: cls.status for cls in refusals() if "code" in vars(cls)}
    assert {code.strip("`"): int(status) for code, status, _ in rows("## Errors")} == own


def test_every_refusal_of_a_handshake_is_in_its_table() -> None:
    statuses = {cls.code: str(cls.status) for cls in refusals()} | {"too_many_groups": "400"}
    table = {
        code: status
        for status, codes, *_ in rows("### When the handshake is refused")
        for code in re.findall(r"`(\w+)`", codes)
    }
    hardly_http = {"too_slow", "headers_too_large", "too_large"}  # behind the table
    assert table.keys() == set(metrics._HANDSHAKES) - hardly_http
    for code, status in table.items():
        assert statuses[code] in status, code


def test_every_refusal_that_is_to_be_tried_again_says_when() -> None:
    for refusal in refusals():
        assert refusal.status not in (429, 503) or int(refusal("").headers["Retry-After"]) > 0


def test_every_close_code_is_in_the_table_with_its_reason() -> None:
    never_sent = (CloseCode.NO_STATUS, CloseCode.ABNORMAL)
    table = [(code, reason) for codes, reason, *_ in rows("## Close codes") for code in map(int, codes.split(","))]
    assert table == [(int(code), code.reason) for code in CloseCode if code not in never_sent]


def test_every_limit_is_in_the_table_with_its_default() -> None:
    defaults = msgspec.to_builtins(LimitsSettings())
    assert {name.strip("`"): float(default.split()[0]) for _, default, _, name in rows("## Limits")} == defaults


def test_other_defaults_are_the_settings() -> None:
    config = Config()
    for text in (
        f"every `ping_interval` seconds ({config.heartbeat.websocket_ping_interval:g})",
        f"for `ping_timeout` seconds ({config.heartbeat.websocket_ping_timeout:g})",
        f"`write_timeout_s` ({config.heartbeat.write_timeout_s:g} s)",
        f"`history.meta_age_s`, {config.history.meta_age_s / 86400:g} days",
        f"`auth.leeway_s` ({config.auth.leeway_s} s)",
        f"`calls.timeout_s` ({config.calls.timeout_s:g} s)",
        f"`GET {config.server.path}`",
        f"port {config.server.port} of a node",
        f"the internal port ({config.internal.port})",
    ):
        assert text in TEXT


def test_every_command_has_a_section() -> None:
    commands = TEXT.split("\n## Commands\n")[1].split("\n## ")[0]
    tags = [kind.__struct_config__.tag for kind in protocol.Command.__args__]
    assert re.findall(r"^### (.*)", commands, flags=re.MULTILINE) == tags


def test_links_within_the_page_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)", TEXT, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]*)\)", TEXT)
    assert len(links) > 20
    assert set(links) <= anchors
    for path in re.findall(r"\]\((?!#)([^)]*)\)", TEXT):
        assert (ROOT / "docs" / path).exists(), path


# Examples


def examples(sign: str) -> list[str]:
    return re.findall(rf"^{sign} (\{{.*\}})$", TEXT, flags=re.MULTILINE)


def shape(event: dict[str, Any]) -> tuple[Any, ...]:
    """An event's type and keys; of a gap the keys of ``from`` and ``reason`` hang together."""
    streams = [tuple(fields) for fields in event.get("streams", {}).values()]
    return event["type"], *event, event.get("reason"), *sorted(set(streams))


def seen_shapes() -> set[tuple[Any, ...]]:
    """Those that scenarios have shown to be true, and those that they cannot show."""
    events = [
        event
        for scenario in VECTORS["scenarios"]
        for step in scenario["steps"]
        for what, value in step.items()
        if " gets" in what and "text" not in what
        for event in (value if isinstance(value, list) else [value])
        if "$rest" not in event
    ]
    encoded = [
        protocol.encode_expiring(60),
        protocol.encode_moving(10),
        protocol.encode_gap(Gap("group:prices", "e", 1, 2, "skipped")),
        protocol.encode_call_reply(1, 200, b"1"),
        protocol.encode_reply(1, {"expires": 1}),
    ]
    return {shape(event) for event in [*events, *map(json.loads, encoded)]}


def test_the_events_of_the_page_are_as_the_service_makes_them() -> None:
    events = examples("<")
    assert len(events) > 20
    seen = seen_shapes()
    for text in events:
        assert shape(json.loads(text)) in seen, text


def test_the_commands_of_the_page_are_commands() -> None:
    kinds = {type(protocol.decode_command(text.encode(), depth=64)) for text in examples(">")}
    assert kinds == set(protocol.Command.__args__)


def test_the_cursors_of_the_page_can_be_decoded() -> None:
    cursors = re.findall(r'"cursor":"(\w+)"', TEXT)
    assert len(cursors) > 1
    for cursor in cursors:
        decode_cursor(cursor)
    found = re.search(r"^    (\{\"client:alice\".*\})\n\n    (\w+)$", TEXT, flags=re.MULTILINE)
    assert found is not None
    assert plain(decode_cursor(found[2])) == json.loads(found[1])


# Vectors


def plain(cursor: dict[str, Position]) -> dict[str, list[Any]]:
    return {stream: [position.epoch, position.offset] for stream, position in cursor.items()}


@pytest.mark.parametrize("vector", VECTORS["cursors"], ids=lambda vector: vector["cursor"])
def test_cursors_hold_their_positions(vector: dict[str, Any]) -> None:
    positions = {stream: Position(*position) for stream, position in vector["positions"].items()}
    assert encode_cursor(positions) == vector["cursor"]
    if vector["cursor"] is not None:
        assert plain(decode_cursor(vector["cursor"])) == vector["positions"]


@pytest.mark.parametrize("token", VECTORS["not_cursors"])
def test_what_is_no_cursor_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        decode_cursor(token)


class Client:
    """What the page says under Cursor and Coming back, and nothing else: the least that a client library does."""

    def __init__(self) -> None:
        self.positions: dict[str, list[Any]] = {}
        self._sent: dict[str, dict[str, Any]] = {}  # command by its id as JSON, not answered
        self._late: set[str] = set()  # streams that did not fit into the cursor, until they are joined

    def opened(self, query: dict[str, str]) -> None:
        leaving = {f"group:{command['group']}" for command in self._sent.values() if command["type"] == "leave"}
        self._sent = {}
        self._late = set()
        if "cursor" in query:
            self._late = {
                stream for stream in self.positions if stream.startswith("group:") and stream not in leaving
            } - decode_cursor(query["cursor"]).keys()

    def sent(self, text: str) -> None:
        command = json.loads(text)
        self._sent[json.dumps(command["id"])] = command

    def got(self, text: str) -> None:
        if text in ("pong", "Pong"):
            return
        event = json.loads(text)
        match event.get("type"):
            case "welcome":
                kept = {stream: at for stream, at in self.positions.items() if stream in self._late}
                self.positions = {name: [at["epoch"], at["offset"]] for name, at in event["streams"].items()} | kept
            case "message" | "joined" | "gap" if event["stream"] in self._late:
                pass  # it comes again
            case "message" | "joined":
                self.positions[event["stream"]] = [event["epoch"], event["offset"]]
            case "gap" if event["to"] is not None:
                self.positions[event["stream"]] = [event["epoch"], event["to"]]
            case "gap" if self.positions[event["stream"]][0] != event["epoch"]:
                self.positions[event["stream"]] = [event["epoch"], 0]
            case "left":
                self._end(event["stream"])
            case "reply":
                self._answered(self._sent.pop(json.dumps(event["id"])), event)
            case "error" if event["id"] is not None:
                command = self._sent.pop(json.dumps(event["id"]))
                if command["type"] == "join" and event["code"] not in ("broker_down", "too_fast", "full"):
                    stream = f"group:{command['group']}"
                    if stream in self._late:
                        self._end(stream)

    def _answered(self, command: dict[str, Any], event: dict[str, Any]) -> None:
        match command["type"]:
            case "join":
                self._late.discard(event["stream"])
                self.positions[event["stream"]] = [event["epoch"], event["offset"]]
            case "leave":
                self._end(event["stream"])

    def _end(self, stream: str) -> None:
        self._late.discard(stream)
        self.positions.pop(stream, None)


@pytest.mark.parametrize("vector", VECTORS["clients"], ids=lambda vector: vector["name"])
def test_the_table_of_the_page_leads_to_the_positions_of_the_vectors(vector: dict[str, Any]) -> None:
    client = Client()
    for step in vector["steps"]:
        if "sent" in step:
            protocol.decode_command(step["sent"].encode(), depth=64)
            client.sent(step["sent"])
        elif "got" in step:
            client.got(step["got"])
            assert client.positions == step["cursor"], step["got"]
        else:
            client.opened(step["opened"])


def test_the_events_of_the_vectors_are_as_the_service_makes_them() -> None:
    seen = seen_shapes()
    events = [
        step["got"]
        for vector in VECTORS["clients"]
        if "does not know" not in vector["name"]
        for step in vector["steps"]
        if step.get("got", "").startswith("{")
    ]
    assert len(events) > 20
    for event in events:
        assert shape(json.loads(event)) in seen, event


def test_the_vectors_come_back_after_the_close_codes_that_the_page_says() -> None:
    wanted = {vector["code"]: vector for vector in VECTORS["closes"]}
    for codes, _, _, back in rows("## Close codes"):
        for code in map(int, codes.split(",")):
            assert wanted[code]["again"] is back.startswith("yes")
            assert (wanted[code].get("first") == "token") is ("token" in back)
            for word in ("random", "longer"):
                assert (wanted[code].get("delay") == word) is (f"a {word} delay" in back)
    for code, vector in wanted.items():
        if code >= 4000:
            assert vector["again"] is (code < 4500)
    assert wanted[1006]["again"]


def test_the_vectors_say_what_becomes_of_commands_that_were_not_answered_as_the_page_does() -> None:
    wanted = {(vector["command"], vector.get("key")): vector["then"] for vector in VECTORS["pending"]}
    for commands, what in rows("### Coming back", 2):
        for command in re.findall(r"`(\w+)`", commands):
            if command == "publish":
                assert (wanted[command, True], wanted[command, False]) == ("again", "unknown")
                assert "again" in what
                assert "not known" in what
            else:
                then = "again" if "again" in what else "unknown" if "not known" in what else "nothing"
                assert wanted[command, None] == then
    assert {command for command, _ in wanted} == set(protocol.TYPES)


def test_every_reason_of_a_rejection_is_in_the_table() -> None:
    source = (ROOT / "service/tidegate/core/push.py", ROOT / "service/tidegate/brokers/redis/ingress.py")
    text = "".join(file.read_text() for file in source)
    found = set(re.findall(r'(?:_bad|BadPush)\("([^"]+)"', text)) | set(re.findall(r'entry.reason = "([^"]+)"', text))
    fixed = {
        "bad client",
        "bad group",
        "bad conflate",
        "too_large",
        "too_deep",
        "key_reused",
        f"failed {ingress.FAILURES} times",
        backlog.REASON,
    }
    table = {reason for cell, _ in rows("## Push through Redis", 2) for reason in re.findall(r"`([^`]+)`", cell)}
    assert table == found | fixed == set(backlog.REASONS)


def test_the_example_of_a_user_id_is_what_its_rule_makes_of_it() -> None:
    (user, client), *_ = re.findall(r"^\| `([^`]+)` \| `(u\.[^`]+)` \|$", TEXT, flags=re.MULTILINE)
    assert client == "u." + base64.urlsafe_b64encode(user.encode()).rstrip(b"=").decode()
    assert is_id(client)
    assert is_id("u." + base64.urlsafe_b64encode(b"x" * 94).rstrip(b"=").decode())


def test_the_vectors_come_back_after_the_refusals_that_the_page_says() -> None:
    wanted = {vector["status"]: vector for vector in VECTORS["refusals"]}
    for statuses, code, _, back in rows("### When the handshake is refused"):
        if code == "`too_many_groups`":
            continue  # a client can't do that by itself
        for status in map(int, statuses.split(",")):
            assert wanted[status]["again"] is (back != "no")
            assert (wanted[status].get("delay") == "retry-after") is ("Retry-After" in back)
            assert (wanted[status].get("first") == "token") is ("token" in back)
