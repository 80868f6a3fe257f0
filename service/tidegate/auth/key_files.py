"""Files that hold a key: what is in one, and whether it has changed."""

from __future__ import annotations

import os
import stat as modes

from tidegate.core.errors import Unusable

MOST = 1 << 20  # bytes: more than any key set has


def read(name: str, path: str, *, pipe: bool = False) -> bytes:
    """What is in the file. ``pipe``: it may also be one, whose writer is waited for; a node that reads its keys again
    must wait for nobody. Raises Unusable."""
    try:
        with open(path, "rb", opener=None if pipe else _at_once) as file:
            if not pipe and not modes.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Unusable(name, f"{path} is no regular file, and reading it could take for ever", local=True)
            data = file.read(MOST + 1)
    except OSError as exc:
        raise Unusable(name, f"cannot read {path}: {exc.strerror}", local=True) from exc
    if len(data) > MOST:
        raise Unusable(name, f"{path} has more than {MOST} bytes, and is hardly a key", local=True)
    return without_end(data)


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


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
