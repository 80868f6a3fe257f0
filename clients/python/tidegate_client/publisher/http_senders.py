"""Who sends requests to the HTTP API, blocking or awaiting. Needs httpx (the extra ``http``).

Neither proxies nor redirects are followed: the key is for this gateway alone.
"""

from __future__ import annotations

import ssl
from typing import Any, NamedTuple

import httpx

from tidegate_client.publisher.attempts import Trouble
from tidegate_client.publisher.errors import Refused
from tidegate_client.publisher.lifetimes import PerLoop, PerProcess
from tidegate_client.publisher.over_http import Answer, Outcome, Request

IDLE_S = 30.0  # a node closes idle connections after 75 s; whoever is first does not run into the other's close


class HttpOptions(NamedTuple):
    url: str
    api_key: str
    ssl_context: ssl.SSLContext | None

    def for_httpx(self) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "User-Agent": "tidegate-client"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return {
            "base_url": self.url,
            "headers": headers,
            "trust_env": False,
            "verify": True if self.ssl_context is None else self.ssl_context,
            "limits": httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=IDLE_S),
        }


class HttpSender:
    def __init__(self, options: HttpOptions) -> None:
        self._client = PerProcess(lambda: httpx.Client(**options.for_httpx()))

    def send(self, request: Request, timeout_s: float) -> Outcome:
        try:
            response = self._client.get().request(
                request.method, request.path, content=request.body, headers=_raw(request), timeout=timeout_s
            )
        except httpx.RequestError as exc:
            return _trouble(exc)
        return _answer(response)

    def close(self) -> None:
        if client := self._client.take():
            client.close()


class AsyncHttpSender:
    def __init__(self, options: HttpOptions) -> None:
        self._client = PerLoop(lambda: httpx.AsyncClient(**options.for_httpx()), httpx.AsyncClient.aclose)

    async def send(self, request: Request, timeout_s: float) -> Outcome:
        client = await self._client.get()
        try:
            response = await client.request(
                request.method, request.path, content=request.body, headers=_raw(request), timeout=timeout_s
            )
        except httpx.RequestError as exc:
            return _trouble(exc)
        return _answer(response)

    async def close(self) -> None:
        await self._client.close()


def _raw(request: Request) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value) for name, value in request.headers.items()]


def _answer(response: httpx.Response) -> Answer:
    return Answer(response.status_code, response.content, response.headers.get("Retry-After"))


def _trouble(exc: httpx.RequestError) -> Trouble | Refused:
    text = str(exc) or type(exc).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return Refused("tls", text)
    if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        return Trouble("unreachable", text, False)
    return Trouble("timeout" if isinstance(exc, httpx.TimeoutException) else "cut", text, True)
