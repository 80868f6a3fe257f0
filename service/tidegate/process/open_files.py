"""The process's open files: how many it may have, how many it has, and how they are shared out.

Every connection is one. Where they run out, nothing works any more: no health check is answered, Redis is not reached
again, no call is made. So clients get what is left when those have their share, and a node that has given it all away
is ``full``.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import sys
from typing import NamedTuple

LEAST = 128  # below that there is no room for clients beside the process's own
OWN = 64  # the loop, listeners, standard streams, connections to Redis, looking names up, a listener's spares
API = 64  # connections of applications, health checks and Prometheus
HANDSHAKES = 256  # at once; a full node needs them too, to say that it is

_FOLDERS = ("/proc/self/fd", "/dev/fd")


class FileShares(NamedTuple):
    """``sockets`` may be open on both ports together, ``public`` of them on the public port, and of those
    ``connections`` are WebSockets. ``needed``: the limit that would let ``limits.connections`` in."""

    limit: int
    sockets: int
    public: int
    connections: int
    needed: int


def share(limit: int, *, connections: int, calls: int) -> FileShares:
    """Shares ``limit`` files out: ``connections`` are wanted, ``calls`` connections to the application may be. The
    process and the API never keep more than three eighths of them. Raises ValueError for a limit that is too low."""
    if limit < LEAST:
        raise ValueError(f"this process may open {limit} files, and needs {LEAST} at least: raise `ulimit -Hn`")
    sockets = limit - min(OWN + calls, limit // 4)
    public = sockets - min(API, limit // 8)
    return FileShares(
        limit=limit,
        sockets=sockets,
        public=public,
        connections=min(connections, public - min(HANDSHAKES, public // 16)),
        needed=connections + min(HANDSHAKES, math.ceil(connections / 15)) + API + OWN + calls,
    )


def limit() -> int:
    """How many this process may have now: the soft limit."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def raise_limit() -> int:
    """Raises the soft limit to the hard one, which every process may do; the limit from here on."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):  # macOS says "infinity" and means less
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return limit()


def count() -> int:
    """How many are open. Costs no file itself on Linux 6.2 and newer; else all are listed. 0 where nothing tells."""
    for folder in _FOLDERS:
        try:
            return os.stat(folder).st_size or len(os.listdir(folder)) - 1  # less the one that lists
        except FileNotFoundError:
            continue
        except OSError:
            return limit()  # there is none left to look
    return 0
