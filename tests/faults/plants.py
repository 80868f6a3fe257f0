"""Faults planted on purpose, to see that the scenario runner finds them, and that alerts fire.

``python -m tests.faults.plants NAME serve`` is the service with one of them; the name "none" plants nothing. Those of
``EDGE_PLANTS`` are an edge's: in a file of it a text takes another's place."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import sys
from pathlib import Path
from typing import Any

from tidegate.brokers.redis import scripts as redis_scripts
from tidegate.brokers.redis.ingress import Entry, Ingress
from tidegate.brokers.redis.membership import ClusterMembership
from tidegate.brokers.redis.streams import RedisStreams
from tidegate.cli import main
from tidegate.core.hub import Hub
from tidegate.core.model import Message
from tidegate.gateway.commands import Commands
from tidegate.http import api


def skip_reread() -> None:
    """After a reconnect, and ever after, nobody looks at what no wake-up announced."""

    async def never(self: RedisStreams) -> None:
        await asyncio.Event().wait()

    RedisStreams.look_at_all = lambda self: None  # type: ignore[method-assign]
    RedisStreams.look_around = never  # type: ignore[method-assign]


def acknowledge_first() -> None:
    """Ingress entries are acknowledged and deleted, and journalled a moment later."""
    journal = Ingress._journal

    async def acknowledge_and_journal(self: Ingress, entries: list[Entry]) -> Any:
        membership = self._membership
        for entry in entries:
            await membership.commands(
                ("XACK", membership.keys.push, "tidegate", entry.id),
                ("XDEL", membership.keys.push, entry.id),
            )
        await asyncio.sleep(0.1)
        return await journal(self, entries)

    Ingress._journal = acknowledge_and_journal  # type: ignore[method-assign]


def keep_epoch() -> None:
    """Epochs are the same before and after Redis was flushed."""
    secrets.token_hex = lambda nbytes=None: "kept"
    for script in redis_scripts.ALL:
        script.text = script.text.replace(b"base36(redis.call('HINCRBY', life, 'writes', 1))", b"'0'")
        script.sha = hashlib.sha1(script.text, usedforsecurity=False).hexdigest()


def lose_in_hub() -> None:
    """Of each stream the hub hears nothing of every third message, and nobody says so."""
    hear = Hub.on_message

    def hear_some(self: Hub, message: Message) -> None:
        if message.offset % 3:
            hear(self, message)

    Hub.on_message = hear_some  # type: ignore[method-assign]


def stumble() -> None:
    """What nobody expected, in each push of the API and in each ``history`` of a client."""

    async def fail(*args: Any) -> Any:
        raise LookupError("planted")

    api._push = fail  # type: ignore[assignment]
    Commands._history = fail  # type: ignore[assignment,method-assign]


def believe_twice() -> None:
    """Nodes come back and serve although the disk has nothing of that yet."""

    async def at_once(self: ClusterMembership, *args: Any) -> None:
        """Without a look at the disk."""

    ClusterMembership._be_saved = at_once  # type: ignore[assignment,method-assign]


PLANTS = {
    "none": lambda: None,
    "skip_reread": skip_reread,
    "acknowledge_first": acknowledge_first,
    "keep_epoch": keep_epoch,
    "lose_in_hub": lose_in_hub,
    "stumble": stumble,
    "believe_twice": believe_twice,
}

EDGE_PLANTS = {
    # Who writes to a client sleeps although something came while the client took no more.
    "sleep_on": (
        "lua/linked_output.lua",
        """        if self.out then -- also what came while the last piece was written, of which nobody is woken
            ok, err = _M.write(self, sock)
        else
            ok, err = wait_idle(self, sock)
        end
""",
        """        ok, err = wait_idle(self, sock)
        if ok and self.out and not self.is_called then
            ok, err = _M.write(self, sock)
        end
""",
    ),
}


def plant_in_edge(name: str, folder: Path) -> None:
    """``folder`` is what was rendered."""
    if name in EDGE_PLANTS:
        file, right, wrong = EDGE_PLANTS[name]
        text = (folder / file).read_text()
        assert right in text
        (folder / file).write_text(text.replace(right, wrong))


if __name__ == "__main__":
    PLANTS.get(sys.argv.pop(1), PLANTS["none"])()
    sys.exit(main.main())
