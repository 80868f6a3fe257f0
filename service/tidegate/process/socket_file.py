"""A Unix socket to listen on, and the file by which others find it.

The file outlives a process that is killed, and a process can take it away from another that still listens. So whoever
wants to listen looks first, with the folder locked: where a process answers, it stays that one's; where none does, the
file was left behind and is replaced. The socket gets its name when mode and group are as they should be and it listens:
an edge that tries meanwhile finds no file, or the old one, and never one that it may not open.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import socket
import stat
from collections.abc import Iterator

PATH_BYTES = 107  # unix(7), and the NUL


class SocketFile:
    """Listens at ``path``. ``mode``: its permissions in octal digits, of which the right to write is the right to
    connect; ``group``: its name or number, None leaves the process's own. ``key`` is the path's key in the
    configuration. Raises OSError, which says in words what was wrong with which key."""

    def __init__(self, key: str, path: str, *, mode: str, group: str | None, backlog: int) -> None:
        self.path = path
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            with _locked(os.path.dirname(path)):
                if why := obstacle(path):
                    raise OSError(errno.EADDRINUSE, why)
                with _unnamed(path) as unnamed:
                    self.sock.bind(unnamed)
                    if group is not None:
                        _give_to(unnamed, group_number(group))
                    os.chmod(unnamed, int(mode, 8))
                    self.sock.listen(backlog)
                    os.rename(unnamed, path)
                self._identity = _identity(path)
        except OSError as exc:
            self.sock.close()
            raise OSError(f"{key}: cannot listen on {path}: {_lower(exc.strerror or str(exc))}") from exc
        self.sock.setblocking(False)

    def remove(self) -> None:
        """Takes the file away, unless it is no longer ours. The socket still has those who have come."""
        with contextlib.suppress(FileNotFoundError):
            if _identity(self.path) == self._identity:
                os.unlink(self.path)


def obstacle(path: str) -> str:
    """Why nobody can listen at ``path``; empty where one can. A file that a process left behind is no obstacle."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        return f"there is no folder {folder}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"the folder {folder} cannot be written to"
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return "what is there is no Unix socket; take it away, or choose another path"
    except FileNotFoundError:
        return ""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        fault = sock.connect_ex(path)
    if fault in (errno.ECONNREFUSED, errno.ENOENT):
        return ""
    if fault in (0, errno.EAGAIN):  # the latter where too many wait for it already
        return "another process listens there, perhaps a node that still runs; each node needs a path of its own"
    return f"whether another process listens there cannot be seen: {_lower(os.strerror(fault))}"


def group_number(group: str) -> int:
    """Raises OSError where this machine does not know it."""
    if group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise OSError(errno.ENOENT, f"there is no group {group}") from None


def _give_to(path: str, group: int) -> None:
    try:
        os.chown(path, -1, group)
    except PermissionError as exc:
        raise OSError(exc.errno, f"group {group} cannot have it: the service must be in that group, or root") from exc


@contextlib.contextmanager
def _unnamed(path: str) -> Iterator[str]:
    """Where a file is made that will be at ``path``: in the same folder, which is locked. `ss -x` shows this name as
    long as the socket lives, so it is nearly the same."""
    folder, name = os.path.split(path)
    unnamed = os.path.join(folder, "." + name)
    if len(os.fsencode(unnamed)) > PATH_BYTES:
        unnamed = unnamed[:-1]
    with contextlib.suppress(FileNotFoundError):
        os.unlink(unnamed)
    try:
        yield unnamed
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unnamed)


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """One process at a time, in whatever container. Where there is no such folder nothing is locked."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
