"""Every way to say no: its code, its HTTP status and, for a connection, its close code.

A ``Refused`` is an answer: over HTTP it becomes its status with
``{"error": {"code", "message"}}``, over a WebSocket an ``error`` event; the
connection stays open. A ``CloseCode`` says why one ends. ``Unusable`` is for who configures. The
class carries code and status, the raise site only the facts. Source: docs/protocol.md, Errors and Close codes.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

import msgspec


class CloseCode(IntEnum):
    """Why a connection ends. docs/protocol.md, Close codes, says after which of them a client comes back."""

    DONE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNACCEPTABLE_DATA = 1003
    NO_STATUS = 1005  # never on the wire (RFC 6455, 7.4.1): the peer's close frame was empty
    ABNORMAL = 1006  # never on the wire: the connection was cut
    INVALID_UTF8 = 1007
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    RESTART = 1012
    TRY_LATER = 1013
    NO_SIGN_OF_LIFE = 4007
    SLOW_CONSUMER = 4008
    TOKEN_EXPIRED = 4009
    NOT_UNDERSTOOD = 4500
    DISCONNECTED = 4501
    TAKEN_OVER = 4502

    @property
    def reason(self) -> str:
        """What the close frame says beside the code, in a few words."""
        return _REASONS.get(self, "")


_REASONS = {
    CloseCode.RESTART: "service restart",
    CloseCode.TOO_BIG: "message too big",
    CloseCode.INTERNAL_ERROR: "internal error",
    CloseCode.TRY_LATER: "try again later",
    CloseCode.NO_SIGN_OF_LIFE: "no sign of life",
    CloseCode.SLOW_CONSUMER: "slow consumer",
    CloseCode.TOKEN_EXPIRED: "token expired",
    CloseCode.NOT_UNDERSTOOD: "too many commands not understood",
    CloseCode.DISCONNECTED: "disconnected by the application",
    CloseCode.TAKEN_OVER: "another connection took over",
}


class Unusable(ValueError):
    """The value of a setting looks right and cannot be used. ``local``: what it names is missing here, and may be there
    on the machine that it is meant for. The text says what is wrong and what to set, and holds no secret."""

    def __init__(self, key: str, message: str, *, local: bool = False) -> None:
        self.key = key
        self.message = message
        self.local = local
        super().__init__(f"{key}: {message}")


class Refused(Exception):
    """An answer that says no. ``retry_after_s`` is set where coming back makes sense."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_request"
    retry_after_s: int | None = None

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        self.message = message
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s
        super().__init__(message)

    @property
    def body(self) -> bytes:
        """The error object, as HTTP answers carry it."""
        return msgspec.json.encode({"error": {"code": self.code, "message": self.message}})

    @property
    def headers(self) -> dict[str, str]:
        """What an HTTP answer says beside status and body."""
        return {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}


class BadRequest(Refused):
    """The request or command is not as the contract says."""


class BadPush(BadRequest):
    """A push that no door takes. ``reason`` says it in a few words, which quote nothing."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class UnknownCommand(BadRequest):
    code = "unknown_command"


class TooDeep(BadRequest):
    code = "too_deep"


class Unauthorized(Refused):
    status, code = 401, "unauthorized"

    @property
    def headers(self) -> dict[str, str]:
        """With the scheme to use, as RFC 9110, 15.5.2 demands."""
        return {**super().headers, "WWW-Authenticate": "Bearer"}


class NotAllowed(Refused):
    status, code = 403, "not_allowed"


class OriginNotAllowed(NotAllowed):
    code = "origin_not_allowed"


class HostNotAllowed(NotAllowed):
    code = "host_not_allowed"


class NotFound(Refused):
    status, code = 404, "not_found"


class MethodNotAllowed(Refused):
    """``allow``: the methods that are, with commas between them."""

    status, code = 405, "method_not_allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        self.allow = allow
        super().__init__(message)

    @property
    def headers(self) -> dict[str, str]:
        """With the methods, as RFC 9110, 15.5.6 demands."""
        return {**super().headers, "Allow": self.allow}


class KeyReused(Refused):
    """An idempotency key came again within its time with another body."""

    status, code = 409, "key_reused"


class TooManyGroups(Refused):
    status, code = 409, "too_many_groups"


class TooManyGroupsAsked(TooManyGroups):
    """In a handshake, where the contract knows 400 only."""

    status = 400


class TooLarge(Refused):
    status, code = 413, "too_large"


class UnsupportedMediaType(Refused):
    status, code = 415, "unsupported_media_type"


class UpgradeRequired(Refused):
    status, code = 426, "upgrade_required"

    @property
    def headers(self) -> dict[str, str]:
        """With the protocol (RFC 9110, 15.5.22) and its version (RFC 6455, 4.4). Where Upgrade is sent, Connection must
        name it (RFC 9110, 7.8)."""
        return {**super().headers, "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}


class TooManyConnections(Refused):
    """This client has as many connections as one may have."""

    status, code, retry_after_s = 429, "too_many_connections", 10


class TooManyCalls(Refused):
    status, code, retry_after_s = 429, "too_many_calls", 1


class TooFast(Refused):
    """More new streams than this client, its connection or all clients of the node may begin."""

    status, code, retry_after_s = 429, "too_fast", 1


class TooSlow(Refused):
    """A request that has begun and does not end."""

    status, code = 408, "too_slow"


class HeadersTooLarge(Refused):
    status, code = 431, "headers_too_large"


class InternalError(Refused):
    """Our fault; the details are in the log."""

    status, code = 500, "internal_error"


class CallBadAnswer(Refused):
    status, code = 502, "call_bad_answer"


class CallUnavailable(Refused):
    status, code = 502, "call_unavailable"


class Unavailable(Refused):
    """Said by an edge: no node took the handshake. A node says it to an edge alone, which asks another."""

    status, code, retry_after_s = 502, "unavailable", 1


class CallTimeout(Refused):
    status, code = 504, "call_timeout"


class BrokerDown(Refused):
    """The broker did not confirm. A push may have been accepted all the same: repeat it with its key."""

    status, code, retry_after_s = 503, "broker_down", 1


class AuthUnavailable(Refused):
    """The application did not say who the client is. That is no bad login, and the same for all nodes."""

    status, code, retry_after_s = 503, "auth_unavailable", 3


class NotTried(Refused):
    """Skipped because an earlier push of the same stream in this batch met a transient failure."""

    status, code, retry_after_s = 503, "not_tried", 1


class Full(Refused):
    status, code, retry_after_s = 503, "full", 5


class Busy(Refused):
    """More clients come than are let in at once, or the node has its hands full with those that it has."""

    status, code, retry_after_s = 503, "busy", 5


class Draining(Refused):
    status, code, retry_after_s = 503, "draining", 1
