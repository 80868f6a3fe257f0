from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import Logs, Process, eventually, free_port, is_listening

Start = Callable[..., Process]

LISTEN = """
import socket, sys
sock = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening")
while True:
    sock.accept()
"""


async def test_eventually_gives_the_first_truthy_value():
    values = iter([None, 0, "", "done", "later"])
    assert await eventually(lambda: next(values)) == "done"


async def test_eventually_awaits_an_async_condition():
    values = iter([0, 0, 7])

    async def condition() -> int:
        await asyncio.sleep(0)
        return next(values)

    assert await eventually(condition) == 7


async def test_eventually_says_what_it_saw_last():
    with pytest.raises(AssertionError, match=r"last value: \[\]"):
        await eventually(lambda: [], timeout_s=0.05)


async def test_eventually_asks_once_more_when_a_busy_loop_has_used_up_the_time():
    asked = 0

    def condition() -> bool:
        nonlocal asked
        asked += 1
        time.sleep(0.06)
        return asked == 2

    assert await eventually(condition, timeout_s=0.05)


async def test_eventually_lets_an_exception_of_the_condition_through():
    with pytest.raises(ZeroDivisionError):
        await eventually(lambda: 1 // 0)


async def test_the_scale_of_a_slow_machine_comes_from_the_environment_and_is_hidden_from_the_service(
    start_process: Start,
):
    program = "import os; from tests.support import scaled; print(scaled(4), 'TIDEGATE_TEST_SCALE' in os.environ)"
    process = start_process(sys.executable, "-c", program, env={"TIDEGATE_TEST_SCALE": "2.5"})
    assert await process.line("[0-9]") == "10.0 False"


def test_nobody_listens_on_a_free_port():
    port = free_port()
    assert not is_listening(port)
    with socket.create_server(("127.0.0.1", port)):
        assert is_listening(port)


async def test_a_process_is_waited_for_by_line_and_port_and_then_stopped(start_process: Start):
    port = free_port()
    process = start_process(sys.executable, "-c", LISTEN, str(port))
    assert await process.line("^listen") == "listening"
    await process.port(port)
    assert await process.stop() == -signal.SIGTERM
    assert not is_listening(port)


async def test_a_process_that_ends_early_is_reported_with_its_output_at_once(start_process: Start):
    process = start_process(sys.executable, "-c", "import sys; sys.exit('no port for me')")
    with pytest.raises(AssertionError, match=r"exit code 1\)\n--- end of stderr\nno port for me"):
        await process.port(free_port(), timeout_s=600)


async def test_a_line_written_just_before_the_end_is_found(start_process: Start):
    process = start_process(sys.executable, "-c", "print('done')")
    await process.ended()
    assert await process.line("done") == "done"


async def test_a_process_that_does_not_end_is_reported(start_process: Start):
    process = start_process("sleep", "600")
    with pytest.raises(AssertionError, match=r"did not end: sleep 600 \(running\)"):
        await process.ended(timeout_s=0.05)


async def test_a_killed_process_takes_its_children_along(start_process: Start):
    port = free_port()
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LISTEN!r}, '{port}'])"
    process = start_process(sys.executable, "-c", child)
    await process.port(port)
    process.signal(signal.SIGSTOP)
    process.kill()
    assert process.exit_code == -signal.SIGKILL
    await eventually(lambda: not is_listening(port))
    process.kill()  # again does no harm


async def test_json_lines_are_found_by_event(start_process: Start):
    program = (
        """print('{"event":"a.b","n":1}'); print('{"event":"c","of":"a.b"}'); print('{"event":"a.b", "n"', end='')"""
    )
    process = start_process(sys.executable, "-c", program)
    await process.ended()
    assert process.logged("a.b") == [{"event": "a.b", "n": 1}]


async def test_a_process_inherits_no_settings(start_process: Start, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TIDEGATE_SERVER__PORT", "1")
    program = "import os; print(sorted(key for key in os.environ if key.startswith('TIDEGATE_')))"
    process = start_process(sys.executable, "-c", program, env={"TIDEGATE_LOG__LEVEL": "debug"})
    assert await process.line(r"\[") == "['TIDEGATE_LOG__LEVEL']"


def test_a_warning_that_was_expected_is_fine(expected_logs: Logs):
    expected_logs.expect(r"^broker\.lost$")
    logging.getLogger("tidegate").warning("broker.lost")


def test_what_is_allowed_need_not_come(expected_logs: Logs):
    expected_logs.allow("broker.lost")


def test_no_trouble_is_no_complaint():
    logging.getLogger("tidegate").info("node.started")


BAD_TESTS = """
import asyncio, logging, time
import pytest

def test_unasked(): logging.getLogger("tornado.access").warning("404 GET")

def test_unasked_and_not_propagated(monkeypatch):
    logger = logging.getLogger("tidegate")
    monkeypatch.setattr(logger, "propagate", False)
    logger.error("task.failed")

def test_in_vain(expected_logs): expected_logs.expect("broker.lost")

async def test_exception_in_a_callback():
    asyncio.get_running_loop().call_soon(lambda: 1 // 0)
    await asyncio.sleep(0)

@pytest.mark.timeout(seconds=0.2)
async def test_waits_forever(): await asyncio.get_running_loop().create_future()

@pytest.mark.timeout(seconds=0.2)
def test_sleeps_forever(): time.sleep(600)

left = []

async def test_leaves_a_task():
    async def wait():
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            left.append("cancelled")
            raise
    left.append(asyncio.get_running_loop().create_task(wait()))
    await asyncio.sleep(0)

def test_the_task_was_cancelled(): assert left[1:] == ["cancelled"]

def test_resource_left_open(): open(__file__)
"""


async def test_bad_tests_fail(start_process: Start, tmp_path: Path):
    file = tmp_path / "test_bad.py"
    file.write_text(BAD_TESTS)
    (tmp_path / "conftest.py").write_text("from tests.conftest import *")
    command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "no:cacheprovider", "-rA", "--tb=line"]
    process = start_process(*command, file, env={"COLUMNS": "200"})
    assert await process.ended(60) == 1, process.stdout
    outcomes: dict[str, dict[str, str]] = {}
    for line in process.lines():
        outcome, _, rest = line.partition(" ")
        if outcome in ("PASSED", "FAILED", "ERROR") and "::" in rest:
            name, _, reason = rest.partition("::")[2].partition(" - ")
            outcomes.setdefault(name, {})[outcome] = reason
    assert "logged unasked: WARNING tornado.access: 404 GET" in outcomes["test_unasked"]["ERROR"]
    assert "logged unasked: ERROR tidegate: task.failed" in outcomes["test_unasked_and_not_propagated"]["ERROR"]
    assert "never logged: broker.lost" in outcomes["test_in_vain"]["ERROR"]
    assert "logged unasked: ERROR asyncio: Exception in callback" in outcomes["test_exception_in_a_callback"]["ERROR"]
    assert "FAILED" in outcomes["test_waits_forever"]
    assert "the test took longer than 0.2 s" in outcomes["test_sleeps_forever"]["FAILED"]
    assert outcomes["test_leaves_a_task"] == {"PASSED": ""}
    assert outcomes["test_the_task_was_cancelled"] == {"PASSED": ""}
    assert "FAILED" in outcomes["test_resource_left_open"]
