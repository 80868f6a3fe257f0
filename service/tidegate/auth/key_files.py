"""Files that hold a key: what is in one, and whether it has changed."""

from __future__ import annotations

import os
from pathlib import Path

from tidegate.core.errors import Unusable


def read(name: str, path: str) -> bytes:
    """What is in the file. Raises Unusable."""
    try:
        return without_end(Path(path).read_bytes())
    except OSError as exc:
        raise Unusable(name, f"cannot read {path}: {exc.strerror}", local=True) from exc


def without_end(data: bytes) -> bytes:
    """Without line breaks at the end, which editors, ``echo`` and files made into variables add to secrets."""
    return data.rstrip(b"\r\n")


def stamp(path: str) -> tuple[int, ...] | None:
    """Changes with the file, also where it is replaced or its mode changes; None where it is missing."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino
