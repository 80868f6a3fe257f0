"""What an API key opens, and the line in the log for what was done with one, or refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.http.node import Node, node

KEYS = {
    "crm": {"may": ["push"]},
    "board": {"may": ["read"]},
    "team": {"groups": ["team.*"]},
    "admin": {},
}
SETTINGS: dict[str, Any] = {
    "INTERNAL__API_KEYS": json.dumps(
        [{"name": name, "key": f"{name}-0123456789abcdef", **limits} for name, limits in KEYS.items()]
    )
}


def bearer(name: str) -> dict[str, str | None]:
    return {"Authorization": f"Bearer {name}-0123456789abcdef"}


OPERATIONS: dict[str, list[tuple[str, str, Any]]] = {
    "push": [("POST", "/api/clients/a/push", {"data": 1}), ("POST", "/api/all/push", {"data": 1})],
    "read": [("GET", f"/api/{path}", None) for path in ("clients/a", "groups/g", "all/history", "nodes", "rejected")],
    "manage": [
        ("DELETE", "/api/clients/a", None),
        ("PUT", "/api/groups/g/members/a", None),
        ("DELETE", "/api/groups/g/members/a", None),
    ],
}


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """What is logged of the use of keys."""
    found: list[dict[str, Any]] = []
    logger = logging.getLogger("tidegate")

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("api."):
                found.append({"event": record.getMessage(), **record.fields})  # type: ignore[attr-defined]

    handler, level = Handler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(level)


async def ask(n: Node, name: str, method: str, path: str, body: Any = None) -> tuple[int, str]:
    answer = await n.call(method, path, body, bearer(name))
    return answer.status, answer.code if answer.status >= 400 else ""


async def test_a_key_does_what_it_is_for_and_nothing_else() -> None:
    async with node(**SETTINGS) as n:
        for name, allowed in (("crm", {"push"}), ("board", {"read"}), ("admin", set(OPERATIONS))):
            for right, operations in OPERATIONS.items():
                for operation in operations:
                    status, code = await ask(n, name, *operation)
                    assert (status < 300) == (right in allowed), (name, operation)
                    assert code == ("" if right in allowed else "not_allowed")


async def test_a_key_of_some_groups_touches_nothing_else() -> None:
    async with node(**SETTINGS) as n:
        for operations in OPERATIONS.values():
            for method, path, body in operations:
                assert await ask(n, "team", method, path, body) == (403, "not_allowed"), path
        assert (await ask(n, "team", "POST", "/api/groups/team.a/push", {"data": 1}))[0] == 202
        assert (await ask(n, "team", "GET", "/api/groups/team.a/history"))[0] == 200
        assert (await ask(n, "team", "PUT", "/api/groups/team.a/members/x"))[0] == 200
        addresses: list[dict[str, Any]] = [{"group": "team.b"}, {"group": "other"}, {"client": "a"}, {"all": True}]
        pushes = [{**address, "data": 1} for address in addresses]
        answer = await n.call("POST", "/api/push", {"pushes": pushes}, bearer("team"))
        first, *others = answer.json["results"]
        assert first["stream"] == "group:team.b"
        assert [other["error"]["code"] for other in others] == ["not_allowed"] * 3
        assert (await n.call("GET", "/api/groups/other/history", headers=bearer("admin"))).json["top"] == 0


def used(who: str | None, what: str, status: int, **more: Any) -> dict[str, Any]:
    event = "api.refused" if "code" in more else "api.used"
    return {"event": event, "who": who, "what": what, "address": "127.0.0.1", "status": status, **more}


async def test_what_is_changed_or_refused_has_a_line_with_who_what_and_from_where(lines: list[dict[str, Any]]) -> None:
    async with node(**SETTINGS) as n:
        await ask(n, "crm", "POST", "/api/clients/a/push", {"data": "s3cret"})
        await ask(n, "admin", "DELETE", "/api/clients/a")
        await ask(n, "crm", "DELETE", "/api/clients/a")
        await ask(n, "admin", "GET", "/api/nodes")
        await ask(n, "nobody", "GET", "/api/nodes")
        await ask(n, "crm", "POST", "/api/push", {"pushes": [{"all": True, "data": "s3cret"}] * 3})
        await ask(n, "crm", "POST", "/api/all/push", {"date": "s3cret"})
    assert lines == [
        used("crm", "POST /api/clients/a/push", 202),
        used("admin", "DELETE /api/clients/a", 202),
        used("crm", "DELETE /api/clients/a", 403, code="not_allowed"),
        used(None, "GET /api/nodes", 401, code="unauthorized"),
        used("crm", "POST /api/push", 200, pushes=3),
        used("crm", "POST /api/all/push", 400, code="bad_request"),
    ]
    assert "s3cret" not in str(lines)
    assert "0123456789abcdef" not in str(lines)


async def test_pushes_may_be_left_out_and_what_is_refused_stays(lines: list[dict[str, Any]]) -> None:
    async with node(**SETTINGS, INTERNAL__AUDIT_PUSHES="false") as n:
        await ask(n, "crm", "POST", "/api/clients/a/push", {"data": 1})
        await ask(n, "board", "POST", "/api/clients/a/push", {"data": 1})
        await ask(n, "admin", "PUT", "/api/groups/g/members/a")
    assert [(line["who"], line["status"]) for line in lines] == [("board", 403), ("admin", 200)]


async def test_pushes_of_a_batch_that_are_refused_are_said(lines: list[dict[str, Any]]) -> None:
    async with node(**SETTINGS, INTERNAL__AUDIT_PUSHES="false") as n:
        groups = [{"group": group, "data": 1} for group in ("team.a", "payroll", "bad name", "orders")]
        await ask(n, "team", "POST", "/api/push", {"pushes": groups})
        await ask(n, "team", "POST", "/api/push", {"pushes": groups[:1]})
        await ask(n, "board", "POST", "/api/push", {"pushes": groups})
    assert lines == [
        used("team", "POST /api/push", 200, code="not_allowed", pushes=4, not_allowed=2),
        used("board", "POST /api/push", 403, code="not_allowed"),
    ]


async def test_without_a_key_nothing_is_said(lines: list[dict[str, Any]]) -> None:
    async with node() as n:
        await n.push("all", 1)
    assert lines == []
