"""Frames of a client: the reader and the wire against a slow parser, wherever the network cuts.

An input is a byte of options (how long a message may be, whether it may be binary), a byte that says how far apart the
cuts are, and then the client's bytes.
"""

from __future__ import annotations

import itertools
import socket

from tests.websocket.verdict import by_reader, by_wire, judge, pings_last
from tests.wires import CountingSocket

LIMITS = (10, 125, 126, 300, 1000, 65535, 65536, 131072)
MOST_BYTES = 16384  # what a wire is fed in one go, at the most


def check(data: bytes) -> None:
    if len(data) < 2:
        return
    limit, binary, step, sent = LIMITS[data[0] & 7], bool(data[0] & 8), data[1], data[2:MOST_BYTES]
    expected = judge(sent, limit=limit, binary=binary)
    parts = [sent[at : at + step] for at in range(0, len(sent), step)] if step else [sent]
    read = by_reader(parts, limit=limit, binary=binary)
    assert read == expected, f"the reader says {read}, and RFC 6455 {expected}"
    if step > 3 or not step:  # each piece is a turn of the loop
        heard = by_wire(itertools.islice(parts, 200), limit=limit, binary=binary, ends=_unix)
        if len(parts) <= 200:
            assert heard == pings_last(expected), f"the wire says {heard}, and RFC 6455 {expected}"


def _unix() -> tuple[CountingSocket, socket.socket]:
    """Two ends that need no port: there are thousands of them in a second."""
    one, theirs = socket.socketpair()
    ours = CountingSocket(fileno=one.detach())
    ours.sent, ours.most = [], None
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs
