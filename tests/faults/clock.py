"""The time of day of one process, which can be set while it runs. Its monotonic clock goes on.

By a library of ours that it preloads (``clock.c``): Debian's libfaketime does not get on with Redis' jemalloc."""

from __future__ import annotations

import functools
import os
import struct
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


@functools.cache
def _library() -> Path:
    """Stays as long as the machine's temporary files do."""
    built = Path(tempfile.gettempdir()) / f"tidegate-test-clock-{os.getuid()}.so"
    with tempfile.NamedTemporaryFile(dir=built.parent, suffix=".so", delete=False) as made:
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", made.name, SOURCE], check=True)
    return Path(made.name).rename(built)  # at once, for other tests run beside this one


class Clock:
    """``environ`` gives it to a process; ``set`` is obeyed at once."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def environ(self) -> dict[str, str]:
        if not self._file.exists():
            self.set(0)
        return {"LD_PRELOAD": str(_library()), "CLOCK_FILE": str(self._file)}

    def set(self, off_s: int) -> None:
        """So many seconds from the true time."""
        if not self._file.exists():
            self._file.touch()
        with self._file.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", off_s))
