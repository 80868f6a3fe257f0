"""A newcomer has installed the distribution without extras: what needs one says which."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import ROOT


@pytest.mark.parametrize(
    ("package", "statement", "extra"),
    [
        ("httpx", "tidegate_client.Publisher('http://127.0.0.1:8001')", "http"),
        ("redis", "tidegate_client.Publisher('redis://127.0.0.1')", "redis"),
        ("jwt", "tidegate_client.TokenSigner", "token"),
    ],
)
def test_what_needs_an_extra_names_it(package: str, statement: str, extra: str) -> None:
    code = f"import sys; sys.modules['{package}'] = None; import tidegate_client; {statement}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "clients/python", capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == f"ModuleNotFoundError: {package} is missing: install tidegate-client[{extra}]"
    assert "During handling" not in done.stderr
