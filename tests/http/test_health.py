"""What the API tells those who look for a fault."""

from __future__ import annotations

import json
import time

from tests.http.node import BEARER, KEY, KEYED, node

SECRET = "a-secret-for-tokens-made-for-this-test"


async def test_health_has_settings_and_nodes_and_no_secret() -> None:
    settings = {**KEYED, "AUTH__MODE": "jwt", "AUTH__KEY": SECRET, "BROKER__URL": "redis://u:pass@h/0"}
    async with node(**settings) as n:
        answer = await n.call("GET", "/api/health", None, BEARER)
        assert answer.status == 200
        found = answer.json
        assert (found["node"], found["trouble"], found["broker"], found["server"]) == ("n1", None, "memory", None)
        assert abs(found["time_ms"] - time.time() * 1000) < 60_000
        assert found["settings"]["heartbeat"]["websocket_ping_interval"] == 30
        ((name, health),) = [(each["node"], each["health"]) for each in found["nodes"]]
        assert name == "n1"
        assert health["connections_limit"] > 0
        assert 0 < health["open_files"] < health["open_files_limit"]
        departures = health["departures"]
        assert departures["auth.mode"] == "jwt"
        assert departures["auth.key"].startswith("*** ")
        assert "history.messages" not in departures
        for secret in (SECRET, KEY, "pass@"):
            assert secret not in json.dumps(found)


async def test_health_is_told_to_those_who_may_read() -> None:
    async with node(**KEYED) as n:
        assert (await n.call("GET", "/api/health")).status == 401
