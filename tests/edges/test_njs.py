"""The njs edge's sessions without nginx: what one does with bytes, however they are cut."""

from __future__ import annotations

import random

import pytest

from tests.edges.njs import (
    ANSWER,
    LARGE_PUSH,
    OUR_PING,
    PUSH,
    REQUEST,
    SIGN_OF_LIFE,
    WELCOME,
    Step,
    after_handshake,
    all_for,
    call,
    sessions,
)
from tests.peer import BINARY, CLOSE, PING, PONG, TEXT, frame
from tidegate.core import frames

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
        frame(TEXT, b"ping", form=126),
        frame(TEXT, b"x" * 126, form=127),
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


def test_calls_that_are_given_up_together_are_each_answered_once():
    did = after_handshake(
        ("client", b"".join(frame(TEXT, call(number)) for number in range(3))),
        *[("service", LARGE_PUSH)] * 5,
        session_bytes=10_000,
    )
    assert all_for("client", did) == LARGE_PUSH * 5 + b"\x81\x010\x81\x011\x81\x012"
    assert did[-1] == ("relay",)


@pytest.mark.parametrize(
    ("first", "cheap"), [(frame(TEXT, b"a", fin=False), frame(0, b"b", fin=False)), (b"", frame(PONG))]
)
def test_frames_cost_what_they_hold_and_not_their_bytes(first: bytes, cheap: bytes):
    did = after_handshake(("client", first), *[("client", cheap * 500)] * 20, session_bytes=256_000)
    before = did[: did.index(("relay",))]
    assert 2000 <= all_for("service", before).count(cheap) <= 4000


def test_heartbeats_cost_what_they_hold_and_not_their_bytes():
    did = after_handshake(*[("client", frame(TEXT, b"pong") * 100)] * 20, session_bytes=256_000)
    assert ("relay",) in did
    assert 500 <= 2000 - all_for("service", did).count(frame(TEXT, b"pong")) <= 1000


def test_a_session_whose_answer_finds_no_gap_is_cut_before_it_ruins_the_worker():
    did = after_handshake(
        ("client", frame(TEXT, call(1))),
        ("service", LARGE_PUSH[:100]),
        ("answer", 0, frames.text(b"answer")),
        *[("client", frame(BINARY, b"x" * 60_000))] * 8,
        session_bytes=10_000,
    )
    assert did[-1] == ("end",)
    assert all_for("client", did) == LARGE_PUSH[:100]


# A node that is silent


def silent(*steps: Step) -> list[Step]:
    """What a session does of which the service has said nothing for 35 s and a little more."""
    return after_handshake(("ms", 35_001), *steps)


def test_a_heartbeat_or_a_call_is_not_answered_for_a_node_that_may_be_gone():
    asked = [frame(TEXT, b"ping"), frame(TEXT, call(1))]
    did = silent(("client", asked[0]), ("client", asked[1]), ("service", PUSH), ("client", asked[0]))
    assert all_for("service", did) == asked[0] + OUR_PING + asked[1]
    assert did[-2:] == [("client", PUSH), ("client", frames.text(b"pong"))]
    late = after_handshake(("ms", 35_000), ("client", asked[0]))
    assert late == [("service", SIGN_OF_LIFE), ("client", frames.text(b"pong"))]


def test_a_node_that_does_not_answer_is_given_up_and_the_session_ends_with_1012():
    ping = frame(TEXT, b"ping")
    did = silent(("client", ping), ("ms", 24_998), ("client", ping), ("ms", 1), ("client", ping))
    goodbye: list[Step] = [("client", frames.close(1012, "")), ("end",)]
    assert did == [("service", ping), ("service", OUR_PING), ("service", ping), *goodbye]
    cut = silent(("service", PUSH[:9]), ("ms", 60_000), ("client", ping), ("ms", 5_000), ("client", ping))
    assert cut[-1] == ("end",)
    assert all_for("client", cut) == PUSH[:9]


def test_an_edge_that_stood_still_itself_asks_before_it_gives_a_node_up():
    ping = frame(TEXT, b"ping")
    did = after_handshake(("ms", 10**9), ("client", ping), ("ms", 4_999), ("client", ping), ("service", b"\x8a\x00"))
    assert did == [("service", ping), ("service", OUR_PING), ("service", ping)]


