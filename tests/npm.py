"""The npm packages of an example: installed once, exactly as its lock file says."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest


def program(name: str) -> str:
    """The path of a program that comes with Node.js. Fails the test where it is missing."""
    path = shutil.which(name)
    if path is None:
        pytest.fail(f"{name} is missing: install Node.js 20.19 or newer with npm (tools/system.sh)", pytrace=False)
    return path


def install(folder: Path) -> Path:
    """``folder/node_modules``; npm runs only where its lock file has changed since. Runs no package's scripts."""
    lock = (folder / "package-lock.json").read_bytes()
    packages = folder / "node_modules"
    stamp = packages / ".installed"
    node, npm = program("node"), program("npm")
    wanted = hashlib.sha256(lock + subprocess.check_output([node, "--version"])).hexdigest()
    directory = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # two runs of the tests may share a checkout
        if not stamp.exists() or stamp.read_text() != wanted:
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            if done.returncode:
                pytest.fail(f"npm ci failed in {folder}:\n{done.stdout}{done.stderr}", pytrace=False)
            stamp.write_text(wanted)
    finally:
        os.close(directory)
    return packages
