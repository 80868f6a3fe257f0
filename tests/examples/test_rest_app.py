"""The example application, called as the gateway calls it."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from tests.callee import answering, calling, serving
from tests.support import Process, eventually
from tidegate.calls import CallResult
from tidegate.core.errors import CallTimeout, CallUnavailable


async def start_rest_app(start_process: Callable[..., Process]) -> tuple[str, Process]:
    """Its URL, and its process."""
    process = start_process(sys.executable, "-m", "examples.rest_app", "--port", "0")
    line = await process.line("^listening on ")
    return line.removeprefix("listening on "), process


async def read_json(url: str) -> Any:
    def read() -> Any:
        with urllib.request.urlopen(url) as response:
            return json.load(response)

    return await asyncio.to_thread(read)


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'{"a": [1, 2.50, "x"],  "a":null}',
        b"123456789012345678901234567890",
        b"1E+400",
        '"ü \\u00fc \U0001f600"'.encode(),
        b"[" * 64 + b"]" * 64,
        b'"' + b"x" * 65534 + b'"',
    ],
    ids=lambda data: data[:20].decode(),
)
async def test_the_data_and_the_answer_pass_unchanged(start_process, data: bytes):
    url, _ = await start_rest_app(start_process)
    async with calling(url) as call:
        assert await call(data) == CallResult(200, data)
        assert call.outcomes == ["reply"]


async def test_any_status_with_json_is_an_answer(start_process):
    url, process = await start_rest_app(start_process)
    async with calling(url, allow=["orders.create", "fail", "missing", "slow"]) as call:
        created = await call(b'{"item":"tea"}', method="orders.create")
        assert created == CallResult(201, b'{"order":1,"client":"alice","items":{"item":"tea"}}')
        assert await call(method="fail") == CallResult(500, b'{"error":"failed as asked"}')
        assert await call(method="missing") == CallResult(404, b'{"error":"no such method"}')
        assert (await call(b'{"seconds":"x"}', method="slow")).status == 400
    assert process.stderr == ""


async def test_an_application_that_takes_too_long_is_not_waited_for(start_process):
    url, _ = await start_rest_app(start_process)
    async with calling(url, allow=["slow"], timeout_s=0.2) as call:
        with pytest.raises(CallTimeout):
            await call(b'{"seconds":20}', method="slow")
        assert await call(b'{"seconds":0}', method="slow") == CallResult(200, b'{"seconds":0.0}')
        assert call.outcomes == ["call_timeout", "reply"]


async def test_the_example_counts_requests_by_who_made_them(start_process):
    url, _ = await start_rest_app(start_process)
    async with calling(url) as call:
        await call()
        await call()
    await asyncio.to_thread(lambda: urllib.request.urlopen(url + "/echo", data=b"1").close())
    stats = await read_json(url + "/stats")
    assert stats == {"requests": {"service": 2, "njs": 0, "openresty": 0, "other": 1}, "total": 3}
    assert await read_json(url + "/healthz") == {"status": "ok"}


async def test_the_example_gives_a_repeated_request_its_first_answer(start_process):
    url, _ = await start_rest_app(start_process)
    async with calling(url, allow=["orders.create"]) as call:
        first = await call(b"1", method="orders.create", request_id="r1")
        assert await call(b"1", method="orders.create", request_id="r1") == first
        assert await call(b"1", method="orders.create", request_id="r2") != first


async def test_the_example_ends_cleanly_when_told_to_also_in_the_middle_of_a_request(start_process):
    url, process = await start_rest_app(start_process)
    async with calling(url, allow=["echo", "slow"]) as call:
        slow = asyncio.create_task(call(b'{"seconds":20}', method="slow"))  # noqa: TID251 - awaited below
        await eventually(lambda: read_json_total(url))
        assert await process.stop() == 0
        with pytest.raises(CallUnavailable):
            await slow
        with pytest.raises(CallUnavailable, match="could not connect"):
            await call()
    assert process.stderr == ""


async def read_json_total(url: str) -> int:
    return (await read_json(url + "/stats"))["total"]


@pytest.mark.parametrize("port", ["taken", "70000", "x"])
async def test_the_example_says_why_it_cannot_listen(start_process, port: str):
    async with serving(answering(b"1")) as server:
        port = server.url.rpartition(":")[2] if port == "taken" else port
        process = start_process(sys.executable, "-m", "examples.rest_app", "--port", port)
        assert await process.ended() == 2
        assert "Traceback" not in process.stderr
        assert port in process.stderr
