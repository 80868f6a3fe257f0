"""The Lua scripts of ``lua/``, as Redis is given them, and the names of keys and channels."""

from __future__ import annotations

import hashlib
from pathlib import Path

_FOLDER = Path(__file__).parent / "lua"


class Script:
    """``lua/<name>.lua``; lines ``--@other`` stand for the text of other.lua."""

    def __init__(self, name: str) -> None:
        lines = [self._included(line) for line in _read(name).splitlines()]
        self.name = name
        self.text = ("\n".join(lines) + "\n").encode()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()

    def _included(self, line: str) -> str:
        return _read(line.removeprefix("--@")) if line.startswith("--@") else line


def _read(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")


BEGIN = Script("begin")
BEAT = Script("beat")
LEAVE = Script("leave")
PUBLISH = Script("publish")
READ = Script("read")
ENTRY = Script("entry")
TOPS = Script("tops")
ORDER = Script("order")
INGRESS = Script("ingress")
SHED = Script("shed")
WAITING = Script("waiting")
CLAIM = Script("claim")
SAVE = Script("save")
RECLAIM = Script("reclaim")
MEMBER = Script("member")
RELEASE = Script("release")
EVENTS_TAKE = Script("events_take")
EVENTS_SETTLE = Script("events_settle")
FORWARDING = (EVENTS_TAKE, EVENTS_SETTLE)
ALL = (
    BEGIN, BEAT, LEAVE, PUBLISH, READ, ENTRY, TOPS, ORDER, INGRESS, SHED, WAITING, CLAIM, SAVE, RECLAIM, MEMBER,
    RELEASE, *FORWARDING,
)  # fmt: skip


class KeyNames:
    """All begin with ``prefix``; those of one stream share its hash tag."""

    def __init__(self, prefix: str, node: str) -> None:
        self.prefix = prefix
        self.life = f"{prefix}:life"
        self.nodes = f"{prefix}:nodes"
        self.infos = f"{prefix}:infos"
        self.lost = f"{prefix}:lost"  # nodes that died, by when that was noticed
        self.orders = f"{prefix}:orders"
        self.nodes_channel = f"{prefix}:nodes:wake"  # an order, "roster", or a question
        self.answers_channel = f"{prefix}:{{node:{node}}}:answers"
        self.pulse_channel = f"{prefix}:{{node:{node}}}:pulse"
        self.push = f"{prefix}:push"
        self.push_lease = f"{prefix}:push:lease"
        self.push_failures = f"{prefix}:push:failures"
        self.push_rejected = f"{prefix}:push:rejected"
        self.events = f"{prefix}:events"
        self.events_lease = f"{prefix}:events:lease"
        self.events_forwarded = f"{prefix}:events:forwarded"  # how far, and how many were missed and not told of yet
        self.events_dead = f"{prefix}:events:dead"

    def votes(self, incarnation: str) -> str:
        return f"{self.prefix}:votes:{incarnation}"

    def meta(self, stream: str) -> str:
        return f"{self.prefix}:{{{stream}}}:meta"

    def journal(self, stream: str) -> str:
        return f"{self.prefix}:{{{stream}}}:journal"

    def channel(self, stream: str) -> str:
        return f"{self.prefix}:{{{stream}}}:wake"

    def dedup_key(self, stream: str, kind: str, key: str) -> str:
        """Where a publisher's ``key`` or an ingress entry's ``id`` is remembered."""
        return f"{self.prefix}:{{{stream}}}:{kind}:{key}"

    def connections(self, client: str) -> str:
        return f"{self.prefix}:{{client:{client}}}:connections"

    def present(self, group: str) -> str:
        return f"{self.prefix}:{{group:{group}}}:present"

    def memberships(self, client: str) -> str:
        return f"{self.prefix}:{{client:{client}}}:groups"

    def devices(self, client: str) -> str:
        return f"{self.prefix}:{{client:{client}}}:devices"

    def record(self, client: str, device: str) -> str:
        return f"{self.prefix}:{{client:{client}}}:record:{device}"
