"""The outbox: a push is a row, written in the caller's transaction, and sent by ``manage.py send_tidegate_outbox``.

What is committed is pushed, whatever dies in between: at least once, in the order of the rows of a stream. A row that
is sent again goes with the same key and the same bytes, which the gateway knows for five minutes: within them nothing
is doubled.

Several senders may run. Where the database can skip locked rows each takes others; a row waits while an earlier one of
its stream is with another sender. Where there are no such locks two senders may send the same rows, each in order, and
keys make one of them the repetition. No transaction is left open there during a push: SQLite would let nobody else
write."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from django.db import connections, router, transaction
from django.db.models import Min
from django.utils import timezone

from tidegate_client.django.models import OutboxPush
from tidegate_client.django.publishers import OutboxSettings, publisher
from tidegate_client.publisher import BadPush, Json, Publisher, PublisherError, Push, PushFailed, Refused

log = logging.getLogger("tidegate_client.django")


def push(
    *,
    data: Any,
    client: str | None = None,
    group: str | None = None,
    all: bool = False,
    key: str | None = None,
    conflate: str | None = None,
    traceparent: str | None = None,
    using: str | None = None,
) -> None:
    """Writes a push into the outbox, as part of the transaction of the database ``using``. Raises BadPush."""
    push = Push(client=client, group=group, all=all, data=data, key=key, conflate=conflate, traceparent=traceparent)
    push_many([push], using=using)


def push_many(pushes: Iterable[Push | Mapping[str, Any]], *, using: str | None = None) -> None:
    """Writes pushes into the outbox, in their order. Raises BadPush."""
    rules = publisher().rules
    rows = []
    for each in pushes:
        item = rules.item(each)
        if item.key is None:
            raise BadPush("bad_request", "key: a push of the outbox may be sent again, so it needs one")
        words = {"conflate": item.conflate or "", "traceparent": item.traceparent or ""}
        row = OutboxPush(stream=item.stream, key=item.key, data=item.data.decode(), **words)
        rows.append(row)
    OutboxPush.objects.using(using or router.db_for_write(OutboxPush)).bulk_create(rows)


class Sent(NamedTuple):
    """What one round came to: how many rows were accepted and given up, and what kept others from being either."""

    accepted: int = 0
    failed: int = 0
    trouble: PublisherError | None = None


class OutboxSender:
    """``database`` is an alias of ``DATABASES``."""

    def __init__(self, publisher: Publisher, settings: OutboxSettings, database: str) -> None:
        self._publisher = publisher
        self._settings = settings
        self._database = database
        self._features = connections[database].features

    def send(self) -> Sent:
        """Sends the first rows that wait. All zero: there are none, or other senders have them."""
        locks: Any = contextlib.nullcontext()
        if self._features.has_select_for_update:
            locks = transaction.atomic(using=self._database)  # a sender that dies lets its rows go
        with locks:
            rows = self._take()
            return self._send(rows) if rows else Sent()

    def remove_old(self) -> None:
        """Removes rows that are done, and have been kept for long enough."""
        now = timezone.now()
        done = OutboxPush.objects.using(self._database)
        done.filter(error="", done_at__lt=now - timedelta(seconds=self._settings.keep_sent_s)).delete()
        done.filter(done_at__lt=now - timedelta(seconds=self._settings.keep_failed_s)).delete()

    def _take(self) -> list[OutboxPush]:
        """Rows that may be sent now; locked where there are locks."""
        waiting = OutboxPush.objects.using(self._database).filter(done_at=None)
        first = waiting.order_by("id")
        if self._features.has_select_for_update:
            first = first.select_for_update(skip_locked=self._features.has_select_for_update_skip_locked)
        rows = list(first[: self._settings.batch])
        return self._not_held(rows) if self._features.has_select_for_update_skip_locked else rows

    def _not_held(self, rows: list[OutboxPush]) -> list[OutboxPush]:
        """Those before which nothing of their stream waits that is not among them: another sender has it."""
        if not rows:
            return []
        mine = [row.id for row in rows]
        others = OutboxPush.objects.using(self._database).filter(done_at=None, id__lt=mine[-1])
        others = others.filter(stream__in={row.stream for row in rows}).exclude(id__in=mine)
        held = dict(others.order_by().values_list("stream").annotate(Min("id")))
        return [row for row in rows if row.stream not in held or row.id < held[row.stream]]

    def _send(self, rows: list[OutboxPush]) -> Sent:
        failures: Mapping[int, PublisherError] = {}
        try:
            self._publisher.push_many([_push_of(row) for row in rows])
        except PushFailed as exc:
            failures = exc.failures
        except BadPush as exc:  # the limits are others than when the row was written
            return self._send_one_by_one(rows) if len(rows) > 1 else self._give_up(rows[0], exc)
        refused = {at: error for at, error in failures.items() if isinstance(error, Refused) and error.of_item}
        for at, error in refused.items():
            self._give_up(rows[at], error)
        accepted = [row.id for at, row in enumerate(rows) if at not in failures]
        self._done(accepted)
        waits = [error for at, error in failures.items() if at not in refused]
        return Sent(len(accepted), len(refused), waits[0] if waits else None)

    def _send_one_by_one(self, rows: list[OutboxPush]) -> Sent:
        accepted = failed = 0
        for row in rows:
            sent = self._send([row])
            accepted, failed = accepted + sent.accepted, failed + sent.failed
            if sent.trouble is not None:
                return Sent(accepted, failed, sent.trouble)
        return Sent(accepted, failed)

    def _give_up(self, row: OutboxPush, error: PublisherError) -> Sent:
        log.error("outbox row %d (%s) was refused: %s", row.id, row.stream, error)
        self._done([row.id], error.code)
        return Sent(failed=1)

    def _done(self, ids: list[int], error: str = "") -> None:
        done = OutboxPush.objects.using(self._database).filter(id__in=ids)
        done.update(done_at=timezone.now(), error=error[:64])


def _push_of(row: OutboxPush) -> Push:
    kind, _, name = row.stream.partition(":")
    fields: dict[str, Any] = {kind: name or True}
    fields |= {"conflate": row.conflate or None, "traceparent": row.traceparent or None}
    return Push(data=Json(row.data), key=row.key, **fields)
