"""The client's streams without a socket, and what a test says to them."""

from __future__ import annotations

import json
from typing import Any

from tests.support import ROOT
from tidegate_client.client.inbox import Inbox, Load
from tidegate_client.client.model import Gap, Joined, Message
from tidegate_client.client.streams import Asked, Stream, Streams

VECTORS: dict[str, Any] = json.loads((ROOT / "tests/vectors/protocol.json").read_text())


class Machine:
    """Streams whose messages are all handled at once."""

    def __init__(self) -> None:
        self.sent: list[tuple[Stream, int, dict[str, Any]]] = []
        self.again = 0
        self.streams = Streams(lambda *wish: self.sent.append(wish), self._count, lambda: None)
        self.inboxes: dict[str, Inbox] = {}

    def _count(self) -> None:
        self.again += 1

    def subscribe(self, name: str, limit: int = 1000, loads: bool = False) -> Inbox:
        inbox = self.inboxes[name] = Inbox(limit, loads, lambda: None, lambda: None)
        self.streams.subscribe(name, inbox)
        return inbox

    def welcome(self, asked: Asked | None = None, told: bool = True, **streams: Any) -> None:
        named = {
            name.replace("_", ":"): {"epoch": at[0], "offset": at[1], "top": at[1]} | (at[2] if len(at) > 2 else {})
            for name, at in ({"client_alice": ("e", 0), "all": ("e", 0)} | streams).items()
        }
        self.streams.welcome("alice", named, asked or self.streams.asked("/", 100), told)

    def push(self, stream: str, *offsets: int, epoch: str = "e") -> None:
        for offset in offsets:
            self.streams.message({"stream": stream, "epoch": epoch, "offset": offset, "time": 1, "data": offset})

    def answer(self, **reply: Any) -> None:
        stream, number, _ = self.sent.pop(0)
        self.streams.answered(stream, number, {"type": "reply"} | reply)

    def commands(self) -> list[dict[str, Any]]:
        return [command for _, _, command in self.sent]


def taken(inbox: Inbox) -> list[Any]:
    """Offsets of messages, and everything else as it is."""
    items = []
    while (item := inbox.take()) is not None:
        items.append(item.offset if isinstance(item, Message) else item)
        if isinstance(item, Load):
            inbox.loaded(item, None)
    return [item for item in items if not isinstance(item, Joined)]


def load_of(inbox: Inbox) -> Load:
    item = inbox.take()
    while not isinstance(item, Load):
        assert isinstance(item, Joined | Gap), item
        item = inbox.take()
    return item
