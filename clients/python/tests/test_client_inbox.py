"""What waits for a handler: more than there is room for, and what is held until a state is loaded."""

from __future__ import annotations

import pytest

from tests.client_machine import Machine, load_of, taken
from tidegate_client.client.model import Joined, Message, Position

# More than there is room for


def test_a_full_queue_takes_no_more_and_goes_on_behind_what_it_has() -> None:
    machine = Machine()
    inbox = machine.subscribe("group:news", limit=4)
    machine.welcome(group_news=("e", 0))
    machine.push("group:news", *range(1, 10))
    stream = machine.streams.stream("group:news")
    told = []
    for _ in range(4):
        item = inbox.take()
        while isinstance(item, Joined):
            item = inbox.take()
        assert isinstance(item, Message)
        told.append(item.offset)
        machine.streams.make_room(stream)
        # When half of it is done.
        assert len(machine.sent) == (len(told) >= 2)
    assert told == [1, 2, 3, 4]
    assert machine.commands() == [{"type": "join", "group": "news", "epoch": "e", "offset": 4}]
    machine.answer(epoch="e", offset=4, top=9, recovered=True, missed=5)
    machine.push("group:news", 5, 6, 7)
    assert taken(inbox) == [5, 6, 7]


# State, then stream


@pytest.mark.parametrize(("read_at", "told"), [(None, [6, 7, 8]), (5, [6, 7, 8]), (7, [8]), (9, [10])])
def test_what_the_data_has_already_is_not_told(read_at: int | None, told: list[int]) -> None:
    machine = Machine()
    inbox = machine.subscribe("group:news", loads=True)
    machine.welcome(group_news=("e", 5))
    load = load_of(inbox)
    machine.push("group:news", 6, 7)
    assert inbox.loaded(load, None if read_at is None else Position("e", read_at)) is None
    machine.push("group:news", 8)
    if read_at == 9:
        machine.push("group:news", 9, 10)
    assert taken(inbox) == told


@pytest.mark.parametrize("position", [Position("e", 3), Position("d", 40)])
def test_data_from_before_or_of_another_epoch_is_gone_on_from(position: Position) -> None:
    machine = Machine()
    inbox = machine.subscribe("group:news", loads=True)
    machine.welcome(group_news=("e", 5))
    load = load_of(inbox)
    machine.push("group:news", 6)
    behind = inbox.loaded(load, position)
    assert behind == position
    machine.streams.back_to(machine.streams.stream("group:news"), behind)
    machine.push("group:news", 7)
    assert machine.commands() == [{"type": "join", "group": "news", "epoch": position.epoch, "offset": position.offset}]
    machine.answer(epoch=position.epoch, offset=position.offset, top=7, recovered=position.epoch == "e", missed=4)
    if position.epoch == "d":
        machine.streams.gap({"stream": "group:news", "epoch": "e", "from": None, "to": 3, "reason": "reset"})
        load = load_of(inbox)
        assert load.base == ("e", 3)
        inbox.loaded(load, None)
    machine.push("group:news", 4, 5, 6, 7)
    assert taken(inbox) == [4, 5, 6, 7]


def test_a_gap_while_the_state_is_loaded_makes_it_void() -> None:
    machine = Machine()
    inbox = machine.subscribe("group:news", loads=True)
    machine.welcome(group_news=("e", 5))
    load = load_of(inbox)
    machine.push("group:news", 6)
    machine.streams.gap({"stream": "group:news", "epoch": "f", "from": None, "to": 0, "reason": "reset"})
    machine.push("group:news", 1, epoch="f")
    assert not inbox.is_wanted(load)
    assert inbox.loaded(load, Position("e", 5)) is None
    assert load_of(inbox).base == ("f", 0)
    assert taken(inbox) == [1]


def test_more_than_can_be_held_begins_anew() -> None:
    machine = Machine()
    inbox = machine.subscribe("group:news", limit=3, loads=True)
    machine.welcome(group_news=("e", 0))
    load = load_of(inbox)
    machine.push("group:news", *range(1, 9))
    assert not inbox.is_wanted(load)
    again = load_of(inbox)
    assert again.base == ("e", 8)
    machine.push("group:news", 9)
    assert inbox.loaded(again, Position("e", 8)) is None
    assert taken(inbox) == [9]


def test_a_state_of_an_own_stream_that_is_followed_already_begins_now() -> None:
    machine = Machine()
    machine.welcome()
    machine.push("client:alice", 1, 2)
    inbox = machine.subscribe("client:", loads=True)
    assert load_of(inbox).base == ("e", 2)
    machine.push("client:alice", 3)
    assert machine.again == 0
