"""RFC 6455 frames as bytes: what the service sends, and the pieces that a reader needs. No I/O.

The service never masks what it sends (section 5.1) and never fragments.
"""

from __future__ import annotations

CONTINUATION = 0x0
TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA

FIN = 0x80
MASKED = 0x80
CONTROL_BYTES = 125  # the most that a control frame carries (section 5.5)


def header(opcode: int, length: int) -> bytes:
    """The header of a whole, unmasked message of ``length`` bytes."""
    first = FIN | opcode
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")


def text(payload: bytes) -> bytes:
    """One text message, ready to be written to any number of sockets."""
    length = len(payload)
    if length < 126:
        return b"\x81%c%b" % (length, payload)
    if length < 65536:
        return b"\x81\x7e%c%c%b" % (length >> 8, length & 0xFF, payload)
    return header(TEXT, length) + payload


def ping(payload: bytes) -> bytes:
    return header(PING, len(payload)) + payload


def pong(payload: bytes) -> bytes:
    return header(PONG, len(payload)) + payload


def close(code: int, reason: str = "") -> bytes:
    """A close frame; the reason is cut to what a control frame holds, at a whole character."""
    body = reason.encode()[: CONTROL_BYTES - 2].decode(errors="ignore").encode()
    return header(CLOSE, len(body) + 2) + code.to_bytes(2, "big") + body


def may_be_sent(code: int) -> bool:
    """Whether a peer may put ``code`` into a close frame (section 7.4 and the IANA registry)."""
    return 3000 <= code <= 4999 or code in _REGISTERED


_REGISTERED = frozenset((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014))
