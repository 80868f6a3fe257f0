"""The edge's Lua that needs nothing of nginx, run by itself."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.support import ROOT


def run(script: str) -> list[str]:
    """The lines that a script prints; it finds the edge's modules."""
    luajit = shutil.which("luajit")
    if luajit is None:
        pytest.fail("luajit2 is missing: tools/system.sh installs it", pytrace=False)
    text = f'package.path = "{ROOT}/nginx/lua/?.lua"\n{script}'
    done = subprocess.run([luajit, "-"], input=text.encode(), capture_output=True, timeout=20)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("latin1").splitlines()


def quoted(data: bytes) -> str:
    """Bytes as a string of Lua."""
    return '"' + "".join(f"\\{byte:03}" for byte in data) + '"'
