"""Handshakes that are refused for what they say."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.handshakes import JWT, KEY, connected, cursor, handshake, raw, refused, said, token
from tests.service_fixture import running
from tests.support import eventually, scaled
from tidegate.app import App

# The handshake itself


async def test_other_paths_lead_nowhere() -> None:
    async with running() as app:
        for path in ("/", "/ws-notifications", "/ws-notifications//", "/x/ws-notifications/", "/metrics", "/api/nodes"):
            assert await said(app, path=path) == (404, "not_found")
    async with running(SERVER__PATH="/push/ws/") as app:
        assert await said(app) == (404, "not_found")
        async with connected(app, path="/push/ws/"):
            pass


async def test_other_paths_are_not_even_denied_to_a_host_that_is_not_allowed() -> None:
    async with running() as app:
        assert await said(app, path="/elsewhere", headers={"Host": "evil.example"}) == (403, "host_not_allowed")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD", "NONE"])
async def test_other_methods_are_not_allowed(method: str) -> None:
    async with running() as app:
        answer = await raw(app, handshake(method=method))
        assert answer.startswith(b"HTTP/1.1 405 ")
        assert b"\r\nAllow: GET\r\n" in answer
        assert answer.endswith(b"\r\n\r\n" if method == "HEAD" else b'"message":"GET only"}}')


def as_written(target: str, *, host: str | None = "Host: localhost", version: str = "1.1") -> bytes:
    """A handshake with this target, line for line."""
    request = handshake(target=target).replace(b"HTTP/1.1", f"HTTP/{version}".encode(), 1)
    return request.replace(b"Host: localhost\r\n", b"" if host is None else f"{host}\r\n".encode())


async def status_of(app: App, request: bytes) -> int:
    """Also of a 101, behind which the connection stays."""
    reader, writer = await asyncio.open_connection("127.0.0.1", app.public_port)
    try:
        writer.write(request)
        async with asyncio.timeout(scaled(5)):
            return int((await reader.readuntil(b"\r\n")).split()[1])
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://localhost{path}", "Host: localhost", 101),
        ("HTTP://LOCALHOST:{port}{path}", "Host: localhost", 101),
        ("https://[::1]{path}", "Host: localhost", 101),
        # The host of the target counts, and not the header, which must be there.
        ("http://localhost{path}", "Host: evil.example", 101),
        ("http://evil.example{path}", "Host: localhost", 403),
        ("http://localhost{path}", None, 400),
        ("http://localhost{path}", "Host: localhost\r\nHost: localhost", 400),
        ("http://localhost@evil.example{path}", "Host: localhost", 400),
        ("http://{path}", "Host: localhost", 400),
        ("http://localhost", "Host: localhost", 404),
        ("http://localhost?client=alice", "Host: localhost", 404),
        ("http://localhost/elsewhere", "Host: localhost", 404),
        ("ftp://localhost{path}", "Host: localhost", 404),
        ("//localhost{path}", "Host: localhost", 404),
        ("localhost:{port}", "Host: localhost", 404),
        ("*", "Host: localhost", 404),
    ],
)
async def test_a_target_in_absolute_form_says_the_host(target: str, host: str | None, status: int) -> None:
    async with running() as app:
        written = target.format(path="/ws-notifications/?client=alice", port=app.public_port)
        assert await status_of(app, as_written(written, host=host)) == status


async def test_the_host_of_a_target_is_the_one_that_a_page_must_be_of() -> None:
    async with running() as app:
        target = "http://127.0.0.1/ws-notifications/?client=alice"
        for origin, status in (("http://127.0.0.1", 101), ("http://localhost", 403)):
            assert await status_of(app, as_written(target, host=f"Host: localhost\r\nOrigin: {origin}")) == status


async def test_http_1_0_has_no_upgrade() -> None:
    async with running() as app:
        for target in ("/ws-notifications/?client=alice", "http://localhost/ws-notifications/?client=alice"):
            answer = await raw(app, as_written(target, version="1.0"))
            assert answer.startswith(b"HTTP/1.1 426 ")
            assert b"\r\nUpgrade: websocket\r\n" in answer
            assert b"a handshake is HTTP/1.1" in answer
        assert (await raw(app, as_written("http://localhost/", host=None, version="1.0"))).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "Cross-Site"}, 403),
        ({"Sec-Fetch-Site": "same-origin, cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 101),
        ({"Sec-Fetch-Site": "none"}, 101),
        ({"Sec-Fetch-Site": "something-new"}, 101),
        # Where the origin is said, it counts: a listed one is of another site.
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://app.example"}, 101),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://other.example"}, 403),
    ],
    ids=str,
)
async def test_a_page_of_another_site_says_its_origin(headers: dict[str, str], status: int) -> None:
    async with running(ORIGINS=["https://app.example"]) as app:
        if status == 101:
            async with connected(app, headers):
                pass
        else:
            assert await said(app, headers) == (403, "origin_not_allowed")


@pytest.mark.parametrize(
    "headers",
    [
        {"Upgrade": ""},
        {"Upgrade": "h2c"},
        {"Connection": "keep-alive"},
        {"Sec-WebSocket-Version": ""},
        {"Sec-WebSocket-Version": "8"},
        {"Sec-WebSocket-Version": "13, 8"},
    ],
    ids=str,
)
async def test_who_asks_for_no_websocket_is_told_to(headers: dict[str, str]) -> None:
    async with running() as app:
        refusal = await refused(app, headers)
        assert (refusal.status, refusal.code) == (426, "upgrade_required")
        assert refusal.headers["upgrade"] == "websocket"
        assert refusal.headers["connection"] == "Upgrade"
        assert refusal.headers["sec-websocket-version"] == "13"


@pytest.mark.parametrize("body", [("Content-Length: 5", "hello"), ("Transfer-Encoding: chunked", "0\r\n\r\n")], ids=str)
async def test_a_handshake_has_no_body(body: tuple[str, str]) -> None:
    header, content = body
    async with running() as app:
        answer = await raw(app, handshake(header) + content.encode())
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"a handshake has no body" in answer
        assert not app.metrics.open_connections


async def test_after_a_refusal_the_connection_serves_the_next_request() -> None:
    refused_with_body = handshake("Content-Length: 5", method="POST") + b"hello"
    async with running() as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", app.public_port)
        writer.write(refused_with_body + handshake())
        async with asyncio.timeout(scaled(5)):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 405 ")
            assert b"HTTP/1.1 101 " in await reader.readuntil(b"\r\n\r\n")
            await eventually(lambda: app.metrics.open_connections == 1)
        writer.close()


async def test_upgrade_headers_may_be_lists_of_any_case() -> None:
    headers = {"Upgrade": "WebSocket, h2c", "Connection": "keep-alive, upgrade"}
    async with running() as app, connected(app, headers):
        pass


@pytest.mark.parametrize("key", ["", "short", "dGhlIHNhbXBsZSBub25jZQ", KEY + "=", KEY + "," + KEY, "é" * 24, "*" * 24])
async def test_a_key_is_16_bytes_in_base64(key: str) -> None:
    async with running() as app:
        assert await said(app, {"Sec-WebSocket-Key": key}) == (400, "bad_request")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "client",
        "client=",
        "client=a%20b",
        "client=a+b",
        "client=..",
        "client=" + "x" * 129,
        "client=%C3%A4",
        "client=\xe4",
        "client=%FF",
        "client=alice&client=alice",
        "client=alice&groups=a&groups=b",
        "client=alice&x=1&x=2",
        "client=alice&x=%FF",
        "client=alice&" + "&".join(f"x{n}" for n in range(60)),
        "client=alice&groups=,",
        "client=alice&groups=news,",
        "client=alice&groups=a:b",
        "client=alice&groups=" + "x" * 129,
        "client=alice&cursor=last&device=a%20b",
        "client=alice&device=" + "x" * 129,
        "client=alice&cursor=",
        "client=alice&cursor=x",
        "client=alice&cursor=LAST",
        "client=alice&cursor=" + "A" * 4100,
    ],
    ids=lambda query: query[:40] or "empty",
)
async def test_a_malformed_query_is_a_bad_request(query: str) -> None:
    async with running() as app:
        assert await said(app, raw_query=query) == (400, "bad_request")


async def test_more_groups_than_a_connection_may_have_are_a_bad_request_too() -> None:
    async with running(LIMITS__GROUPS_PER_CONNECTION=2) as app:
        assert await said(app, groups="a,b,c") == (400, "too_many_groups")
        assert await said(app, groups="a,b", cursor=cursor("group:c")) == (400, "too_many_groups")
        async with connected(app, groups="a,b", cursor=cursor("group:b")):
            pass


# Hosts and origins


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000"])
async def test_the_configured_hosts_are_answered(host: str) -> None:
    async with running() as app, connected(app, {"Host": host}):
        pass


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "[::2]"])
async def test_other_hosts_are_not(host: str) -> None:
    """A page whose name was made to lead to 127.0.0.1 (DNS rebinding) brings its own name: as Host and as Origin."""
    async with running() as app:
        assert await said(app, {"Host": host, "Origin": f"http://{host}"}) == (403, "host_not_allowed")
        assert await said(app, {"Host": host, "Upgrade": ""}) == (403, "host_not_allowed")


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "file://",
        "http://localhost.evil.example",
        "http://127.0.0.1:1",
        "",
        "x",
        "http://",
    ],
)
async def test_a_page_from_elsewhere_may_not_connect(origin: str) -> None:
    async with running() as app:
        answer = await raw(app, handshake(f"Origin: {origin}"))
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert b'"origin_not_allowed"' in answer


async def test_a_page_of_the_same_host_the_console_and_listed_ones_may() -> None:
    async with running(ORIGINS=["https://app.example"]) as app:
        for origin in (
            f"http://127.0.0.1:{app.public_port}",
            f"http://localhost:{app.internal_port}",
            "https://app.example",
        ):
            async with connected(app, {"Origin": origin}):
                pass
        assert await said(app, {"Origin": "http://app.example"}) == (403, "origin_not_allowed")


# Tokens


async def test_a_token_has_three_places() -> None:
    good = token(sub="bob")
    async with running(**JWT) as app:
        places: list[dict[str, Any]] = [
            {"headers": {"Authorization": f"Bearer {good}"}},
            {"headers": {"Authorization": f"bearer  {good} "}},
            {"headers": {"Sec-WebSocket-Protocol": f"bearer.{good}"}},
            {"headers": {"Sec-WebSocket-Protocol": f"tidegate.v1, bearer.{good}"}},
            {"token": good},
            {"token": good, "headers": {"Authorization": "Basic Ym9iOngK"}},
        ]
        for place in places:
            async with connected(app, **place) as bob:
                assert bob.answer_headers["tidegate-client"] == "bob"
                assert good not in str(bob.answer_headers)


async def test_a_token_in_two_places_is_a_bad_request() -> None:
    good = token()
    header, protocol = {"Authorization": f"Bearer {good}"}, {"Sec-WebSocket-Protocol": f"tidegate.v1, bearer.{good}"}
    async with running(**JWT) as app:
        for headers, query in (
            (header, {"token": good}),
            (protocol, {"token": good}),
            (header | protocol, {}),
            ({"Sec-WebSocket-Protocol": f"bearer.{good}, bearer.{good}"}, {}),
            (header, {"token": ""}),
        ):
            assert await said(app, headers, **query) == (400, "bad_request")


async def test_no_token_and_bad_ones_are_unauthorized() -> None:
    async with running(**JWT) as app:
        for headers in (
            None,
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer x"},
            {"Authorization": "Basic Ym9iOngK"},
            {"Authorization": f"Bearer {token(exp=int(time.time()) - 60)}"},
            {"Authorization": f"Bearer {token(nbf=int(time.time()) + 60)}"},
            {"Authorization": f"Bearer {token(exp=None)}"},
            {"Authorization": f"Bearer {token(sub='no id')}"},
            {"Authorization": f"Bearer {token(name='another secret')}"},
            {"Authorization": f"Bearer {token()}, Bearer {token()}"},
            {"Sec-WebSocket-Protocol": "tidegate.v1, bearer."},
        ):
            refusal = await refused(app, headers)
            assert (refusal.status, refusal.code) == (401, "unauthorized")
            assert refusal.headers["www-authenticate"] == "Bearer"
        assert await said(app, token="x" * 8000) == (401, "unauthorized")


async def test_with_tokens_nobody_says_who_he_is() -> None:
    async with running(**JWT) as app:
        assert await said(app, {"Authorization": f"Bearer {token()}"}, client="alice") == (400, "bad_request")
        assert await said(app, client="alice") == (400, "bad_request")
