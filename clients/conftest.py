"""The libraries' own tests have what all tests have: a loop, a limit in time, and silence in the logs."""

from pathlib import Path

import tests
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

# ``tests`` is a package in several places of the path. Where pytest has imported it for those at the top, it knows
# that place alone, and a library's tests would not find what they share.
_HERE = str(Path(__file__).parent / "python" / "tests")
if _HERE not in list(tests.__path__):
    tests.__path__.append(_HERE)
