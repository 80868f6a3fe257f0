"""Pushes of a Django project: behind the transaction, and by the outbox. A real project on SQLite, a real gateway."""

from __future__ import annotations

import asyncio
import datetime
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import django
import pytest

from tests.brokers.contract_words import SPAN
from tests.brokers.server import until
from tests.publishers import Between, answer
from tests.support import Logs, Process
from tidegate_client.publisher import BadPush, NotConfirmed, Publisher, Push
from tidegate_client.publisher.fake import AsyncFakePublisher, FakePublisher
from tidegate_client.pytest import Gateway, gateway

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.django_project"
django.setup()

from django.core.exceptions import ImproperlyConfigured  # noqa: E402
from django.core.management import CommandError, call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.test import override_settings  # noqa: E402
from django.utils import timezone  # noqa: E402

from tidegate_client.django import (  # noqa: E402
    async_publisher,
    outbox,
    publisher,
    push_many_on_commit,
    push_on_commit,
    use_publisher,
)
from tidegate_client.django.management.commands.send_tidegate_outbox import Command  # noqa: E402
from tidegate_client.django.models import OutboxPush  # noqa: E402
from tidegate_client.django.publishers import OutboxSettings, outbox_settings  # noqa: E402


@pytest.fixture(scope="module")
def real() -> Iterator[Gateway]:
    with gateway() as running:
        yield running


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A group that no other test has."""
    return f"g{abs(hash(request.node.nodeid))}"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    """A new database with the outbox's table, of this process and of programs that are told its path."""
    path = tmp_path / "db.sqlite3"
    connection.close()
    connection.settings_dict["NAME"] = str(path)
    call_command("migrate", verbosity=0)
    yield path
    connection.close()


@pytest.fixture
def project(database: Path, real: Gateway) -> Iterator[Gateway]:
    """The project, and the gateway that its settings name."""
    with override_settings(TIDEGATE={"URL": real.api_url, "DEADLINE_S": 1}):
        yield real
        publisher().close()


@pytest.fixture
def fake(database: Path) -> Iterator[FakePublisher]:
    with use_publisher(FakePublisher()) as used:
        assert isinstance(used, FakePublisher)
        yield used


def journal(gateway: Gateway, group: str) -> list[Any]:
    with Publisher(gateway.api_url) as asking:
        return [message.data for message in asking.history(group=group, limit=1000).messages]


def waiting() -> int:
    return OutboxPush.objects.filter(done_at=None).count()


OTHER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b8-00"


def send(**options: Any) -> str:
    """What the command said."""
    said = io.StringIO()
    call_command("send_tidegate_outbox", once=True, stdout=said, **options)
    return said.getvalue().strip()


# Settings


