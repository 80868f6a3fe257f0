from __future__ import annotations

from tidegate.core.allowance import SPARE, Allowance


def test_so_much_at_once_and_then_at_the_rate() -> None:
    allowance = Allowance(per_second=2, at_once=3)
    for _ in range(3):
        assert allowance.wait_s("alice", 100.0) == 0.0
        allowance.use("alice", 100.0)
    assert allowance.wait_s("alice", 100.0) == 0.5
    assert allowance.wait_s("alice", 100.5) == 0.0
    assert allowance.wait_s("bob", 100.0) == 0.0


def test_what_is_used_beyond_it_is_waited_for_too() -> None:
    allowance = Allowance(per_second=1, at_once=1)
    for _ in range(5):
        allowance.use("alice", 100.0)
    assert allowance.wait_s("alice", 100.0) == 5.0


def test_names_with_nothing_to_work_off_are_forgotten() -> None:
    allowance = Allowance(per_second=1, at_once=5)
    for number in range(10 * SPARE):
        allowance.use(f"c{number}", float(number))
    assert len(allowance) <= SPARE + 2
