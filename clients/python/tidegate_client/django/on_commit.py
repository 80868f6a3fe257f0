"""Pushes that wait for the transaction: nobody hears of what is rolled back, and who hears finds it in the database.

A process that dies between the commit and the push has not pushed. Where that matters there is the outbox.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import transaction

from tidegate_client.django.publishers import publisher
from tidegate_client.publisher import Push
from tidegate_client.publisher.pushes import Key


def push_on_commit(
    *,
    data: Any,
    client: str | None = None,
    group: str | None = None,
    all: bool = False,
    key: Key = None,
    conflate: str | None = None,
    traceparent: str | None = None,
    using: str | None = None,
    robust: bool = False,
) -> None:
    """``Publisher.push`` when the transaction is committed; at once where there is none. ``data`` and
    ``traceparent`` are what they are now. Raises BadPush now; what the push raises is Django's to handle, as
    ``robust`` says (``transaction.on_commit``)."""
    push = Push(client=client, group=group, all=all, data=data, key=key, conflate=conflate, traceparent=traceparent)
    push_many_on_commit([push], using=using, robust=robust)


def push_many_on_commit(
    pushes: Iterable[Push | Mapping[str, Any]], *, using: str | None = None, robust: bool = False
) -> None:
    """``Publisher.push_many`` when the transaction is committed; otherwise as ``push_on_commit``."""
    rules = publisher().rules
    ready = [rules.item(push).push() for push in pushes]

    def push() -> None:  # Django names it where it fails, which it could not do with a partial
        _push(ready)

    transaction.on_commit(push, using=using, robust=robust)


def _push(pushes: list[Push]) -> None:
    if len(pushes) == 1:
        (push,) = pushes
        publisher().push(
            client=push.client,
            group=push.group,
            all=push.all,
            data=push.data,
            key=push.key,
            conflate=push.conflate,
            traceparent=push.traceparent,
        )
    else:
        publisher().push_many(pushes)
