"""The OpenResty edge keeps the contract."""

from __future__ import annotations

import re

from tests.edge_only import EdgeContract


class TestOpenresty(EdgeContract):
    variant = "openresty"
    close_code_at_stop = 1001

    def websockets(self, metrics: str) -> int:
        (live,) = re.findall(r"^tidegate_edge_websockets (\d+)$", metrics, re.M)
        return int(live)
