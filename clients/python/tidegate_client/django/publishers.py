"""The publishers of this process, made as ``settings.TIDEGATE`` says when they are first asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.serializers.json import DjangoJSONEncoder
from django.core.signals import setting_changed

from tidegate_client.publisher import AsyncPublisher, Publisher

T = TypeVar("T")
AnyPublisher = TypeVar("AnyPublisher", Publisher, AsyncPublisher)


class OutboxSettings(NamedTuple):
    """``TIDEGATE["OUTBOX"]``. ``batch``: rows that are sent at once. Rows that were sent are removed after
    ``keep_sent_s``, rows that were refused after ``keep_failed_s``."""

    batch: int = 500
    keep_sent_s: float = 3600
    keep_failed_s: float = 30 * 86400


_used: list[Publisher | AsyncPublisher] = []


def publisher() -> Publisher:
    """The Publisher of this process. Raises ImproperlyConfigured."""
    return next((each for each in reversed(_used) if isinstance(each, Publisher)), None) or _publisher()


def async_publisher() -> AsyncPublisher:
    """The AsyncPublisher of this process. Raises ImproperlyConfigured."""
    return next((each for each in reversed(_used) if isinstance(each, AsyncPublisher)), None) or _async_publisher()


@contextlib.contextmanager
def use_publisher(other: AnyPublisher) -> Iterator[AnyPublisher]:
    """For tests: ``publisher()``, or ``async_publisher()``, is ``other`` meanwhile, in all threads; a fake, for
    instance."""
    _used.append(other)
    try:
        yield other
    finally:
        _used.remove(other)


def outbox_settings() -> OutboxSettings:
    """Raises ImproperlyConfigured."""
    return _built(OutboxSettings, 'TIDEGATE["OUTBOX"]', _options().get("outbox", {}))


@cache
def _publisher() -> Publisher:
    return _built(Publisher, "TIDEGATE", _for_publishers())


@cache
def _async_publisher() -> AsyncPublisher:
    return _built(AsyncPublisher, "TIDEGATE", _for_publishers())


def _for_publishers() -> dict[str, Any]:
    options = {name: value for name, value in _options().items() if name != "outbox"}
    if "url" not in options:
        raise ImproperlyConfigured('TIDEGATE["URL"] is missing')
    return {"json_default": DjangoJSONEncoder().default, **options}


def _options() -> dict[str, Any]:
    return {name.lower(): value for name, value in getattr(settings, "TIDEGATE", {}).items()}


def _built(kind: type[T], where: str, options: dict[str, Any]) -> T:
    try:
        return kind(**{name.lower(): value for name, value in options.items()})
    except (TypeError, ValueError) as exc:
        raise ImproperlyConfigured(f"{where}: {exc}") from exc


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "TIDEGATE":
        _publisher.cache_clear()
        _async_publisher.cache_clear()


setting_changed.connect(_forget)
