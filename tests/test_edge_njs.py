"""The njs edge keeps the contract."""

from __future__ import annotations

import re

from tests.edge_only import EdgeContract


class TestNjs(EdgeContract):
    variant = "njs"

    def websockets(self, metrics: str) -> int:
        (writing,) = re.findall(r'^tidegate_edge_connections{variant="njs",state="writing"} (\d+)$', metrics, re.M)
        return int(writing) - 1