def test_the_settings_are_the_options_of_a_publisher(real: Gateway) -> None:
    with override_settings(TIDEGATE={"URL": real.api_url, "TOKEN_KEY": "a secret of 32 bytes or more, for tokens"}):
        assert publisher() is publisher()
        with use_publisher(AsyncFakePublisher()) as fake:
            assert async_publisher() is fake
        assert async_publisher() is async_publisher() is not fake
        assert publisher().token("alice").count(".") == 2
        assert async_publisher().token("alice").count(".") == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "URL"),
        ({"URL": "ftp://x"}, "url"),
        ({"URL": "http://x", "API_KEYS": []}, "api_keys"),
        ({"URL": "http://x", "OUTBOX": {"BATCHES": 1}}, "batches"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with override_settings(TIDEGATE=settings), pytest.raises(ImproperlyConfigured, match=message):
        (publisher(), outbox_settings())


# Behind the transaction


def test_a_push_waits_for_the_commit_and_has_the_data_of_the_call(project: Gateway, name: str) -> None:
    data = {"at": datetime.date(2026, 1, 2), "sum": Decimal("1.50")}
    with transaction.atomic():
        push_on_commit(group=name, data=data)
        data["sum"] = Decimal("2")
        push_many_on_commit([{"group": name, "data": 1}, Push(group=name, data=2)])
        assert journal(project, name) == []
    assert journal(project, name) == [{"at": "2026-01-02", "sum": "1.50"}, 1, 2]
    push_on_commit(group=name, data="at once")
    assert journal(project, name)[-1] == "at once"


def test_a_word_goes_with_a_push_of_either_kind(fake: FakePublisher) -> None:
    with transaction.atomic():
        push_on_commit(group="a", data=1, conflate="north")
        outbox.push(group="a", data=2, conflate="south")
        outbox.push_many([{"group": "a", "data": 3}])
    send()
    assert [(push.data, push.conflate) for push in fake.gateway.pushed] == [(1, "north"), (2, "south"), (3, None)]


def test_a_span_goes_with_a_push_of_either_kind(database: Path) -> None:
    """That of the request, although another one sends it."""
    now = [SPAN]
    fake = FakePublisher(traceparent=lambda: now[0])
    with use_publisher(fake):
        with transaction.atomic():
            push_on_commit(group="a", data=1)
            outbox.push(group="a", data=2)
            outbox.push(group="a", data=3, traceparent=OTHER)
            now[0] = ""
        send()
    assert [(push.data, push.traceparent) for push in fake.gateway.pushed] == [(1, SPAN), (2, SPAN), (3, OTHER)]


def test_nobody_hears_of_what_is_rolled_back(fake: FakePublisher) -> None:
    with transaction.atomic():
        push_on_commit(client="alice", data=1)
        outbox.push(client="alice", data=1)
        transaction.set_rollback(True)
    send()
    assert fake.gateway.pushed == []


def test_a_bad_push_is_said_inside_the_transaction(fake: FakePublisher) -> None:
    for write in (push_on_commit, outbox.push):
        with pytest.raises(BadPush), transaction.atomic():
            write(client="a/b", data=1)
    with pytest.raises(BadPush, match="needs one"):
        outbox.push_many([Push(client="alice", data=1, key=False)])


def test_what_a_push_raises_is_for_django_to_handle(fake: FakePublisher, expected_logs: Logs) -> None:
    fake.gateway.error = NotConfirmed("unreachable", "nobody there", may_be_taken=False)
    with pytest.raises(NotConfirmed), transaction.atomic():
        push_on_commit(client="alice", data=1)
    expected_logs.expect("unreachable: nobody there")
    with transaction.atomic():
        push_on_commit(client="alice", data=1, robust=True)


# The outbox


def test_the_migration_is_the_model(database: Path) -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_what_is_written_is_sent_in_order_and_byte_for_byte(project: Gateway, name: str) -> None:
    with transaction.atomic():
        outbox.push_many([{"group": name, "data": n} for n in range(25)])
        outbox.push(group=name, data={"text": "é😀\u0000", "at": datetime.date(2026, 1, 2)}, key="last")
        outbox.push(all=True, data=name)
        outbox.push(client=name, data=None)
    assert send(batch=10) == "28 sent, 0 refused"
    assert journal(project, name) == [*range(25), {"text": "é😀\u0000", "at": "2026-01-02"}]
    assert waiting() == 0
    assert send() == "0 sent, 0 refused"


def test_a_row_that_was_sent_already_is_not_doubled(project: Gateway, name: str) -> None:
    outbox.push_many([{"group": name, "data": n} for n in range(5)])
    send()
    OutboxPush.objects.update(done_at=None)  # as if the sender had died before its commit
    assert send() == "5 sent, 0 refused"
    assert journal(project, name) == [0, 1, 2, 3, 4]


def test_a_row_that_is_refused_does_not_hold_up_the_others(project: Gateway, name: str, expected_logs: Logs) -> None:
    outbox.push(group=name, data="first", key="k")
    outbox.push(group=name, data="other data", key="k")
    outbox.push(group=name, data="last")
    expected_logs.expect(rf"outbox row \d+ \(group:{name}\) was refused: key_reused")
    with pytest.raises(CommandError, match="their rows say why"):
        send()
    assert journal(project, name) == ["first", "last"]
    assert list(OutboxPush.objects.order_by("id").values_list("error", flat=True)) == ["", "key_reused", ""]
    assert waiting() == 0


def test_a_row_that_is_above_lowered_limits_does_not_hold_up_the_others(
    project: Gateway, name: str, expected_logs: Logs
) -> None:
    outbox.push_many([{"group": name, "data": text} for text in ("first", "x" * 2000, "last")])
    expected_logs.expect("was refused: too_large")
    with override_settings(TIDEGATE={"URL": project.api_url, "DATA_BYTES": 1000}):
        with pytest.raises(CommandError):
            send()
        publisher().close()
    assert journal(project, name) == ["first", "last"]


@pytest.mark.parametrize("said", [answer(503, '{"error":{"code":"broker_down","message":"no"}}'), answer(401, "{}")])
def test_what_is_no_rows_fault_leaves_them_waiting(project: Gateway, name: str, said: bytes) -> None:
    outbox.push_many([{"group": name, "data": n} for n in range(3)])
    with Between(int(project.api_url.rpartition(":")[2]), *[said] * 1000) as between:
        with override_settings(TIDEGATE={"URL": f"http://127.0.0.1:{between.port}", "DEADLINE_S": 0.3}):
            with pytest.raises(CommandError):
                send()
            publisher().close()
    assert waiting() == 3
    assert send() == "3 sent, 0 refused"
    assert journal(project, name) == [0, 1, 2]


def test_rows_are_removed_when_they_have_been_kept(fake: FakePublisher) -> None:
    day = datetime.timedelta(days=1)
    now = timezone.now()
    for key, age, error in (("a", day, ""), ("b", day, "too_large"), ("c", 31 * day, "too_large"), ("d", 0 * day, "")):
        OutboxPush.objects.create(stream="all", key=key, data="1", done_at=now - age, error=error)
    OutboxPush.objects.create(stream="all", key="e", data="1", created_at=now - 99 * day)
    send()
    assert list(OutboxPush.objects.order_by("key").values_list("key", flat=True)) == ["b", "d", "e"]


def test_a_row_of_a_stream_that_another_sender_has_is_left_to_it(fake: FakePublisher, monkeypatch: Any) -> None:
    """Where there are locks: the rows that the others hold are not among those that the database gives."""
    outbox.push_many([{"group": group, "data": n} for n, group in enumerate(["a", "b", "a", "c", "b"])])
    sender = outbox.OutboxSender(fake, OutboxSettings(), "default")
    rows = list(OutboxPush.objects.order_by("id"))
    assert [row.stream for row in sender._not_held(rows[2:])] == ["group:c"]
    OutboxPush.objects.filter(id=rows[0].id).update(done_at=timezone.now())
    assert [row.stream for row in sender._not_held(rows[2:])] == ["group:a", "group:c"]


# The command as a program


@pytest.fixture
def start_sender(start_process: Callable[..., Process], database: Path) -> Callable[[str], Process]:
    def start(url: str) -> Process:
        env = {
            "DJANGO_SETTINGS_MODULE": "tests.django_project",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "TEST_DJANGO_DATABASE": str(database),
            "TEST_DJANGO_TIDEGATE": url,
        }
        return start_process(sys.executable, "-m", "django", "send_tidegate_outbox", "--interval", "0.05", env=env)

    return start


@pytest.mark.slow
def test_rows_of_senders_that_are_killed_and_doubled_arrive_once_and_in_order(
    start_sender: Callable[[str], Process], real: Gateway, database: Path, name: str
) -> None:
    """Each sender but the last two is killed between the gateway's yes and its own note of it."""
    groups = [f"{name}-{n}" for n in range(3)]
    with Between(int(real.api_url.rpartition(":")[2]), "hang", "hang", "hang") as between:
        for round in range(3):
            outbox.push_many([{"group": group, "data": 20 * round + n} for n in range(20) for group in groups])
            sender = start_sender(f"http://127.0.0.1:{between.port}")
            until(lambda round=round: len(between.seen) > round and len(journal(real, groups[2])) == 20 * (round + 1))
            sender.kill()
            assert waiting() == 60 * (round + 1)
        last = [start_sender(real.api_url) for _ in range(2)]
        for n in range(60, 100):
            outbox.push_many([{"group": group, "data": n} for group in groups])
        until(lambda: waiting() == 0)
    for group in groups:
        assert journal(real, group) == list(range(100))
    for sender in last:
        assert asyncio.run(sender.stop()) == 0, sender


def test_a_sender_goes_on_when_the_gateway_is_back(project: Gateway, name: str, expected_logs: Logs) -> None:
    refused = answer(503, '{"error":{"code":"draining","message":"no"}}', "Retry-After: 9")
    expected_logs.expect("the outbox cannot be sent, and is tried again: draining")
    command = Command()
    with Between(int(project.api_url.rpartition(":")[2]), refused, refused) as between:
        with override_settings(TIDEGATE={"URL": f"http://127.0.0.1:{between.port}", "DEADLINE_S": 1}):
            options = {"interval": 0.05}
            sender = threading.Thread(target=call_command, args=(command,), kwargs=options, daemon=True)
            sender.start()
            outbox.push(group=name, data=1)
            until(lambda: waiting() == 0)
            outbox.push(group=name, data=2)
            until(lambda: waiting() == 0)
            command.stop()
            sender.join()
            publisher().close()
    assert journal(project, name) == [1, 2]


def test_an_app_that_only_pushes_needs_no_table() -> None:
    script = "from tidegate_client.django import publisher; import django; print(publisher().token)"
    env = {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "DJANGO_SETTINGS_MODULE": "tests.django_project",
    }
    assert subprocess.run([sys.executable, "-c", script], env=env, check=False, timeout=30).returncode == 0
