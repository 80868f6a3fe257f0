"""Where the client stands in its streams and what it asks for, by the vectors and by hand, without a socket."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.client_machine import VECTORS, Machine, taken
from tidegate_client.client import cursor
from tidegate_client.client.connection import parsed
from tidegate_client.client.model import Gap, Left, Message, Position
from tidegate_client.client.streams import Asked

# Positions


@pytest.mark.parametrize("vector", VECTORS["clients"], ids=lambda vector: vector["name"])
def test_positions_are_those_of_the_vectors(vector: dict[str, Any]) -> None:
    machine = Machine()
    streams = machine.streams
    for name in ("client:", "all"):
        machine.subscribe(name)
    asked = Asked("")
    waiting: dict[Any, tuple[str, str]] = {}
    for step in vector["steps"]:
        if "opened" in step:
            asked = _open(machine, step["opened"], [group for kind, group in waiting.values() if kind == "leave"])
            waiting.clear()
        elif "sent" in step:
            command = json.loads(step["sent"])
            waiting[json.dumps(command["id"])] = (command["type"], command.get("group", ""))
        else:
            _follow(machine, parsed(step["got"]) or {}, asked, waiting)
            followed = {
                str(stream.name): list(stream.position)
                for stream in streams
                if stream.position and (stream.is_own or stream.wished)
            }
            assert followed == step["cursor"], step["got"]


def _open(machine: Machine, query: dict[str, str], leaving: list[str]) -> Asked:
    """Groups whose positions are not in a cursor stay, but for those that were being left."""
    given = cursor.decode(query["cursor"]) if "cursor" in query else {}
    keys = {"client:" if name.startswith("client:") else name: at for name, at in given.items()}
    machine.streams.cut()
    for stream in machine.streams:
        if stream.is_own or stream.key in keys or not given:
            stream.position = keys.get(stream.key)
        elif stream.key.removeprefix("group:") in leaving:
            stream.wished, stream.position = False, None
    groups = [f"group:{group}" for group in query.get("groups", "").split(",") if group]
    for group in groups:
        machine.subscribe(group)
    return Asked("", keys, {key: machine.streams.stream(key).number for key in [*keys, *groups]})


def _follow(machine: Machine, event: dict[str, Any], asked: Asked, waiting: dict[Any, tuple[str, str]]) -> None:
    """As the client does, with a handler for each group that there is; its commands are those of the vector."""
    streams = machine.streams
    match event:
        case {"type": "welcome"}:
            for name in event["streams"]:
                if name.startswith("group:") and streams.stream(name).inbox is None:
                    machine.subscribe(name)
            streams.welcome(event["client"], event["streams"], asked, True)
        case {"type": "message"}:
            streams.message(event)
        case {"type": "gap"}:
            streams.gap(event)
        case {"type": "joined", "stream": str(name)}:
            if streams.stream(name).inbox is None:
                machine.subscribe(name)
            stream = streams.stream(name)
            stream.wished, stream.under_way = False, None
            streams.joined(event)
        case {"type": "left"}:
            streams.left(event)
        case {"type": "reply" | "error", "id": number}:
            kind, group = waiting.pop(json.dumps(number), ("", ""))
            stream = streams.stream(f"group:{group}")
            if kind == "join" and event.get("code") not in ("broker_down", "too_fast", "full"):
                if stream.inbox is None:
                    machine.subscribe(stream.key)
                if stream.under_way is None:
                    stream.number += 1
                    stream.under_way, stream.wished = stream.number, True
                streams.answered(stream, stream.under_way, event)
            elif kind == "leave" and event["type"] == "reply":
                stream.wished, stream.under_way, stream.position = False, -stream.number, None
                streams.answered(stream, -stream.number, event)


def test_a_hole_and_another_epoch_are_told_as_gaps_and_duplicates_are_dropped() -> None:
    machine = Machine()
    inbox = machine.subscribe("group:news")
    machine.welcome(group_news=("e", 5))
    machine.push("group:news", 6, 6, 5, 9, 10)
    machine.push("group:news", 3, epoch="f")
    assert taken(inbox) == [
        6,
        Gap("group:news", "e", 7, 8, "hole"),
        9,
        10,
        Gap("group:news", "f", None, 2, "reset"),
        3,
    ]
    assert machine.streams.duplicates == 2
    assert inbox.done == ("f", 3)


def test_a_gap_without_an_end_leaves_the_next_offset_open() -> None:
    machine = Machine()
    inbox = machine.subscribe("group:news")
    machine.welcome(group_news=("e", 5))
    machine.streams.gap({"stream": "group:news", "epoch": "f", "from": None, "to": None, "reason": "reset"})
    machine.push("group:news", 70, 71, epoch="f")
    assert taken(inbox) == [Gap("group:news", "f", None, None, "reset"), 70, 71]
    machine.push("group:news", 73, epoch="f")
    assert taken(inbox) == [Gap("group:news", "f", 72, 72, "hole"), 73]


def test_offsets_go_up_to_two_to_the_53() -> None:
    machine = Machine()
    inbox = machine.subscribe("all")
    machine.welcome(all=("e", 2**53 - 1))
    machine.push("all", 2**53)
    assert taken(inbox) == [2**53]
    assert machine.streams.asked("/", 100).given["all"] == ("e", 2**53)


def test_a_switch_tells_nothing_twice_and_no_gap_that_was_passed() -> None:
    machine = Machine()
    inbox = machine.subscribe("group:news")
    machine.welcome(group_news=("e", 5))
    machine.push("group:news", 6)
    asked = machine.streams.asked("/", 100)
    machine.push("group:news", 7, 8)
    recovered = {"recovered": True, "missed": 3}
    machine.welcome(asked, told=False, group_news=("e", 6, recovered))
    machine.streams.gap({"stream": "group:news", "epoch": "e", "from": 7, "to": 7, "reason": "expired"})
    machine.push("group:news", 8, 9)
    assert taken(inbox) == [6, 7, 8, 9]
    machine.streams.gap({"stream": "group:news", "epoch": "e", "from": 7, "to": 12, "reason": "expired"})
    assert taken(inbox) == [Gap("group:news", "e", 10, 12, "expired")]


def test_missed_is_said_of_what_came_from_the_journal() -> None:
    machine = Machine()
    inbox = machine.subscribe("group:news")
    machine.welcome(group_news=("e", 5))
    machine.welcome(group_news=("e", 5, {"recovered": True, "missed": 2}))
    machine.push("group:news", 6, 7, 8)
    items = []
    while (item := inbox.take()) is not None:
        items.append(item)
    assert [item.missed for item in items if isinstance(item, Message)] == [True, True, False]


# Streams without a handler


def test_a_handler_that_comes_late_is_told_what_was_dropped() -> None:
    machine = Machine()
    machine.welcome(group_lasting=("e", 3))
    machine.push("group:lasting", 4, 5)
    machine.push("client:alice", 1)
    assert machine.streams.positions()["group:lasting"] == ("e", 3)
    machine.subscribe("group:lasting")
    assert machine.commands() == [{"type": "join", "group": "lasting", "epoch": "e", "offset": 3}]
    machine.push("group:lasting", 6)
    machine.answer(epoch="e", offset=3, top=6, recovered=True, missed=3)
    machine.push("group:lasting", 4, 5, 6, 7)
    assert taken(machine.inboxes["group:lasting"]) == [4, 5, 6, 7]
    direct = machine.subscribe("client:")
    assert machine.again == 1
    machine.push("client:alice", 2)
    machine.welcome(told=False, client_alice=("e", 0, {"recovered": True, "missed": 2}))
    machine.push("client:alice", 1, 2, 3)
    assert taken(direct) == [1, 2, 3]


def test_a_stored_group_waits_for_its_handler_and_stays_stored() -> None:
    machine = Machine()
    machine.streams.restore("alice", {"group:news": Position("e", 7), "all": Position("e", 1)})
    asked = machine.streams.asked("/", 100)
    assert asked.given == {"all": ("e", 1)}
    assert machine.streams.stored() == {"group:news": ("e", 7), "all": ("e", 1)}
    machine.welcome(asked, all=("e", 1, {"recovered": True, "missed": 0}))
    machine.subscribe("group:news")
    assert machine.commands() == [{"type": "join", "group": "news", "epoch": "e", "offset": 7}]


# Cursor


def test_what_does_not_fit_is_joined_with_its_position_and_survives_further_cuts() -> None:
    machine = Machine()
    names = [f"group:{'n' * 100}-{n}" for n in range(40)]
    for name in names:
        machine.subscribe(name)
    asked = machine.streams.asked("/?client=alice", 100)
    assert len(asked.query) < 6 * 1024
    streams: dict[str, Any] = dict.fromkeys(asked.wishes, ("e", 1))
    machine.welcome(asked, **streams)
    while machine.sent:
        machine.answer(epoch="e", offset=1, top=1)
    for name in names:
        machine.push(name, 2)
    for _ in range(2):
        machine.streams.cut()
        asked = machine.streams.asked("/?client=alice", 100)
        assert asked.given["client:"] == ("e", 0)
        assert 10 < len(asked.given) < 40
        assert "groups=" not in asked.query
        late = [name for name in names if name not in asked.given]
        recovered = {"recovered": True, "missed": 0}
        # A lasting membership brings one of the late ones, further on.
        streams = {name: ("e", 2, recovered) for name in asked.given if name != "client:"} | {late[0]: ("e", 9)}
        machine.welcome(asked, **streams)
        machine.push(late[0], 10)
        assert machine.streams.positions()[late[0]] == ("e", 2)
        assert [command["offset"] for command in machine.commands()] == [2] * len(late)
        machine.sent.clear()


def test_groups_in_the_query_are_as_many_as_the_gateway_takes() -> None:
    machine = Machine()
    for n in range(7):
        machine.subscribe(f"group:g{n}")
    asked = machine.streams.asked("/", 4)
    assert asked.query == "groups=g0,g1,g2,g3"


# Joining and leaving


def test_join_leave_join_ends_joined_with_one_command_at_a_time() -> None:
    machine = Machine()
    machine.welcome()
    machine.subscribe("group:news")
    machine.streams.leave("group:news")
    inbox = machine.subscribe("group:news")
    assert machine.commands() == [{"type": "join", "group": "news"}]
    machine.answer(epoch="e", offset=5, top=5)
    machine.push("group:news", 6)
    assert machine.commands() == [{"type": "join", "group": "news"}]
    machine.answer(epoch="e", offset=6, top=6)
    machine.push("group:news", 7)
    assert taken(inbox) == [7]
    assert machine.sent == []


def test_after_leave_nothing_is_told_and_the_group_is_left_again_when_it_comes_back() -> None:
    machine = Machine()
    inbox = machine.subscribe("group:news")
    machine.welcome(group_news=("e", 5))
    machine.push("group:news", 6)
    machine.streams.leave("group:news")
    inbox.clear()
    assert machine.commands() == [{"type": "leave", "group": "news"}]
    machine.push("group:news", 7)
    machine.answer(stream="group:news")
    assert taken(inbox) == []
    machine.welcome(group_news=("e", 9))
    assert machine.commands() == [{"type": "leave", "group": "news"}]


def test_what_is_refused_or_ended_is_told_and_not_wished_any_more() -> None:
    machine = Machine()
    inbox = machine.subscribe("group:secret")
    asked = machine.streams.asked("/", 100)
    machine.welcome(asked)
    assert machine.streams.is_settled()
    assert machine.sent == []
    machine.streams.left({"stream": "group:secret", "reason": "not_allowed"})
    assert taken(inbox) == [Left("group:secret", "not_allowed")]
    assert machine.streams.asked("/", 100).query.count("groups") == 0
    machine.streams.joined({"stream": "group:secret", "epoch": "e", "offset": 2, "top": 2})
    machine.push("group:secret", 3)
    assert taken(inbox) == [3]


def test_random_orders_of_everything_leave_no_silent_hole() -> None:
    """A model gateway with one group: pushes, cuts, expiry, slow handlers and switches in any order. What the handler
    is told is the journal, in order, but for what gaps name."""
    for seed in range(300):
        _story(random.Random(seed))


def _story(chance: random.Random) -> None:
    machine = Machine()
    inbox = machine.subscribe("group:news", limit=chance.choice([2, 5, 50]))
    stream = machine.streams.stream("group:news")
    top, first, sent = 0, 1, -1  # of the journal; what this connection was sent
    told: list[int] = []
    lost: set[int] = set()
    begun: int | None = None

    def connect() -> None:
        nonlocal sent, begun
        asked = machine.streams.asked("/", 100)
        if chance.random() < 0.5:
            deliver(3)  # while the new connection is being made
            push()
        machine.sent.clear()
        at = asked.given.get("group:news")
        offset = top if at is None or at.offset is None else at.offset
        begun = offset if begun is None else begun
        state = {} if at is None else {"recovered": offset >= first - 1, "missed": top - max(offset, first - 1)}
        streams = {"group_news": ("e", offset, state)} if "group:news" in asked.wishes else {}
        machine.welcome(asked, told=chance.random() < 0.5, **streams)
        sent = offset if streams else -1

    def deliver(limit: int) -> None:
        nonlocal sent
        while sent >= 0 and limit and sent < top:
            if sent + 1 < first:
                machine.streams.gap(
                    {"stream": "group:news", "epoch": "e", "from": sent + 1, "to": first - 1, "reason": "expired"}
                )
                sent = first - 1
            else:
                sent += 1
                machine.push("group:news", sent)
            limit -= 1

    def handle() -> None:
        item = inbox.take()
        machine.streams.make_room(stream)
        if isinstance(item, Message):
            told.append(item.offset)
        elif isinstance(item, Gap):
            assert item.first is not None
            assert item.last is not None
            lost.update(range(item.first, item.last + 1))

    def answer() -> None:
        nonlocal sent
        if machine.sent:
            command = machine.commands()[0]
            sent = command.get("offset", max(sent, 0) if sent >= 0 else top)
            state = {"recovered": sent >= first - 1, "missed": 0} if "offset" in command else {}
            machine.answer(epoch="e", offset=sent, top=top, **state)

    def push() -> None:
        nonlocal top, first
        top += 1
        first = max(first, top - 20)

    def come_back() -> None:
        machine.streams.cut()
        connect()

    connect()
    steps: list[Callable[[], None]] = [
        push, push, push, lambda: deliver(3), lambda: deliver(30), handle, handle, answer, connect,
        come_back,
    ]  # fmt: skip
    for _ in range(150):
        chance.choice(steps)()
    for _ in range(200):
        answer()
        deliver(1000)
        handle()
    assert begun is not None
    assert told == sorted(set(told)), "out of order, or twice"
    assert not lost & set(told), "told, and said to be missing"
    assert set(told) | lost >= set(range(begun + 1, top + 1)), "a silent hole"
