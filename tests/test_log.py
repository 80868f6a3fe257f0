"""Log lines as a program that reads standard error gets them: each is run in a process of its own."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support import Process

StartProcess = Callable[..., Process]
Run = Callable[[str], Awaitable[list[dict[str, Any]]]]


@pytest.fixture
def run(start_process: StartProcess) -> Run:
    """Runs Python code after ``log.setup("info", "n1")``; its lines on standard error."""

    async def run(code: str) -> list[dict[str, Any]]:
        code = 'from tidegate import log\nlog.setup("info", "n1")\n' + textwrap.dedent(code)
        process = start_process(sys.executable, "-X", "dev", "-c", code)
        assert await process.ended() == 0, str(process)
        assert process.stdout == ""
        return [json.loads(line) for line in process.stderr.splitlines()]

    return run


async def test_a_line_has_time_level_event_and_node_and_then_its_fields_in_order(run: Run) -> None:
    (line,) = await run('log.info("connection.closed", conn="n1-7", client="alice", close_code=4008, missed=None)')
    assert list(line) == ["ts", "level", "event", "node", "conn", "client", "close_code", "missed"]
    assert list(line.values())[1:] == ["info", "connection.closed", "n1", "n1-7", "alice", 4008, None]
    assert line["ts"].endswith("Z")
    assert len(line["ts"]) == len("2026-01-02T03:04:05.678Z")
    assert abs(datetime.now(UTC) - datetime.fromisoformat(line["ts"])) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
async def test_what_is_below_the_level_is_not_written(run: Run, level: str, written: list[str]) -> None:
    lines = await run(
        f"""
        log.setup({level!r}, "n1")
        for say in (log.debug, log.info, log.warning, log.error):
            say("node.started")
        """
    )
    assert [line["level"] for line in lines] == written


async def test_setting_up_again_writes_each_line_once_with_the_new_node(run: Run) -> None:
    first, second = await run(
        """
        log.setup("info")
        log.info("service.started")
        log.setup("info", "n2")
        log.info("node.started")
        """
    )
    assert "node" not in first
    assert second["node"] == "n2"


async def test_an_exception_is_named_and_an_error_brings_its_trace(run: Run) -> None:
    warning, error, empty = await run(
        """
        try:
            try:
                int("x")
            except ValueError as exc:
                raise OSError("gone") from exc
        except OSError as exc:
            log.warning("broker.lost", error=exc)
            log.error("gateway.failed", error=exc, stream="all")
        log.info("call.ended", error=TimeoutError())
        """
    )
    assert warning["error"] == error["error"] == "OSError: gone"
    assert "trace" not in warning
    assert error["stream"] == "all"
    assert error["trace"][-1] == "OSError: gone"
    assert any(line.startswith("ValueError: invalid literal") for line in error["trace"])
    assert empty["error"] == "TimeoutError"


async def test_values_that_json_does_not_know_are_written_as_text(run: Run) -> None:
    first, second, third = await run(
        """
        import datetime, pathlib
        from tidegate.core.errors import CloseCode
        endless = []
        endless.append(endless)
        log.info("node.started", path=pathlib.Path("/x"), code=CloseCode.SLOW_CONSUMER, half="\\ud800")
        log.info("node.started", pair={(1, 2): {3}}, nan=float("nan"), huge=10**30, day=datetime.date(2026, 1, 2))
        log.info("node.started", endless=endless)
        """
    )
    assert (first["path"], first["code"], first["half"]) == ("/x", 4008, "\\ud800")
    assert second["pair"] == {"(1, 2)": [3]}
    assert (second["nan"], second["huge"], second["day"]) == (None, 10**30, "2026-01-02")
    assert json.dumps(third["endless"]).replace("[", "").replace("]", "") == json.dumps("…")


async def test_tokens_keys_and_payloads_are_masked_wherever_they_stand(run: Run) -> None:
    lines = await run(
        """
        import msgspec
        from tidegate.core.model import Message
        log.info("request.refused", token="s3cret", Authorization="Bearer s3cret", key="s3cret", api_keys=["s3cret"])
        log.info("request.refused", auth={"old": {"key": "s3cret", "issuer": "me"}}, uri="/ws/?a=1&token=s3cret&b=2")
        log.info("request.refused", headers=["authorization: bearer s3cret"], protocols="tidegate.v1, bearer.s3cret, x")
        log.error("request.failed", error=ValueError("bad: token=s3cret"))
        log.info("push.refused", data=b"s3cret", raw=msgspec.Raw(b"s3cret"), got=Message("all", "k", 1, 2, b"s3cret"))
        log.info("push.refused", key=None, token="")
        """
    )
    assert "s3cret" not in json.dumps(lines)
    first, second, third, fourth, fifth, sixth = lines
    assert {first["token"], first["Authorization"], first["key"], first["api_keys"]} == {"***"}
    assert second["auth"] == {"old": {"key": "***", "issuer": "me"}}
    assert second["uri"] == "/ws/?a=1&token=***&b=2"
    assert third["headers"] == ["authorization: bearer ***"]
    assert third["protocols"] == "tidegate.v1, bearer.***, x"
    assert fourth["error"] == "ValueError: bad: token=***"
    assert fifth["data"] == fifth["raw"] == fifth["got"]["data"] == "6 bytes"
    assert sixth["key"] is None
    assert sixth["token"] == ""


async def test_other_libraries_write_the_same_lines_from_warning_on(run: Run) -> None:
    lines = await run(
        """
        import asyncio, gc, logging
        logging.getLogger("tornado.general").info("quotes a request")
        logging.getLogger("tornado.general").warning("no %s", "luck")
        logging.getLogger("aiohttp.client").error("gone")

        async def fail():
            raise OSError("lost")

        async def main():
            task = asyncio.get_running_loop().create_task(fail())
            await asyncio.wait([task])

        asyncio.run(main())
        gc.collect()
        """
    )
    assert [(line["event"], line["level"], line["node"]) for line in lines] == [
        ("tornado.general", "warning", "n1"),
        ("aiohttp.client", "error", "n1"),
        ("asyncio", "error", "n1"),
    ]
    assert lines[0]["message"] == "no luck"
    assert lines[2]["message"].startswith("Task exception was never retrieved")
    assert lines[2]["error"] == "OSError: lost"
    assert lines[2]["trace"][-1] == "OSError: lost"


async def test_a_handler_that_fails_in_tornado_logs_no_access_line_and_no_token(run: Run) -> None:
    lines = await run(
        """
        import asyncio
        from tornado.httpclient import AsyncHTTPClient
        from tornado.httpserver import HTTPServer
        from tornado.testing import bind_unused_port
        from tornado.web import Application, RequestHandler

        class Failing(RequestHandler):
            def get(self):
                raise OSError("lost")

        async def main():
            socket, port = bind_unused_port()
            server = HTTPServer(Application([("/", Failing)]))
            server.add_socket(socket)
            url = f"http://127.0.0.1:{port}/?token=s3cret"
            answer = await AsyncHTTPClient().fetch(url, raise_error=False)
            assert answer.code == 500
            server.stop()
            await server.close_all_connections()

        asyncio.run(main())
        """
    )
    (line,) = lines
    assert line["event"] == "tornado.application"
    assert line["error"] == "OSError: lost"
    assert "token=***" in line["message"]
    assert "s3cret" not in json.dumps(line)
