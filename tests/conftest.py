"""What every test has: a loop of its own, a limit in time, and silence in the logs unless it asks for noise."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from tornado.ioloop import IOLoop

from tests.support import Logs, Process, scaled
from tests.wires import Line

# A busy machine makes single examples slow: the limit of the whole test has to do.
hypothesis.settings.register_profile("tidegate", deadline=None)
hypothesis.settings.load_profile("tidegate")

_LIMIT_S = 60.0
_SLOW_LIMIT_S = 600.0


@pytest.fixture(autouse=True)
def expected_logs() -> Iterator[Logs]:
    """Fails the test if any logger was given a WARNING or worse that it did not ``expect``."""
    logs = Logs()
    make_record = logging.getLogRecordFactory()

    # Seen where records are made, because a handler misses loggers that do not propagate.
    def make_and_keep(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        if record.levelno is not None and record.levelno >= logging.WARNING:
            logs.records.append(record)
        return record

    logging.setLogRecordFactory(make_and_keep)
    try:
        yield logs
    finally:
        logging.setLogRecordFactory(make_record)
    if complaints := logs.complaints():
        pytest.fail("\n".join(complaints), pytrace=False)


@pytest.fixture(autouse=True)
def io_loop(expected_logs: Logs) -> Iterator[IOLoop]:
    """The loop on which pytest-tornasync runs an ``async def`` test. Tasks that the test leaves behind are cancelled.

    Replaces the plugin's own, which uses what Tornado has deprecated."""
    io_loop = IOLoop(make_current=False)
    loop: asyncio.AbstractEventLoop = io_loop.asyncio_loop
    asyncio.set_event_loop(loop)
    try:
        yield io_loop
        while tasks := asyncio.all_tasks(loop):
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.wait(tasks))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        io_loop.close()


@pytest.fixture
def start_process(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts a program: ``start_process(sys.executable, "-m", "tidegate", "serve", env={...})``; see ``Process``.
    What still runs when the test ends is killed."""
    with contextlib.ExitStack() as stack:
        numbers = itertools.count(1)

        def start(*args: str | Path, **options: Any) -> Process:
            folder = tmp_path / f"process-{next(numbers)}"
            folder.mkdir()
            process = Process(*args, folder=folder, **options)
            stack.callback(process.kill)
            return process

        yield start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    with _limited(item, "set-up"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    with _limited(item, "test"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    with _limited(item, "tear-down"):
        return (yield)


@contextlib.contextmanager
def _limited(item: pytest.Item, phase: str) -> Iterator[None]:
    """Fails what takes too long: a minute, ten for a slow test, or what its ``timeout`` mark says."""
    if item.get_closest_marker("soak"):
        yield
        return
    limit_s = _SLOW_LIMIT_S if item.get_closest_marker("slow") else _LIMIT_S
    if marker := item.get_closest_marker("timeout"):
        limit_s = marker.kwargs["seconds"]
    limit_s = scaled(limit_s)

    def expire(signum: int, frame: object) -> None:
        pytest.fail(f"the {phase} took longer than {limit_s:g} s")

    previous = signal.signal(signal.SIGALRM, expire)
    # Again each second: asyncio swallows the first where it happens to hit a callback.
    signal.setitimer(signal.ITIMER_REAL, limit_s, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def lines() -> Iterator[Callable[..., Line]]:
    """Makes lines that are ended with the test."""
    made: list[Line] = []

    def make(*args: Any, **options: Any) -> Line:
        made.append(Line(*args, **options))
        return made[-1]

    yield make
    for line in made:
        line.wire.abort()
        line.theirs.close()
