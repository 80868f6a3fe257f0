from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.pace import BURST_S, PAUSE_S, UNLIMITED, Pace, Rates

RATES = Rates(10, 1000)


def took(pace: Pace, messages: int, size: int, now_s: float) -> float:
    """As who reads does it."""
    pace.messages -= messages
    pace.bytes -= size
    return pace.wait_s(now_s) if pace.messages < 0 or pace.bytes < 0 else 0.0


def test_what_was_saved_up_may_come_at_once() -> None:
    pace = Pace(RATES)
    assert took(pace, int(10 * BURST_S), 0, 100.0) == 0.0
    assert took(pace, 1, 0, 100.0) > PAUSE_S
    assert pace.what == "messages"


def test_bytes_are_counted_apart_from_messages() -> None:
    pace = Pace(RATES)
    assert took(pace, 1, int(1000 * BURST_S), 100.0) == 0.0
    assert round(took(pace, 1, 500, 100.0), 6) == 0.5 + PAUSE_S
    assert pace.what == "bytes"


def test_a_quiet_peer_saves_up_no_more_than_the_burst() -> None:
    pace = Pace(RATES)
    took(pace, int(10 * BURST_S), 1, 100.0)
    assert took(pace, int(10 * BURST_S) + 1, 0, 100_000.0) > 0.0


def test_who_stays_within_its_rate_never_waits() -> None:
    pace = Pace(RATES)
    assert not any(took(pace, 1, 100, 100.0 + number / 10) for number in range(1000))


def test_without_limits_nothing_is_too_much() -> None:
    assert took(Pace(UNLIMITED), 10**9, 10**12, 100.0) == 0.0


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 2000), st.floats(0, 2)), min_size=1, max_size=60))
def test_who_waits_when_told_never_sends_more_than_the_rate_and_two_bursts(reads: list[tuple[int, int, float]]) -> None:
    pace, now_s, messages, size = Pace(RATES), 100.0, 0, 0
    for more, more_bytes, quiet_s in reads:
        assert messages <= 10 * (now_s - 100.0 + 2 * BURST_S) + 30  # the last read may have been too much
        assert size <= 1000 * (now_s - 100.0 + 2 * BURST_S) + 2000
        messages, size = messages + more, size + more_bytes
        now_s += took(pace, more, more_bytes, now_s) + quiet_s
