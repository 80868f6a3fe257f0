"""The plain edge keeps the contract."""

from __future__ import annotations

import re

from tests.edge_only import EdgeContract


class TestPlain(EdgeContract):
    variant = "plain"

    def websockets(self, metrics: str) -> int:
        (writing,) = re.findall(r'^tidegate_edge_connections{variant="plain",state="writing"} (\d+)$', metrics, re.M)
        return int(writing) - 1
