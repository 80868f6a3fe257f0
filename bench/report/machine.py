"""What figures were made on and of, and where they go."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from bench import ROOT


def machine(python: str = sys.executable) -> dict[str, Any]:
    """What the figures were made on and of."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cpu": cpu[1] if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "memory": f"{int(memory[1]) // 1024} MiB" if memory else "unknown",
        "load average at the start": f"{os.getloadavg()[0]:.1f}",
        "commit": _commit(),
        **versions(python),
    }


def _commit() -> str:
    """Short, and whether what ran was something else."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "service", "bench", "nginx", "examples")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}, changed since" if changed else head


def _git(*args: str) -> str:
    return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def results_folder(command: str = "", *, quick: bool = False) -> Path:
    """Where a run's results go unless it is told; ``command``: a folder inside. A quick one is kept apart."""
    if quick:
        return Path(tempfile.mkdtemp(prefix="bench-"))
    name = re.sub(r"[^A-Za-z0-9-]+", "-", platform.node()).strip("-").lower() or "machine"
    return ROOT / "bench" / "results" / f"{time.strftime('%Y-%m-%d')}-{name}" / command


def versions(python: str) -> dict[str, str]:
    """Of everything that is measured or measures; ``python`` runs what is written in it."""
    found = {}
    for package in ("tornado", "msgspec", "uvloop", "picows", "websockets", "PyJWT"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    own = {
        "python": [python, "-c", "import sys; print(sys.version.split()[0])"],
        "a million turns of a loop": [python, "-c", _LOOP],
    }
    commands = {**own, **_VERSION_COMMANDS}
    for name, command in commands.items():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(command, capture_output=True, text=True, timeout=10)
            words = (done.stdout + done.stderr).strip().splitlines()
            if not done.returncode and words:
                found[name] = words[0][:100]
    return found


# How fast its bytecode is differs by a third between builds of one version.
_LOOP = """
import time
def turns():
    began, x = time.process_time(), 0
    for i in range(1_000_000):
        x = x + i if i & 1 else x - 1
    return time.process_time() - began
print(f"{min(turns() for _ in range(5)) * 1000:.0f} ms")
"""
_VERSION_COMMANDS = {
    "kernel": ["uname", "-r"],
    "gcc": ["gcc", "-dumpfullversion"],
    "go": ["go", "version"],
    "nginx": ["dpkg-query", "-W", "-f", "${Version}", "nginx"],
    "nchan": ["dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"],
    "gorilla": ["dpkg-query", "-W", "-f", "${Version}", "golang-github-gorilla-websocket-dev"],
    "redis": ["dpkg-query", "-W", "-f", "${Version}", "redis-server"],
}
