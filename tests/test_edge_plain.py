"""The plain edge keeps the contract."""

from __future__ import annotations

from tests.edge_contract import Contract


class TestPlain(Contract):
    variant = "plain"
