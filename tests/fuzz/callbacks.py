"""What an application says of a client (``auth.mode: callback``): an answer that lets in, refuses, or is none.

An input is a byte that chooses the status, and then the body.
"""

from __future__ import annotations

import json
import time

from tidegate.auth.callback import Callback
from tidegate.config.auth import AuthSettings
from tidegate.core.errors import Refused
from tidegate.core.model import is_id
from tidegate.core.patterns import is_pattern
from tidegate.http_client import HttpAnswer

STATUSES = (200, 200, 200, 401, 403, 500, 204, 302)

_callback = Callback(AuthSettings(mode="callback", callback_url="http://127.0.0.1:1"), lambda why, what, took_s: None)


def check(data: bytes) -> None:
    status, body = STATUSES[sum(data[:1]) & 7], data[1:]
    try:
        grant = _callback._judge(HttpAnswer(status, body))
    except Refused as exc:
        assert len(body) < 40 or body.decode(errors="replace") not in exc.message, "a refusal repeats the answer"
        return
    said = json.loads(body.decode())
    assert status == 200
    assert grant.client == said["client"]
    assert is_id(grant.client)
    assert grant.expires is None or grant.expires == float(said["expires"]) > time.time() - 60
    for name, patterns in (("groups", grant.groups), ("publish", grant.publish)):
        assert patterns is not None, "an answer without groups opens all"
        assert list(patterns) == (said.get(name) or [])
        assert all(map(is_pattern, patterns))
