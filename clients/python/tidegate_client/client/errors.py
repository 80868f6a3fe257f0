"""What can go wrong for those who use the client."""

from __future__ import annotations

from tidegate_client.client.model import Left, Reason


class ClientError(Exception):
    """``code`` is the gateway's word, or one of the client's own: ``unknown_outcome``, ``timeout``, ``closed``,
    ``left``."""

    code = "error"


class CommandRefused(ClientError):
    """The gateway said no to a command; ``code`` says why, as in the table of errors in docs/protocol.md. ``too_large``
    is also said here, before anything is sent."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message


class UnknownOutcome(ClientError):
    """The connection broke while the command was under way: it may have been carried out, or not."""

    code = "unknown_outcome"


class AnswerTimeout(ClientError, TimeoutError):
    """No answer within ``answer_timeout_s``. The command may have been carried out."""

    code = "timeout"


class Closed(ClientError):
    """The client is closed, and does not come back by itself; ``reason`` says why."""

    code = "closed"

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"{reason.word}: {reason.message}" if reason.message else reason.word)
        self.reason = reason


class NotJoined(ClientError):
    """The group was left from outside, or refused, while a plain ``async for`` was waiting for its messages."""

    code = "left"

    def __init__(self, left: Left) -> None:
        super().__init__(f"{left.stream}: {left.reason}")
        self.left = left
        self.reason = left.reason


class NotAllowed(Exception):
    """For a token function to raise: the user may not connect. The client is closed then."""
