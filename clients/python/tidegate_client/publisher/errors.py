"""Every way in which a push, or another call, ends badly. ``code`` is for programs: one of docs/protocol.md, Errors,
or a word that is given here."""

from __future__ import annotations

from collections.abc import Mapping

from tidegate_client.publisher.model import Position


class PublisherError(Exception):
    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"{code}: {message}")


class BadPush(PublisherError, ValueError):
    """It can never be taken, and was not sent: ``bad_request``, ``too_large`` or ``too_deep``."""


class NotThroughRedis(PublisherError):
    """``not_through_redis``: Redis takes pushes, and answers no questions."""

    def __init__(self, what: str) -> None:
        super().__init__("not_through_redis", f"{what} needs the HTTP API: make a Publisher with its URL")


class Refused(PublisherError):
    """The gateway, or Redis, says no; the same again would be refused again. ``status`` is that of HTTP, None where
    there was none. ``of_item``: this push of a batch was refused, and not the request as a whole. Codes beside the
    gateway's: ``unexpected`` (not the answer of a gateway's internal port), ``tls``, ``redis``."""

    def __init__(self, code: str, message: str, status: int | None = None, *, of_item: bool = False) -> None:
        self.status = status
        self.of_item = of_item
        super().__init__(code, message)


class NotConfirmed(PublisherError):
    """Nobody said yes in time. Where ``may_be_taken`` it may have been accepted all the same. Codes beside the
    gateway's: ``unreachable``, ``timeout``, ``cut``. ``key`` is the push's, None where it has none: pushed again with
    it, and with the same data, within five minutes of the first attempt, it is not doubled."""

    def __init__(self, code: str, message: str, *, may_be_taken: bool, key: str | None = None) -> None:
        self.may_be_taken = may_be_taken
        self.key = key
        super().__init__(code, message)


class PushFailed(PublisherError):
    """Some pushes of a batch were not accepted: ``failures`` by their place in it, each a Refused or a NotConfirmed.
    ``positions`` of all others; None each through Redis."""

    def __init__(
        self, failures: Mapping[int, Refused | NotConfirmed], positions: Mapping[int, Position | None]
    ) -> None:
        self.failures = dict(failures)
        self.positions = dict(positions)
        place, first = next(iter(self.failures.items()))
        count = len(failures) + len(positions)
        super().__init__(first.code, f"{len(failures)} of {count} pushes failed; number {place}: {first.message}")
