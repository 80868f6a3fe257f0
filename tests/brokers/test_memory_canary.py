"""The embedded broker's canary goes where a client's message goes, and fails where that would not arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.brokers.contract import Heard, info, push
from tests.http.node import node
from tests.support import Logs
from tidegate.brokers.memory.broker import MemoryBroker
from tidegate.core.errors import BrokerDown, InternalError
from tidegate.core.journal import Journal
from tidegate.core.model import History, Position, Retention


def broker_of(journal_bytes: int = 1 << 20) -> MemoryBroker:
    return MemoryBroker(
        epoch="e1", retention=lambda stream: Retention(100, 60), meta_age_s=1000, journal_bytes=journal_bytes
    )


def refuses(patch: pytest.MonkeyPatch, broker: MemoryBroker) -> None:
    patch.setattr(broker, "_publish", lambda publication: InternalError("spoilt"))


def raises(patch: pytest.MonkeyPatch, broker: MemoryBroker) -> None:
    def append(*args: Any) -> None:
        raise KeyError("a fault of ours")

    patch.setattr(Journal, "append", append)


def tells_nobody(patch: pytest.MonkeyPatch, broker: MemoryBroker) -> None:
    class Deaf(dict[str, Any]):
        def get(self, *args: Any) -> Any:
            return None

    patch.setattr(broker, "_followers", Deaf())


def keeps_nothing(patch: pytest.MonkeyPatch, broker: MemoryBroker) -> None:
    def since(journal: Journal, *args: Any) -> History:
        return History(Position(journal.epoch, journal.top), journal.top, [])

    patch.setattr(Journal, "since", since)


def tells_something_else(patch: pytest.MonkeyPatch, broker: MemoryBroker) -> None:
    append = Journal.append
    patch.setattr(Journal, "append", lambda *args: (append(*args), append(*args))[0])


Break = Callable[[pytest.MonkeyPatch, MemoryBroker], None]
FAULTS: list[tuple[Break, str]] = [
    (refuses, "spoilt"),
    (raises, "the canary did not pass: KeyError"),
    (tells_nobody, "the canary was not heard"),
    (keeps_nothing, "the canary is not in its journal"),
    (tells_something_else, "the canary is not in its journal"),
]


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
async def test_a_path_that_is_broken_turns_readyz_red_until_it_is_mended(
    fault: Break, reason: str, monkeypatch: pytest.MonkeyPatch, expected_logs: Logs
) -> None:
    expected_logs.expect("broker.lost")
    async with node() as n:
        assert isinstance(n.app.broker, MemoryBroker)
        assert (await n.call("GET", "/readyz")).status == 200
        with monkeypatch.context() as patch:
            fault(patch, n.app.broker)
            await n.app.readiness.probe()
            answer = await n.call("GET", "/readyz")
            assert answer.status == 503
            assert answer.json["reason"] == reason
        await n.app.readiness.probe()
        assert (await n.call("GET", "/readyz")).status == 200


async def test_a_canary_is_no_push_and_no_stream_of_anybody() -> None:
    async with node() as n:
        for _ in range(3):
            await n.app.readiness.probe()
        text = (await n.call("GET", "/metrics")).body.decode()
        assert not n.app.metrics.pushes.total()
        for count in ("tidegate_streams", "tidegate_deliveries_total", "tidegate_journal_forgotten_total"):
            assert f"\n{count} 0.0\n" in text


async def test_a_broker_that_does_not_run_has_no_canary() -> None:
    broker, heard = broker_of(), Heard()
    with pytest.raises(BrokerDown):
        await broker.canary()
    await broker.start(heard, info("n1"))
    await broker.subscribe("group:a")
    await broker.canary()
    await broker.stop()
    with pytest.raises(BrokerDown):
        await broker.canary()
    await push(broker, "group:a", b"1")
    assert heard.events == []


async def test_a_canary_passes_where_no_message_can_be_kept_for_want_of_room() -> None:
    broker = broker_of(journal_bytes=1000)
    await broker.start(Heard(), info("n1"))
    for _ in range(3):
        await broker.canary()
