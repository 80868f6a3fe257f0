"""What happened, written down beside the gateway: what was accepted, and what each client was told. ``complaints`` says
where the two differ."""

from __future__ import annotations

import base64
import json
import time
from collections import defaultdict
from typing import Any


class Push:
    """One message: ``number`` counts its pusher's messages to its stream. ``accepted_s`` is None until it was."""

    __slots__ = ("accepted_s", "group", "id", "number", "position", "pusher", "stream")

    def __init__(self, id: int, pusher: str, group: str, number: int) -> None:
        self.id = id
        self.pusher = pusher
        self.group = group
        self.stream = f"group:{group}"
        self.number = number
        self.accepted_s: float | None = None
        self.position: tuple[str, int] | None = None  # of a push through HTTP

    @property
    def data(self) -> dict[str, Any]:
        return {"id": self.id}


class Ledger:
    def __init__(self) -> None:
        self.pushes: list[Push] = []
        self.wrong: list[str] = []
        self.resets_allowed_s: list[float] = []  # when Redis lost something, or may have
        self._numbers: dict[tuple[str, str], int] = defaultdict(int)
        self._at: dict[tuple[str, str, int], int] = {}  # (stream, epoch, offset) -> id

    def push(self, pusher: str, group: str) -> Push:
        self._numbers[pusher, group] += 1
        push = Push(len(self.pushes), pusher, group, self._numbers[pusher, group])
        self.pushes.append(push)
        return push

    def accepted(self, push: Push, position: tuple[str, int] | None = None) -> None:
        push.accepted_s = time.monotonic()
        push.position = position
        if position is not None:
            self.stands(push.stream, *position, push.id)

    def stands(self, stream: str, epoch: str, offset: int, id: int) -> None:
        """A position was given for a message; it may never be given for another."""
        known = self._at.setdefault((stream, epoch, offset), id)
        if known != id:
            self.complain(f"{stream} {epoch}/{offset} stands for {known} and for {id}")

    def complain(self, text: str) -> None:
        self.wrong.append(text)


class Told:
    """What one client was told of one stream."""

    __slots__ = ("epoch", "ids", "joined_s", "last", "lost", "offset", "resets_s", "since_reset")

    def __init__(self, epoch: str, offset: int) -> None:
        self.epoch = epoch
        self.offset = offset
        self.joined_s = time.monotonic()
        self.ids: set[int] = set()
        self.since_reset: set[int] = set()
        self.last: dict[str, int] = {}  # pusher -> the number of its last message
        self.lost: list[tuple[str, int, int]] = []  # (epoch, from, to) said to be expired
        self.resets_s: list[float] = []


class Reader:
    """A client's view: checks each event against what came before it, and keeps the cursor."""

    def __init__(self, name: str, ledger: Ledger) -> None:
        self.name = name
        self.told: dict[str, Told] = {}
        self._ledger = ledger

    def cursor(self) -> str | None:
        if not self.told:
            return None
        raw = json.dumps({stream: [told.epoch, told.offset] for stream, told in self.told.items()}).encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    def take(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "welcome":
                self._welcome(event["streams"])
            case "message":
                self._message(event)
            case "gap":
                self._gap(event)
            case other:
                self._complain(event.get("stream", "-"), f"an event {other} that nobody asked for")

    def _welcome(self, streams: dict[str, dict[str, Any]]) -> None:
        for stream, state in streams.items():
            told = self.told.get(stream)
            if told is None:
                self.told[stream] = Told(state["epoch"], state["offset"])
            elif state["recovered"] and (state["epoch"], state["offset"]) != (told.epoch, told.offset):
                self._complain(stream, f"recovered from {told.epoch}/{told.offset} as {state}")
        for stream in self.told.keys() - streams.keys():
            self._complain(stream, "forgotten by welcome")

    def _message(self, event: dict[str, Any]) -> None:
        stream, epoch, offset, id = event["stream"], event["epoch"], event["offset"], event["data"]["id"]
        told = self.told[stream]
        if (epoch, offset) != (told.epoch, told.offset + 1):
            self._complain(stream, f"after {told.epoch}/{told.offset} came {epoch}/{offset}")
        told.epoch, told.offset = epoch, offset
        self._ledger.stands(stream, epoch, offset, id)
        push = self._ledger.pushes[id]
        if push.stream != stream:
            self._complain(stream, f"message {id} is of {push.stream}")
        if id in told.since_reset:
            self._complain(stream, f"message {id} came twice")
        if push.number <= told.last.get(push.pusher, 0):
            self._complain(stream, f"message {id} came behind a later one of {push.pusher}")
        told.last[push.pusher] = push.number
        told.ids.add(id)
        told.since_reset.add(id)

    def _gap(self, event: dict[str, Any]) -> None:
        stream, epoch = event["stream"], event["epoch"]
        told = self.told[stream]
        if event["reason"] == "expired":
            if (epoch, event["from"]) != (told.epoch, told.offset + 1) or event["to"] < event["from"]:
                self._complain(stream, f"after {told.epoch}/{told.offset} a gap {event}")
            told.lost.append((epoch, event["from"], event["to"]))
        else:
            now_s = time.monotonic()
            if epoch == told.epoch:
                self._complain(stream, f"a reset within epoch {epoch}")
            told.resets_s.append(now_s)
            told.since_reset.clear()
            told.last.clear()
        told.epoch, told.offset = epoch, event["to"]

    def _complain(self, stream: str, text: str) -> None:
        self._ledger.complain(f"{self.name} {stream}: {text}")

    def settle(self, retention: int, tops: dict[str, int]) -> None:
        """At the end, when it has had time to hear everything: what is missing must have been announced."""
        for push in self._ledger.pushes:
            told = self.told.get(push.stream)
            if told is None or push.id in told.ids or push.accepted_s is None or push.accepted_s < told.joined_s:
                continue
            if any(reset_s >= push.accepted_s for reset_s in told.resets_s) or self._announced(told, push):
                continue
            self._complain(push.stream, f"message {push.id} of {push.pusher} never came")
        for stream, told in self.told.items():
            for epoch, _, last in told.lost:
                if epoch == told.epoch and last > tops[stream] - retention:
                    self._complain(stream, f"said to be expired up to {last}, of {tops[stream]}")
            if told.resets_s and not self._ledger.resets_allowed_s:
                self._complain(stream, "a reset, although Redis lost nothing")

    @staticmethod
    def _announced(told: Told, push: Push) -> bool:
        if push.position is None:
            return bool(told.lost)  # where it stood is not known
        epoch, offset = push.position
        return any(epoch == e and first <= offset <= last for e, first, last in told.lost)
