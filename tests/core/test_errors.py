"""What a refusal says over HTTP beside its code."""

from __future__ import annotations

import pytest

from tidegate.core.errors import BadRequest, Full, MethodNotAllowed, Refused, Unauthorized, UpgradeRequired


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (BadRequest("no"), {}),
        (BadRequest("no", retry_after_s=7), {"Retry-After": "7"}),
        (Full("no"), {"Retry-After": "5"}),
        (Full("no", retry_after_s=0), {"Retry-After": "0"}),
        (Unauthorized("no"), {"WWW-Authenticate": "Bearer"}),
        (Unauthorized("no", retry_after_s=1), {"WWW-Authenticate": "Bearer", "Retry-After": "1"}),
        (MethodNotAllowed("no", allow="GET, PUT"), {"Allow": "GET, PUT"}),
        (UpgradeRequired("no"), {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Refused) else "",
)
def test_a_refusal_carries_its_own_headers(error: Refused, headers: dict[str, str]) -> None:
    assert error.headers == headers
