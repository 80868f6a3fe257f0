"""What clients see without an edge: the standard that every edge is held to."""

from __future__ import annotations

from tests.edge_contract import Contract


class TestDirect(Contract):
    variant = "direct"
