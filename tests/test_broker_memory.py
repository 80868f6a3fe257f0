"""The memory broker keeps the contract of a broker."""

from __future__ import annotations

from service.broker import Retention
from service.broker_memory import MemoryBroker
from tests.broker_contract import WIDE, Contract


class TestMemory(Contract):
    def make(self, node: str, *, retention: Retention = WIDE, meta_age_s: float = 1000) -> MemoryBroker:
        return MemoryBroker(
            epoch="e1", retention=lambda stream: retention, meta_age_s=meta_age_s, journal_bytes=1 << 20
        )