def test_the_question_waits_for_the_end_of_a_clients_frame():
    large = frame(BINARY, b"z" * 1000)
    did = silent(("client", large[:100]), ("ms", 60_000), ("client", large[100:]))
    assert did == [("service", large[:100]), ("service", large[100:]), ("service", OUR_PING)]


def test_a_node_is_asked_and_given_up_though_the_client_says_nothing():
    goodbye: list[Step] = [("client", frames.close(1012, "")), ("end",)]
    assert after_handshake(("quiet", 54_999)) == []
    assert after_handshake(("quiet", 59_999)) == [("service", OUR_PING)]
    assert after_handshake(("quiet", 60_000)) == [("service", OUR_PING), *goodbye]
    heard = after_handshake(("quiet", 54_000), ("service", PUSH), ("quiet", 54_999))
    assert heard == [("client", PUSH)], "it is heard of in time"
    answered = after_handshake(("quiet", 56_000), ("service", b"\x8a\x00"), ("quiet", 54_999))
    assert answered == [("service", OUR_PING)]


def test_amid_a_frame_of_either_side_a_silent_node_is_given_up_too():
    large = frame(BINARY, b"z" * 1000)
    goodbye: list[Step] = [("client", frames.close(1012, "")), ("end",)]
    assert after_handshake(("client", large[:100]), ("quiet", 60_000)) == [("service", large[:100]), *goodbye]
    assert after_handshake(("service", PUSH[:9]), ("quiet", 60_000))[-1] == ("end",)
    assert all_for("client", after_handshake(("service", PUSH[:9]), ("quiet", 60_000))) == PUSH[:9]


def test_an_edge_that_stood_still_hears_what_the_node_said_before_it_gives_it_up():
    assert after_handshake(("ms", 10**9), ("service", PUSH), ("quiet", 54_999)) == [("client", PUSH)]
    assert after_handshake(("ms", 10**9), ("quiet", 4_999)) == [("service", OUR_PING)]


def test_a_session_that_is_only_relayed_has_no_alarm():
    did = after_handshake(("client", frame(TEXT, b"ping")), ("quiet", 60_000), session_bytes=1)
    assert ("relay",) in did
    assert ("end",) not in did


# Calls that the service makes


def test_a_call_that_could_not_be_made_is_the_services_and_so_are_those_after_it():
    ping = frame(PING, b"between")
    did = after_handshake(
        ("client", frame(TEXT, call(1)) + ping[:8]),
        ("unmade", 0),
        ("client", ping[8:] + frame(TEXT, call(2))),
        ("client", frame(TEXT, b"ping")),
    )
    assert all_for("service", did) == ping + frame(TEXT, call(2)) + frame(TEXT, call(1))
    assert did[-1] == ("client", frames.text(b"pong"))


ESCAPED = frame(TEXT, call(9).replace(b"call", b"\\u0063all"))
FRAGMENTED = frame(TEXT, call(9)[:9], fin=False) + frame(0, call(9)[9:])


@pytest.mark.parametrize("other", [ESCAPED, FRAGMENTED, frame(TEXT, b" " * 66_000 + call(9))])
def test_what_may_be_a_call_of_the_services_waits_while_as_many_are_in_flight_as_may_be(other: bytes):
    three = b"".join(frame(TEXT, call(number)) for number in range(3))
    later = frame(TEXT, b'{"type":"ping","id":5}')
    did = after_handshake(
        ("client", three + other + later), ("answer", 0, frames.text(b"a")), ("client", frame(TEXT, call(4)))
    )
    assert [action[0] for action in did[:5]] == ["call", "call", "call", "client", "service"]
    assert all_for("service", did) == other + later  # the last waits for another of the three
    gone = after_handshake(("client", three + other), ("client", b"", True))
    assert all_for("service", gone) == other


def test_once_the_service_was_left_a_call_it_is_left_all():
    did = after_handshake(("client", ESCAPED + frame(TEXT, call(1))), ("client", frame(TEXT, b"ping")))
    assert all_for("service", did) == ESCAPED + frame(TEXT, call(1))
    assert did[-1] == ("client", frames.text(b"pong"))
