"""One message to many sockets: what is written at once, and what must wait."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tidegate.core.session import Transport

WRITE_BYTES = 256 * 1024  # joined for one write; more would be copied again each time that the socket takes a part


def fan_out(wires: Iterable[Transport], waiting: Sequence[bytes]) -> None:
    """Writes these frames to each, at once where nothing waits. Calls no peer: who is lost or slow hears of it when the
    turn ends.

    A group of thousands is more memory than a cache holds, so that what counts is how many objects a delivery touches:
    here two, the wire and its socket."""
    data = b"".join(waiting)
    size = len(data)
    if size > WRITE_BYTES:
        for wire in wires:
            wire.put_rest(waiting, 0)
        return
    for wire in wires:
        sent = 0
        if not wire.size:
            try:
                sent = wire.sock.send(data)
            except OSError:  # blocked or lost, as the next write will find
                sent = 0
        if sent < size:
            wire.put_rest(waiting, sent)
