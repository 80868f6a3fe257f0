"""The libraries' own tests have what all tests have: a loop, a limit in time, and silence in the logs."""

from tests.conftest import (
    expected_logs,
    io_loop,
    lines,
    pytest_runtest_call,
    pytest_runtest_setup,
    pytest_runtest_teardown,
    start_process,
)

__all__ = [
    "expected_logs",
    "io_loop",
    "lines",
    "pytest_runtest_call",
    "pytest_runtest_setup",
    "pytest_runtest_teardown",
    "start_process",
]
