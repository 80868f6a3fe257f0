"""RFC 6455 as it arrives in pieces: the careful parser. No I/O.

``wire`` reads whole, unfragmented frames by itself, as nearly all are; whatever else comes (a frame cut by the
network, a fragmented message, anything that looks wrong) goes through a ``Reader`` until nothing is pending. It says
no as early as the bytes allow: sizes before the payload is buffered, text as soon as it stops being UTF-8.
"""

from __future__ import annotations

import codecs
from typing import Final

from tidegate.core import frames
from tidegate.core.errors import CloseCode
from tidegate.tornado_seam import mask

_utf8_decoder: Final = codecs.getincrementaldecoder("utf-8")


class FrameError(Exception):
    """The peer broke the protocol; the connection ends with ``code``."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(reason)


def check_text(payload: bytes) -> None:
    """Raises FrameError(1007) unless ``payload`` is UTF-8 (section 8.1)."""
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError:
            raise FrameError(CloseCode.INVALID_UTF8, "text is not UTF-8") from None


def parse_close(payload: bytes) -> int:
    """The code in a close frame, 1005 where it has none. Raises FrameError (sections 5.5.1 and 7.4)."""
    if not payload:
        return CloseCode.NO_STATUS
    code = int.from_bytes(payload[:2], "big")  # one byte alone is below every code
    if not frames.may_be_sent(code):
        raise FrameError(CloseCode.PROTOCOL_ERROR, "invalid close code")
    check_text(payload[2:])
    return code


class Reader:
    """Feed it bytes with ``receive``, take messages with ``next`` until that gives None.

    ``idle`` says that nothing is pending and that it may be thrown away.
    """

    __slots__ = (
        "_binary",
        "_buffer",
        "_decoder",
        "_final",
        "_left",
        "_limit",
        "_mask",
        "_message",
        "_message_opcode",
        "_opcode",
        "_position",
    )

    def __init__(self, limit: int, *, binary: bool) -> None:
        """``limit``: bytes of a message; ``binary``: whether binary messages are allowed."""
        self._limit = limit
        self._binary = binary
        self._buffer = bytearray()
        self._position = 0  # what comes before it in the buffer has been used
        self._opcode = -1  # of the frame whose payload is arriving; -1: a header comes next
        self._final = False
        self._left = 0
        self._mask = b""
        self._message = bytearray()  # the fragments so far, unmasked
        self._message_opcode = -1  # -1: no message has begun
        self._decoder: codecs.IncrementalDecoder | None = None

    @property
    def idle(self) -> bool:
        return self._opcode < 0 and self._message_opcode < 0 and self._position == len(self._buffer)

    def receive(self, data: bytes) -> None:
        if self._position:
            del self._buffer[: self._position]
            self._position = 0
        self._buffer += data

    def next(self) -> tuple[int, bytes] | None:
        """The next whole message or control frame as (opcode, payload); a fragment that is not its message's last is
        (CONTINUATION, b""), so that thousands of them are not taken at once. Raises FrameError."""
        if self._opcode < 0 and not self._read_header():
            return None
        if self._opcode >= frames.CLOSE:
            if len(self._buffer) - self._position < self._left:
                return None
            opcode, self._opcode = self._opcode, -1
            return opcode, self._take(self._left)
        if not self._read_payload():
            return None
        self._opcode = -1
        return self._finish() if self._final else (frames.CONTINUATION, b"")

    def _read_header(self) -> bool:
        buffer, at = self._buffer, self._position
        have = len(buffer) - at
        if have < 2:
            return False
        first, second = buffer[at], buffer[at + 1]
        opcode, length = first & 0x0F, second & 0x7F
        self._check_header(first, second)
        size = {126: 8, 127: 14}.get(length, 6)
        extended = size - 6
        if have < 2 + extended:
            return False
        if extended:
            length = int.from_bytes(buffer[at + 2 : at + 2 + extended], "big")
            if length < (126 if extended == 2 else 65536):
                raise FrameError(CloseCode.PROTOCOL_ERROR, "a length must have its shortest form")  # section 5.2
        if opcode < frames.CLOSE:
            if length >> 63:
                raise FrameError(CloseCode.PROTOCOL_ERROR, "invalid length")
            if length + len(self._message) > self._limit:
                raise FrameError(CloseCode.TOO_BIG, f"a message may have {self._limit} bytes")
        if have < size:
            return False
        self._mask = bytes(buffer[at + size - 4 : at + size])
        self._position = at + size
        self._opcode, self._final, self._left = opcode, bool(first & frames.FIN), length
        if opcode in (frames.TEXT, frames.BINARY):
            self._message_opcode = opcode
            self._decoder = _utf8_decoder() if opcode == frames.TEXT else None
        return True

    def _check_header(self, first: int, second: int) -> None:
        opcode = first & 0x0F
        if first & 0x70:
            raise FrameError(CloseCode.PROTOCOL_ERROR, "reserved bits are set")
        if not second & frames.MASKED:
            raise FrameError(CloseCode.PROTOCOL_ERROR, "a client's frames must be masked")
        if opcode >= frames.CLOSE:
            if opcode > frames.PONG or not first & frames.FIN or second & 0x7F > frames.CONTROL_BYTES:
                raise FrameError(CloseCode.PROTOCOL_ERROR, "invalid control frame")
        elif opcode > frames.BINARY:
            raise FrameError(CloseCode.PROTOCOL_ERROR, "unknown opcode")
        elif (opcode == frames.CONTINUATION) != (self._message_opcode >= 0):
            raise FrameError(CloseCode.PROTOCOL_ERROR, "fragments out of order")
        elif opcode == frames.BINARY and not self._binary:
            raise FrameError(CloseCode.UNACCEPTABLE_DATA, "text messages only")

    def _take(self, length: int) -> bytes:
        """The next bytes of the payload, unmasked; the mask goes on where they end."""
        at = self._position
        self._position = at + length
        data = mask(self._mask, bytes(self._buffer[at : at + length]))
        turn = length % 4
        if turn:
            self._mask = self._mask[turn:] + self._mask[:turn]
        self._left -= length
        return data

    def _read_payload(self) -> bool:
        """Takes what is there of a data frame; True when it is whole."""
        length = min(self._left, len(self._buffer) - self._position)
        if length:
            data = self._take(length)
            if self._decoder is not None:
                self._decode(data, final=False)
            self._message += data
        return self._left == 0

    def _decode(self, data: bytes, *, final: bool) -> None:
        decoder = self._decoder
        assert decoder is not None
        try:
            decoder.decode(data, final)
        except UnicodeDecodeError:
            raise FrameError(CloseCode.INVALID_UTF8, "text is not UTF-8") from None
        # Half a surrogate can't become anything, but the decoder waits for its third byte.
        if b"\xed\xa0" <= decoder.getstate()[0] < b"\xee":
            raise FrameError(CloseCode.INVALID_UTF8, "text is not UTF-8")

    def _finish(self) -> tuple[int, bytes]:
        if self._decoder is not None:
            self._decode(b"", final=True)
            self._decoder = None
        opcode, self._message_opcode = self._message_opcode, -1
        payload, self._message = bytes(self._message), bytearray()
        return opcode, payload
