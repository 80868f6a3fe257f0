"""The njs edge's code without nginx, run by the njs command line (Debian's package ``njs``): what a session does with
bytes, however they are cut, and that no JSON is taken which the service would not take."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service import calls, frames
from service.errors import CallBadAnswer
from service.protocol import Call, NotUnderstood, decode_command
from tests.peer import BINARY, CLOSE, PING, PONG, TEXT, frame
from tests.support import ROOT

REQUEST = b"GET /ws-notifications/?client=alice HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\r\n"
ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nTidegate-Client: alice\r\nTidegate-Connection: n1.ab-7\r\n\r\n"
WELCOME = frames.text(b'{"type":"welcome"}')
PUSH = frames.text(b'{"type":"message","data":"' + b"x" * 200 + b'"}')
LARGE_PUSH = frames.text(b"y" * 70_000)
SIGN_OF_LIFE = frame(PONG, mask=b"\0\0\0\0")
OUR_PING = frame(PING, mask=b"\0\0\0\0")

Step = tuple[Any, ...]


def njs(job: dict[str, Any]) -> Any:
    program = shutil.which("njs")
    assert program is not None, "the njs command line is missing: apt-get install njs"
    version = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stdout.strip()
    module = ["-t", "module"] if version.startswith("0.") else ["-m"]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "job").write_text(json.dumps(job))
        done = subprocess.run(
            [program, *module, "-p", ROOT / "nginx/njs", ROOT / "tests/njs_driver.js", folder],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr or done.stdout
        return json.loads((Path(folder) / "result").read_text())


def sessions(*jobs: list[Step], **settings: Any) -> list[list[Step]]:
    """What each session does: ("client" | "service", bytes), ("call", id, method, data, who…), ("relay",)."""
    steps = [[[step[0], *(_packed(part) for part in step[1:])] for step in job] for job in jobs]
    results = njs({"kind": "sessions", "sessions": [{"settings": settings, "steps": it} for it in steps]})
    return [[_unpacked(action) for action in result] for result in results]


def _packed(part: Any) -> Any:
    return part.hex() if isinstance(part, bytes) else part


def _unpacked(action: list[Any]) -> Step:
    if action[0] == "call":
        return ("call", action[1], action[2], bytes.fromhex(action[3]), *action[4:])
    if action[0] == "relay":
        return ("relay",)
    return (action[0], bytes.fromhex(action[1]))


def after_handshake(*steps: Step, **settings: Any) -> list[Step]:
    """What a session does that has just been welcomed."""
    (did,) = sessions([("client", REQUEST), ("service", ANSWER + WELCOME), *steps], **settings)
    assert did[:2] == [("service", REQUEST), ("client", ANSWER + WELCOME)]
    return did[2:]


def call(number: int, data: bytes = b"1") -> bytes:
    return b'{"type":"call","id":%d,"method":"echo","data":%b}' % (number, data)


def all_for(whom: str, did: list[Step]) -> bytes:
    return b"".join(action[1] for action in did if action[0] == whom)


# The handshake


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 503 Service Unavailable\r\nTidegate-Client: alice\r\nTidegate-Connection: n1.ab-7\r\n\r\n",
        ANSWER.replace(b"Tidegate-Client", b"Other"),
        ANSWER.replace(b"alice", b'al"ice'),
        b"HTTP/1.1 200 OK\r\n\r\n" + ANSWER,
        b"\x81\x05hello" * 4000,
    ],
)
def test_an_answer_that_names_no_client_is_passed_on_and_so_is_everything_after_it(answer: bytes):
    (did,) = sessions([("client", REQUEST), ("service", answer)])
    assert did == [("service", REQUEST), ("client", answer), ("relay",)]


def test_the_answer_may_come_in_pieces_and_with_frames():
    whole = ANSWER + WELCOME + PUSH[:50]
    job: list[Step] = [("client", REQUEST[:10]), ("client", REQUEST[10:])]
    job += [("service", whole[at : at + 7]) for at in range(0, len(whole), 7)]
    (did,) = sessions([*job, ("client", frame(TEXT, b"ping")), ("service", PUSH[50:])])
    assert all_for("client", did) == whole + PUSH[50:] + frames.text(b"pong")


def test_who_does_not_wait_for_the_answer_is_left_to_the_service():
    early = frame(TEXT, b"ping")
    (did,) = sessions([("client", REQUEST + early), ("service", ANSWER)])
    assert did == [("service", REQUEST + early), ("client", ANSWER), ("relay",)]


# From the client


def test_heartbeats_are_answered_and_the_service_hears_a_sign_of_life_every_ten_seconds():
    did = after_handshake(
        ("client", frame(TEXT, b"ping")),
        ("ms", 9_999),
        ("client", frame(TEXT, b"Ping")),
        ("ms", 1),
        ("client", frame(TEXT, b"pong")),
        ("client", frame(TEXT, b"Pong")),
        ("client", frame(TEXT, b"pang")),
    )
    assert did == [
        ("client", frames.text(b"pong")),
        ("client", frames.text(b"Pong")),
        ("service", SIGN_OF_LIFE),
        ("service", frame(TEXT, b"pang")),
    ]


def test_what_passes_is_a_sign_of_life_itself_and_what_is_held_back_is_none():
    big = frame(TEXT, call(1, b'"' + b"x" * 1000 + b'"'))
    did = after_handshake(
        ("ms", 9_000),
        ("client", frame(PING, b"x")),
        ("ms", 9_000),
        ("client", big[:500]),
        ("ms", 1_000),
        ("client", big[500:700]),
        ("ms", 9_000),
        ("client", big[700:]),
    )
    assert did[:2] == [("service", frame(PING, b"x")), ("service", SIGN_OF_LIFE)]
    assert [action[0] for action in did[2:]] == ["call"]


def test_a_call_is_made_for_the_client_that_the_service_named():
    did = after_handshake(("client", frame(TEXT, call(7, b'{"a": 1.0}'))), ("answer", 0, frames.text(b"answer")))
    assert did == [
        ("call", "7", "echo", b'{"a": 1.0}', "alice", "n1.ab-7", "n1.ab-7-e1"),
        ("client", frames.text(b"answer")),
    ]


MIXED = [
    frame(TEXT, b"ping"),
    frame(TEXT, call(1)),
    frame(TEXT, b'{"type":"ping","id":2}'),
    frame(PING, b"between"),
    frame(TEXT, b"pi", fin=False),
    frame(PONG, b""),
    frame(0, b"ng"),
    frame(BINARY, b"x" * 300),
    frame(TEXT, b"z" * 66_000),
    frame(TEXT, b"Ping"),
    frame(TEXT, b'{"type":"call","id":3,"method":"other"}'),
]
PASSED = b"".join(piece for number, piece in enumerate(MIXED) if number not in (0, 1, 9))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 14, 100, 4096, 10**6])
def test_however_they_are_cut_frames_are_answered_or_pass_unchanged(size: int):
    whole = b"".join(MIXED)
    if size < 7:
        whole = whole.replace(MIXED[8], b"")  # else it lasts
    did = after_handshake(
        *(("client", whole[at : at + size]) for at in range(0, len(whole), size)), session_bytes=1 << 30
    )
    assert all_for("client", did) == frames.text(b"pong") + frames.text(b"Pong")
    assert all_for("service", did) == (PASSED if size >= 7 else PASSED.replace(MIXED[8], b""))
    assert [action[1:4] for action in did if action[0] == "call"] == [("1", "echo", b"1")]


def test_two_cuts_anywhere_change_nothing():
    parts = [MIXED[0], MIXED[1], MIXED[2], MIXED[4], MIXED[5], MIXED[6]]
    whole, passed = b"".join(parts), b"".join(parts[2:])
    chance = random.Random(1)
    cuts = [sorted(chance.sample(range(1, len(whole)), 2)) for _ in range(150)]
    jobs: list[list[Step]] = [
        [("client", REQUEST), ("service", ANSWER), *(("client", it) for it in (whole[:a], whole[a:b], whole[b:]))]
        for a, b in cuts
    ]
    for did in sessions(*jobs):
        assert all_for("service", did) == REQUEST + passed
        assert all_for("client", did) == ANSWER + frames.text(b"pong")
        assert len([action for action in did if action[0] == "call"]) == 1


@pytest.mark.parametrize(
    "broken",
    [
        frame(TEXT, b"ping", mask=None),
        frame(TEXT, b"ping", rsv=0x40),
        frame(3, b"x"),
        frame(0, b"x"),
        frame(PING, b"x", fin=False),
        frame(PING, b"x" * 126),
        frame(TEXT, b"x", fin=False) + frame(TEXT, b"ping"),
        frame(TEXT, b"x" * 131_073),
        frame(CLOSE, b"\x03\xe8"),
        b"\x81\xff" + b"\xff" * 12,
    ],
)
def test_after_a_frame_that_ends_the_connection_the_edge_answers_nothing(broken: bytes):
    later = frame(TEXT, b"ping") + frame(TEXT, call(1))
    did = after_handshake(("client", broken), ("client", later))
    assert all_for("service", did) == broken + later
    assert {action[0] for action in did} == {"service"}


def test_what_was_held_back_goes_on_when_the_client_ends():
    for held in (frame(TEXT, call(1))[:20], frame(TEXT, b"ping")[:3]):
        did = after_handshake(("client", held), ("client", b"", True))
        assert did == [("service", held), ("service", b"")]


def test_more_calls_in_flight_than_allowed_are_refused():
    many = b"".join(frame(TEXT, call(number)) for number in range(4))
    did = after_handshake(("client", many), ("answer", 1, frames.text(b"a")), ("client", frame(TEXT, call(4))))
    assert [action[0] for action in did] == ["call", "call", "call", "client", "client", "call"]
    refusal = b'{"type":"error","id":3,"code":"too_many_calls","message":"3 calls are in flight"}'
    assert did[3] == ("client", frames.text(refusal))


# To the client


@pytest.mark.parametrize("push", [PUSH, LARGE_PUSH, frames.text(b""), frames.text(b"x" * 126)])
def test_an_answer_waits_for_the_end_of_the_frame_that_is_under_way(push: bytes):
    for cut in {1, 2, 3, len(push) // 2, len(push) - 1} - {len(push)}:
        did = after_handshake(
            ("client", frame(TEXT, call(1))),
            ("service", PUSH + push[:cut]),
            ("answer", 0, frames.text(b"answer")),
            ("service", push[cut:] + PUSH),
        )
        assert all_for("client", did) == PUSH + push + frames.text(b"answer") + PUSH


def test_an_answer_is_not_put_between_fragments():
    first, ping, second = b"\x01\x01a", b"\x89\x00", b"\x80\x01b"
    did = after_handshake(("service", first), ("client", frame(TEXT, b"ping")), ("service", ping), ("service", second))
    assert all_for("client", did) == first + ping + second + frames.text(b"pong")


@pytest.mark.parametrize("side", ["client", "service"])
def test_after_a_close_frame_no_answer_comes(side: str):
    close = frame(CLOSE, b"\x03\xe8") if side == "client" else frames.close(1012, "")
    did = after_handshake(
        ("client", frame(TEXT, call(1))), (side, close), ("answer", 0, frames.text(b"late")), ("service", b"")
    )
    assert frames.text(b"late") not in [action[1] for action in did]
    assert all_for("service" if side == "client" else "client", did) == close


def test_answers_that_may_not_have_fitted_are_followed_by_a_ping_whose_pong_is_kept():
    answer, pong = frames.text(b"x" * 20_000), b"\x8a\x00"
    ask: list[Step] = [("client", frame(TEXT, call(1))), ("answer", 0, answer)]
    did = after_handshake(*ask, ("service", PUSH + pong + PUSH), ("service", pong))
    assert all_for("service", did) == OUR_PING
    assert all_for("client", did) == answer + PUSH + PUSH + pong  # the second is not ours
    cut = after_handshake(*ask, ("service", PUSH + pong[:1]), ("service", pong[1:] + PUSH))
    assert all_for("client", cut) == answer + PUSH + PUSH
    other = after_handshake(*ask, ("service", pong[:1]), ("service", b"\x01x" + PUSH))
    assert all_for("client", other) == answer + b"\x8a\x01x" + PUSH


def test_the_ping_waits_for_the_end_of_a_clients_frame():
    large, answer = frame(TEXT, b"z" * 70_000), frames.text(b"x" * 20_000)
    did = after_handshake(
        ("client", frame(TEXT, call(1)) + large[:100]), ("answer", 0, answer), ("client", large[100:])
    )
    assert all_for("service", did) == large + OUR_PING


# The budget


def test_a_session_that_has_cost_its_share_is_relayed_from_a_quiet_moment_on():
    did = after_handshake(*[("service", PUSH)] * 10, session_bytes=10_000)
    assert did.count(("relay",)) == 1
    assert all_for("client", did).startswith(PUSH * 7)
    assert after_handshake(session_calls=0) == [("relay",)]


def test_calls_under_way_are_answered_before_a_session_is_relayed_and_none_is_lost():
    did = after_handshake(
        ("client", frame(TEXT, call(1)) + frame(TEXT, call(2))),
        ("service", PUSH[:100]),
        ("answer", 0, frames.text(b"a")),
        ("answer", 1, frames.text(b"b")),
        ("client", frame(TEXT, call(3))[:9]),
        ("service", PUSH[100:]),
        session_calls=2,
    )
    assert all_for("client", did) == PUSH + frames.text(b"a") + frames.text(b"b")
    assert all_for("service", did) == frame(TEXT, call(3))[:9]  # what was held back goes on first
    assert did[-1] == ("relay",)


def test_while_calls_are_under_way_more_are_taken_up_to_four_shares():
    steps: list[Step] = [("client", frame(TEXT, call(number))) for number in range(7)]
    steps += [("answer", number, frames.text(b"%d" % number)) for number in (1, 2, 3, 0)]
    did = after_handshake(*steps, session_calls=1, calls_in_flight=9)
    assert [action[0] for action in did].count("call") == 4
    assert all_for("service", did) == b"".join(frame(TEXT, call(number)) for number in (4, 5, 6))
    assert did[-2:] == [("client", frames.text(b"0")), ("relay",)]


def test_calls_are_given_up_when_too_much_else_must_be_relayed():
    did = after_handshake(
        ("client", frame(TEXT, call(1))),
        *[("service", LARGE_PUSH)] * 5,
        ("answer", 0, frames.text(b"late")),
        ("service", b"\x8a\x00"),
        session_bytes=10_000,
    )
    assert all_for("client", did) == LARGE_PUSH * 5 + b"\x81\x010"
    assert all_for("service", did) == OUR_PING
    assert did[-1] == ("relay",)


# JSON


def mutated(chance: random.Random, text: bytes) -> bytes:
    """``text`` with a few bytes lost, doubled, replaced or put in."""
    alphabet = b'{}[]",:\\ \n\t\r0123456789.-+eEtrufalsn\x00\x1f\x7f\xc3\xbc\xed\xa0\x80\xff\xf0\x9f\x98\x80abc'
    out = bytearray(text)
    for _ in range(chance.randint(0, 2)):
        at = chance.randrange(len(out) + 1)
        kind = chance.randrange(3)
        if kind < 2:
            del out[at : at + chance.randint(1, 2)]
        if kind > 0:
            out[at:at] = bytes([chance.choice(alphabet)])
    return bytes(out)


VALUES = [
    b"1", b"-0", b"0.5", b"-1.25e+10", b"1E400", b"123456789012345678901234567890", b"true", b"false", b"null",
    b'""', b"[]", b"{}", b'[1, [2, {"a":[]}],"x"]', b'{"a":1,"a":{"b" :null}}',
    b'"\\u00fc\\n\\/\\uD83d\\uDe00"', b'"\\ud800"', b'"\\udc00\\ud800"',
    '"ü☂😀"'.encode(), b'"{[\\"]}"',
]  # fmt: skip
CALLS = [
    b'{"type":"call","id":%b,"method":"echo","data":%b}',
    b' { "method" : "orders.create" , "data" :\t%b\n, "id" : %b , "type" : "call" } ',
]
IDS = [
    b"1",
    b"-77",
    b'"abc"',
    b'""',
    '"☂"'.encode(),
    b"9007199254740992",
    b"1.0",
    b"-0",
    b'"a\\n"',
    b'"%b"' % (b"x" * 65),
]


def as_service_does(text: bytes) -> Call | None:
    try:
        text.decode()
        command = decode_command(text, depth=64)
    except (UnicodeDecodeError, NotUnderstood):
        return None
    return command if isinstance(command, Call) else None


def test_a_call_is_taken_only_as_the_service_would_and_with_the_same_bytes():
    chance = random.Random(7)
    texts = [CALLS[0] % (id_, value) for id_ in IDS for value in VALUES]
    texts += [CALLS[1] % (value, id_) for id_ in IDS[:5] for value in VALUES]
    texts += [mutated(chance, chance.choice(texts)) for _ in range(6000)]
    taken = njs({"kind": "parse", "texts": [text.hex() for text in texts]})
    assert sum(call is not None for call in taken) > 200
    for text, found in zip(texts, taken, strict=True):
        command = as_service_does(text)
        if found is None:
            # What it leaves to the service are ids that it could not give back as the service writes them.
            if command is not None and command.method in ("echo", "orders.create"):
                members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
                odd = re.search(rb"\\|^-?[0-9]*[.eE]|^-0|[0-9]{16}", bytes(members["id"]))
                assert odd or b"\\" in text, text  # a name with an escape
        else:
            assert command is not None, text
            id_, method, data = found
            assert (msgspec.json.decode(id_), method) == (command.id, command.method), text
            assert id_.encode() == msgspec.json.encode(command.id)
            assert bytes.fromhex(data) == bytes(command.data), text


def test_what_is_no_call_or_beyond_a_limit_is_left_to_the_service():
    refused = [
        b"", b"{}", b"[]", b'"call"', b'{"type":"call"}', b'{"type":"call","id":1}',
        b'{"type":"call","id":1,"method":"other"}', b'{"type":"call","id":1,"method":"ech\\u006f"}',
        b'{"type":"call","id":1,"method":["echo"]}', b'{"type":"call","id":null,"method":"echo"}',
        b'{"type":"call","id":1,"id":1,"method":"echo"}', b'{"type":"call","id":1,"method":"echo","key":1}',
        b'{"type":"publish","type":"call","id":1,"method":"echo"}', b'{"type":"call","id":true,"method":"echo"}',
        call(1, b'"' + b"x" * 65_535 + b'"'), call(1, b"[" * 64 + b"]" * 64), call(1, b"[" * 5000),
        b"\xef\xbb\xbf" + call(1),
    ]  # fmt: skip
    taken = [
        call(1, b'"' + b"x" * 65_534 + b'"'),
        call(1, b"[" * 63 + b"]" * 63),
        b'{"type":"call","id":1,"method":"echo"}',
    ]
    result = njs({"kind": "parse", "texts": [text.hex() for text in refused + taken]})
    assert result[: len(refused)] == [None] * len(refused)
    assert None not in result[len(refused) :]
    assert bytes.fromhex(result[-1][2]) == b"null"


def test_an_answer_is_good_where_the_services_own_check_says_so():
    chance = random.Random(11)
    texts = [b"[" * depth + b"]" * depth for depth in (1, 64, 65, 4000)] + [b'{"a":' * 64 + b"1" + b"}" * 64]
    texts += [b" " + value + b"\r\n\t" for value in VALUES] + [
        b"\xef\xbb\xbf1",
        b" ",
        b"1 2",
        b"01",
        b"NaN",
        b"+1",
        b"'a'",
    ]
    texts += [mutated(chance, chance.choice(VALUES)) for _ in range(6000)]
    texts = [text for text in texts if text]
    for text, found in zip(texts, njs({"kind": "documents", "texts": [text.hex() for text in texts]}), strict=True):
        try:
            expected: str | None = calls.check_answer(text).hex()
        except CallBadAnswer:
            expected = None
        assert found == expected, text
