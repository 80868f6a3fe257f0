"""Who may use the HTTP API of a real node, and how much of a body is taken before that is known."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.http.node import BEARER, JSON, KEY, KEYED, PAGE, head, node
from tests.service_fixture import running
from tests.support import scaled
from tidegate.http import operations

# Who may come in


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x"])
async def test_without_the_key_the_api_is_closed(authorization: str | None) -> None:
    async with node(**KEYED) as n:
        for (method, path), operation in operations.OPERATIONS.items():
            target = path.format(client="alice", group="news")
            body = {"data": 1} if method == "POST" else None
            answer = await n.call(method, target, body, {"Authorization": authorization})
            if operation.keyed:
                assert (answer.status, answer.code) == (401, "unauthorized"), path
                assert answer.headers["www-authenticate"] == "Bearer"
            else:
                assert answer.status == 200, path
        answer = await n.call("POST", "/api/all/push", {"data": 1}, BEARER)
        assert answer.json["offset"] == 1


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Host": "evil.example"}, 403, "host_not_allowed"),
        ({"Host": "localhost.evil.example:8001"}, 403, "host_not_allowed"),
        ({"Origin": "https://evil.example"}, 403, "origin_not_allowed"),
        ({"Origin": "null"}, 403, "origin_not_allowed"),
        ({"Origin": "http://localhost:1"}, 403, "origin_not_allowed"),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "origin_not_allowed"),
        ({"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415, "unsupported_media_type"),
        ({"Content-Type": None}, 415, "unsupported_media_type"),
        ({"Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
    ],
)
@pytest.mark.parametrize("environ", [{}, KEYED], ids=["keyless", "keyed"])
async def test_a_page_of_another_site_cannot_push_key_or_no_key(
    environ: Any, headers: Any, status: int, code: str
) -> None:
    async with node(**environ) as n:
        answer = await n.call("POST", "/api/clients/alice/push", {"data": 1}, BEARER | headers)
        assert (answer.status, answer.code) == (status, code)
        assert "access-control-allow-origin" not in answer.headers
        assert (await n.call("GET", "/api/clients/alice/history", headers=BEARER)).json["top"] == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "Application/JSON ;charset=UTF-8"},
        {"Content-Encoding": "Identity"},
        {"Host": "[::1]:8001"},
        {"Host": "127.0.0.1"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
)
async def test_who_belongs_here_may_push(headers: Any) -> None:
    async with node() as n:
        assert (await n.call("POST", "/api/all/push", {"data": 1}, headers)).status == 202


def absolute(host: str, headers: dict[str, str]) -> bytes:
    """A push whose target has its host with it."""
    fields = {"Content-Type": "application/json", "Content-Length": "10", "Connection": "close", **headers}
    return head("POST", f"http://{host}/api/all/push", fields) + b'{"data":1}'


async def test_a_target_in_absolute_form_says_the_host() -> None:
    async with node() as n:
        for host, given, status in (
            (n.host, n.host, 202),
            (n.host, "evil.example", 202),
            ("evil.example", n.host, 403),
            (f"user@{n.host}", n.host, 400),
        ):
            answer = await n.send(absolute(host, {"Host": given}))
            assert answer.status == status
        answer = await n.send(absolute(n.host, {"Host": n.host, "Origin": "http://evil.example"}))
        assert (answer.status, answer.code) == (403, "origin_not_allowed")
        answer = await n.send(head("GET", f"http://{n.host}", {"Host": n.host, "Connection": "close"}))
        assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")


async def test_the_console_own_page_may_push() -> None:
    async with node() as n:
        headers = {"Origin": f"http://{n.host}", "Sec-Fetch-Site": "same-origin"}
        assert (await n.call("POST", "/api/all/push", {"data": 1}, headers)).status == 202


async def test_pages_of_configured_origins_may_call_and_no_others() -> None:
    async with node(**KEYED, INTERNAL__CORS_ORIGINS=json.dumps([PAGE])) as n:
        asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Sec-Fetch-Site": "cross-site"}
        answer = await n.call("OPTIONS", "/api/clients/alice/push", headers=asks)
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["access-control-allow-methods"] == "POST"
        assert "Authorization, Content-Type, Idempotency-Key" in answer.headers["access-control-allow-headers"]
        headers = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"}
        for extra, status in ((BEARER, 202), ({}, 401)):
            answer = await n.call("POST", "/api/clients/alice/push", {"data": 1}, headers | extra)
            assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, PAGE)
            assert answer.headers["vary"] == "Origin"
        answer = await n.call("OPTIONS", "/api/clients/alice/push", headers=asks | {"Origin": PAGE + ".evil.example"})
        assert (answer.status, answer.code) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in answer.headers


async def test_a_preflight_without_configured_origins_is_refused() -> None:
    async with node() as n:
        asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        assert (await n.call("OPTIONS", "/api/all/push", headers=asks)).status == 403
        answer = await n.call("OPTIONS", "/api/all/push")
        assert (answer.status, answer.code) == (405, "method_not_allowed")


# Bodies too large, read to their end or not at all


async def test_a_body_too_large_gets_its_answer_although_all_of_it_is_sent_first() -> None:
    async with node() as n, n.connection() as link:
        body = b'{"data":"' + b"x" * 8_000_000 + b'"}'
        headers = {"Host": n.host, "Content-Type": JSON, "Content-Length": str(len(body))}
        answer = await link.ask(head("POST", "/api/all/push", headers) + body)
        assert (answer.status, answer.code) == (413, "too_large")
        assert (await link.ask(head("GET", "/healthz", {"Host": n.host}))).status == 200


async def test_a_chunked_body_is_taken_and_counted() -> None:
    async with node() as n, n.connection() as link:
        request = head("POST", "/api/all/push", {"Host": n.host, "Content-Type": JSON, "Transfer-Encoding": "chunked"})
        assert (await link.ask(request + b'4\r\n{"da\r\n7\r\nta":17}\r\n0\r\n\r\n')).status == 202
        answer = await link.ask(request + b"100000\r\n" + b" " * 0x100000 + b"\r\n1\r\n \r\n0\r\n\r\n")
        assert (answer.status, answer.code) == (413, "too_large")
        assert (await link.ask(head("GET", "/healthz", {"Host": n.host}))).status == 200


async def test_who_waits_to_be_asked_for_the_body_is_not_asked_for_one_too_large() -> None:
    async with node() as n, n.connection() as link:
        headers = {"Host": n.host, "Content-Type": JSON, "Content-Length": "2000000", "Expect": "100-continue"}
        answer = await link.ask(head("POST", "/api/all/push", headers))
        assert (answer.status, answer.code, answer.headers["connection"]) == (413, "too_large", "close")
        assert await link.reader.read() == b""


@pytest.mark.parametrize("length", ["99999999999", "9" * 40])
async def test_a_body_without_end_is_not_waited_for(length: str) -> None:
    async with node() as n, n.connection() as link:
        headers = {"Host": n.host, "Content-Type": JSON, "Content-Length": length}
        answer = await link.ask(head("POST", "/api/all/push", headers))
        assert (answer.status, answer.code, answer.headers["connection"]) == (413, "too_large", "close")


async def test_a_chunked_body_without_end_is_cut_off() -> None:
    async with node() as n, n.connection() as link:
        headers = {"Host": n.host, "Content-Type": JSON, "Transfer-Encoding": "chunked"}
        link.writer.write(head("POST", "/api/all/push", headers))
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"

        async def send(megabytes: int) -> None:
            for _ in range(megabytes):
                link.writer.write(chunk)
                await link.writer.drain()

        with pytest.raises(ConnectionError):
            await send(200)


async def test_who_has_no_key_gets_his_answer_after_his_body() -> None:
    async with node(**KEYED) as n, n.connection() as link:
        headers = {"Host": n.host, "Content-Type": JSON, "Content-Length": "500000"}
        for _ in range(2):
            assert (await link.ask(head("POST", "/api/all/push", headers) + b" " * 500000)).status == 401


async def test_who_goes_away_in_the_middle_of_a_request_is_not_worth_a_line() -> None:
    async with node() as n:
        for length in (0, 10, 200_000):
            async with n.connection() as link:
                headers = {"Host": n.host, "Content-Type": JSON, "Content-Length": "300000"}
                link.writer.write(head("POST", "/api/all/push", headers) + b" " * length)
                await link.writer.drain()
                link.writer.transport.abort()
        await n.push("all", 1)


@pytest.mark.parametrize("header", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_a_body_that_does_not_come_is_not_waited_for(header: str) -> None:
    async with running(SERVER__HEADER_TIMEOUT_S=1) as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", app.internal_port)
        request = (
            f"POST /api/all/push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{header}\r\n\r\n"
        )
        writer.write(request.encode())
        async with asyncio.timeout(scaled(5)):
            answer = await reader.read()  # and the connection ends
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"Connection: close\r\n" in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_slow"
        assert app.metrics.refusals["too_slow",] == 1
        writer.close()


async def test_a_body_that_comes_in_time_is_not_hurried_afterwards() -> None:
    async with running(SERVER__HEADER_TIMEOUT_S=0.3) as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", app.internal_port)
        fields = "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n"
        for _ in range(3):
            writer.write(f"POST /api/all/push HTTP/1.1\r\n{fields}\r\n".encode() + b'{"data"')
            await asyncio.sleep(0.2)
            writer.write(b":1}")
            assert b" 202 " in await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"}")
        writer.close()


# Hosts


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/console.json", "/api/openapi.json", "/nowhere"])
async def test_every_path_answers_configured_hosts_only(path: str) -> None:
    async with node() as n:
        answer = await n.call("GET", path, headers={"Host": "evil.example"})
        assert (answer.status, answer.code) == (403, "host_not_allowed")


async def test_probes_by_address_are_answered_where_that_is_allowed_and_nothing_else_is() -> None:
    pod = {"Host": "10.1.2.3:8001"}
    async with node() as n:
        refused = await n.call("GET", "/healthz", headers=pod)
        assert (refused.status, refused.code) == (403, "host_not_allowed")
        assert "internal.hosts" in refused.json["error"]["message"]
        assert "internal.probes_by_address" in refused.json["error"]["message"]
    async with node(INTERNAL__PROBES_BY_ADDRESS="true") as n:
        for path in ("/healthz", "/readyz", "/metrics"):
            for host in ("10.1.2.3:8001", "10.1.2.3", "[fd00::1]:8001"):
                assert (await n.call("GET", path, headers={"Host": host})).status == 200
            for host in ("evil.example", "10.1.2.3.evil.example", "1", "0x0a010203"):
                assert (await n.call("GET", path, headers={"Host": host})).status == 403
        for path in ("/", "/api/nodes", "/console.json"):
            answer = await n.call("GET", path, headers=pod)
            assert (answer.status, answer.code) == (403, "host_not_allowed")
            assert "probes" not in answer.json["error"]["message"]
