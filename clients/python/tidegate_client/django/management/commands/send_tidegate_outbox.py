"""``manage.py send_tidegate_outbox``: sends what applications have written into the outbox, until it is told to
stop."""

from __future__ import annotations

import random
import signal
import threading
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, Error, close_old_connections, connections

from tidegate_client.django.outbox import OutboxSender, Sent, log
from tidegate_client.django.publishers import outbox_settings, publisher

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
CLEANING_S = 60.0


class Command(BaseCommand):
    help = "Sends the pushes of the outbox, in the order of each stream, until SIGTERM or SIGINT."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="send what waits, then end; 1 if something was left")
        parser.add_argument("--interval", type=float, default=1.0, help="seconds between looks at an empty outbox")
        parser.add_argument("--batch", type=int, help='rows at once (default: TIDEGATE["OUTBOX"]["BATCH"], 500)')
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, help="alias of the database that the outbox is in")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ends it when the round that is under way is done: it may have been accepted already."""
        self._stopping.set()

    def handle(self, *args: Any, **options: Any) -> None:
        settings = outbox_settings()
        if options["batch"] is not None:
            settings = settings._replace(batch=options["batch"])
        sender = OutboxSender(publisher(), settings, options["database"])
        if options["once"]:
            self._once(sender)
        else:
            self._listen()
            self._run(sender, options["interval"], options["database"])

    def _once(self, sender: OutboxSender) -> None:
        accepted = failed = 0
        while True:
            sent = sender.send()
            accepted, failed = accepted + sent.accepted, failed + sent.failed
            if sent.trouble is not None or sent == Sent():
                break
        sender.remove_old()
        self.stdout.write(f"{accepted} sent, {failed} refused")
        if sent.trouble is not None or failed:
            raise CommandError(str(sent.trouble or "some were refused; their rows say why"))

    def _run(self, sender: OutboxSender, interval_s: float, database: str) -> None:
        failures, cleaned_s = 0, float("-inf")
        while not self._stopping.is_set():
            trouble: Exception | None
            sent = Sent()
            try:
                if time.monotonic() - cleaned_s > CLEANING_S:
                    sender.remove_old()
                    cleaned_s = time.monotonic()
                sent = sender.send()
                trouble = sent.trouble
            except Error as exc:  # the database is away, or was
                trouble = exc
                connections[database].close()
            if trouble is not None:
                if failures == 0:
                    log.warning("the outbox cannot be sent, and is tried again: %s", trouble)
                self._stopping.wait(random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**failures)))
                failures = min(failures + 1, 10)
            elif sent == Sent():
                close_old_connections()
                self._stopping.wait(interval_s)
            if trouble is None and failures:
                log.info("the outbox is sent again")
                failures = 0

    def _listen(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self.stop())
