"""The epoch of the streams that have no message: when it changes, and for how long the one before is as good."""

from __future__ import annotations

from tidegate.core.common_epoch import CommonEpoch


def at(common: CommonEpoch, now_s: float) -> tuple[str, str]:
    common.look(now_s)
    return common.current, common.previous


def test_it_changes_at_half_of_its_time_and_the_one_before_ends_with_its_own() -> None:
    common = CommonEpoch("e", 100, 0)
    assert at(common, 49) == ("e", "")
    assert at(common, 50) == ("e.1", "e")
    assert at(common, 99) == ("e.1", "e")
    assert at(common, 100) == ("e.2", "e.1")


def test_one_that_is_changed_late_proves_nothing_after_its_time() -> None:
    common = CommonEpoch("e", 100, 0)
    assert at(common, 90) == ("e.1", "e")
    assert at(common, 99) == ("e.1", "e")
    assert at(common, 100) == ("e.1", "")
    assert at(CommonEpoch("e", 100, 0), 500) == ("e.1", "")


def test_a_stream_that_is_forgotten_early_takes_its_epoch_with_it() -> None:
    common = CommonEpoch("e", 100, 0)
    assert at(common, 50) == ("e.1", "e")
    common.forgotten("other", 50)
    assert at(common, 50) == ("e.1", "e")
    common.forgotten("e", 50)
    assert at(common, 50) == ("e.1", "")
    common.forgotten("e.1", 51)
    assert at(common, 51) == ("e.2", "")
    assert at(common, 100) == ("e.2", "")
    assert at(common, 101) == ("e.3", "e.2")
