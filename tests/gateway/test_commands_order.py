"""Answers come in the order of what they answer, and reading stops where too much waits."""

from __future__ import annotations

from tests.gateway.test_commands import undisturbed
from tests.peer import Peer
from tests.service_fixture import Held, running
from tests.support import eventually


async def test_answers_to_many_commands_at_once_come_in_order_and_all_of_them() -> None:
    """More than may wait: reading stops, and goes on."""
    async with running() as app, undisturbed(app), Peer(app.public_port, client="alice") as alice:
        await alice.event()
        kinds = [{"type": "join", "group": "g"}, {"type": "leave", "group": "g"}, {"type": "ping"}]
        for n in range(200):
            alice.send(**kinds[n % 3], id=n)
        assert [(await alice.event())["id"] for _ in range(200)] == list(range(200))


NONSENSE = [
    '{"type":"dance","id":"dance"}',
    '{"type":"join","id":"join","group":"g","more":1}',
    '{"type":"call","id":"call","methode":"echo"}',
    '{"type":"ping","id":"deep","x":' + "[" * 99 + "]" * 99 + "}",
    "no JSON",
]
IDS = ["dance", "join", "call", "deep", None]


async def test_what_is_no_command_is_answered_in_its_turn_too() -> None:
    async with running() as app, undisturbed(app), Peer(app.public_port, client="alice") as alice:
        await alice.event()
        subscribe = Held(app, "subscribe")
        alice.send(type="join", id=1, group="news")
        for text in NONSENSE:
            alice.send_text(text)
        alice.send(type="ping", id=2)
        alice.send_text("ping")  # a heartbeat is no command
        assert await alice.raw() == b"pong"
        subscribe.open.set()
        assert [(await alice.event())["id"] for _ in range(7)] == [1, *IDS, 2]


async def test_ten_texts_that_are_no_commands_end_the_connection_when_the_last_is_answered() -> None:
    async with running() as app, undisturbed(app), Peer(app.public_port, client="alice") as alice:
        await alice.event()
        subscribe = Held(app, "subscribe")
        alice.send(type="join", id=1, group="news")
        for text in NONSENSE * 2:
            alice.send_text(text)
        alice.send(type="ping", id=2)
        (session,) = app.hub.of_client("alice")
        await eventually(lambda: app.gateway.waiting(session) == 11)
        subscribe.open.set()
        assert [(await alice.event())["id"] for _ in range(11)] == [1, *IDS, *IDS]
        assert await alice.ended() == 4500
        assert alice.pending() == 1, "the ping was not carried out any more"
        assert app.gateway.waiting(session) is None, "nothing is kept of it"


async def test_texts_that_are_no_commands_count_among_those_in_flight() -> None:
    settings = {"LIMITS__COMMANDS_IN_FLIGHT": 4, "LIMITS__NOT_UNDERSTOOD_PER_MINUTE": 100}
    async with running(**settings) as app, Peer(app.public_port, client="alice") as alice:
        await alice.event()
        subscribe = Held(app, "subscribe")
        alice.send(type="join", id=1, group="news")
        (session,) = app.hub.of_client("alice")
        await eventually(lambda: app.gateway.waiting(session) is not None)
        for n in range(20):
            alice.send(type="dance", id=n)
        await eventually(lambda: app.gateway.paused)
        assert app.gateway.waiting(session) == 4
        subscribe.open.set()
        assert [(await alice.event())["id"] for _ in range(21)] == [1, *range(20)]
