"""A node in this process, and an HTTP client that sends what a test says, byte for byte. Every JSON answer is checked
against the API's own description."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

from tests.http.schema import faults
from tests.support import scaled
from tidegate.app import App
from tidegate.config import load as config
from tidegate.http import operations

JSON = "application/json"
KEY = "a-key-for-the-api-made-for-this-test"
KEYED = {"INTERNAL__API_KEYS": json.dumps([KEY])}
BEARER = {"Authorization": f"Bearer {KEY}"}
PAGE = "https://app.example.org"  # whose pages may call the API


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error's code."""
        code: str = self.json["error"]["code"]
        return code


class Node:
    """``async with node(TIDEGATE_…="…") as n``: ``n.app`` runs on this loop; ``n.call`` asks its internal port."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.document = operations.document(app.config)

    @property
    def host(self) -> str:
        return f"localhost:{self.app.internal_port}"

    async def call(
        self, method: str, target: str, body: Any = None, headers: Mapping[str, str | None] | None = None
    ) -> Answer:
        """``body`` is JSON text as bytes, or something to make it of; a header of None is left out."""
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        fields: dict[str, str | None] = {"Host": self.host, "Connection": "close"}
        if body is not None:
            fields |= {"Content-Type": JSON, "Content-Length": str(len(raw))}
        answer = await self.send(head(method, target, fields | dict(headers or {})) + raw)
        self.check(method, target, answer)
        return answer

    async def push(self, address: str, data: Any, **headers: str) -> Any:
        """The position. ``address``: clients/alice, groups/news, all."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.call("POST", f"/api/{address}/push", {"data": data}, fields)
        assert answer.status == 202, answer
        return answer.json

    async def history(self, address: str, **query: object) -> Any:
        keys = "&".join(f"{name}={value}" for name, value in query.items())
        answer = await self.call("GET", f"/api/{address}/history" + ("?" + keys if keys else ""))
        assert answer.status == 200, answer
        return answer.json

    async def send(self, request: bytes) -> Answer:
        """One request on a connection of its own."""
        async with self.connection() as link:
            return await link.ask(request)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Link]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.app.internal_port)
        try:
            yield Link(reader, writer)
        finally:
            writer.close()

    def check(self, method: str, target: str, answer: Answer) -> None:
        """Raises AssertionError for an answer that is not as the description says."""
        if method == "HEAD" or answer.headers.get("content-type") != JSON:
            return
        path = target.partition("?")[0]
        for template, described in self.document["paths"].items():
            if method.lower() in described and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
                responses = described[method.lower()]["responses"]
                assert str(answer.status) in responses, f"{method} {template}: {answer.status} is not described"
                schema = responses[str(answer.status)]["content"][JSON]["schema"]
                break
        else:
            schema = {"$ref": "#/components/schemas/Error"}
            assert answer.status in (204, 400, 403, 404, 405), f"{method} {path} is not described"
            assert set(answer.json) == {"error"}
            return
        assert faults(answer.json, schema, self.document) == []


class Link:
    """One connection to the internal port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, request: bytes) -> Answer:
        """Sends all of ``request`` before it looks for an answer."""
        self.writer.write(request)
        await asyncio.wait_for(self.writer.drain(), scaled(10))
        return await self.answer(with_body=not request.startswith(b"HEAD "))

    async def answer(self, *, with_body: bool = True) -> Answer:
        text = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), scaled(10))).decode("latin-1")
        status, *fields = text.removesuffix("\r\n\r\n").split("\r\n")
        headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
        length = int(headers.get("content-length", "0")) if with_body else 0
        return Answer(int(status.split()[1]), headers, await self.reader.readexactly(length))


def head(method: str, target: str, headers: Mapping[str, str | None]) -> bytes:
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode("latin-1")


@contextlib.asynccontextmanager
async def node(**environ: str) -> AsyncIterator[Node]:
    """``environ``: settings as the environment has them, without ``TIDEGATE_``: ``LIMITS__DATA_BYTES="10"``."""
    named = {f"TIDEGATE_{name}": value for name, value in environ.items()}
    app = App(config.load(None, {"TIDEGATE_SERVER__PORT": "0", "TIDEGATE_INTERNAL__PORT": "0", **named}), "n1")
    await app.start()
    try:
        yield Node(app)
    finally:
        await app.stop()
    unforeseen = app.metrics.unforeseen()
    assert not unforeseen, unforeseen  # it should have been there from the start, at 0
