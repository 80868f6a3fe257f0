"""What became of a message, or is the matter with a client, in plain words: for whoever looks for one that did not
come.

Worst first. Each is drawn from what nodes remember (traced.py), and says no more than that proves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

from tidegate.core.errors import CloseCode
from tidegate.core.model import Position, kind_of
from tidegate.gateway.step_words import at, count, words_of
from tidegate.gateway.traced import CLAIMS, GOOD, Delivery
from tidegate.trace import Step

MOST = 10  # verdicts about clients of a group, where none was asked about
LIFE_MS = 60_000  # before a message: who died within was there when it should have been heard

JournalState = Literal["kept", "trimmed", "none", "reset", "unknown"]


# docs/operations.md and docs/runbook.md say what each means.
Code: TypeAlias = Literal[
    "behind",
    "broker_unknown",
    "closed_before",
    "confirmed",
    "connected",
    "delivered",
    "gap_expired",
    "gap_reset",
    "gap_skipped",
    "handshake_refused",
    "join_refused",
    "joined_later",
    "left_before",
    "never_connected",
    "never_joined",
    "no_answer",
    "nobody_followed",
    "node_died",
    "not_connected",
    "not_heard",
    "not_journalled",
    "off",
    "reset",
    "slow_closed",
    "thrown_away",
    "too_old",
    "trimmed",
    "unsent",
    "waiting",
]


class Verdict(msgspec.Struct, omit_defaults=True):
    code: Code
    words: str
    client: str | None = None


class Journal(msgspec.Struct, omit_defaults=True):
    """What the journal says of the message. ``first``: the oldest offset that it holds, where the message is older."""

    state: JournalState
    top: int | None = None
    first: int | None = None
    time: int | None = None
    bytes: int | None = None
    client: str | None = None
    traceparent: str | None = None
    error: str | None = None


class Asked(msgspec.Struct):
    """A message, what the journal says of it, and what all nodes answered. ``followers``: to how many it went the
    moment that it was heard; ``not_heard``: nodes that follow its stream and have not come so far; ``silent``: nodes
    that did not answer; ``since_ms``: from then on none of those that did has forgotten anything."""

    stream: str
    epoch: str
    offset: int
    client: str | None
    journal: Journal
    deliveries: Sequence[Delivery]
    counts: dict[str, int]
    steps: Sequence[Step]
    followers: int
    not_heard: Sequence[str]
    silent: Sequence[str]
    since_ms: int
    connected: Sequence[str]  # the client's connections, now

    @property
    def name(self) -> str:
        return f"{self.stream} {self.epoch}:{self.offset}"


# A message


def of_message(asked: Asked) -> list[Verdict]:
    found = [*_of_journal(asked), *_of_nodes(asked)]
    if asked.journal.state in ("none", "reset") or not asked.epoch:  # which message that is nobody can say
        return found
    if asked.client is not None:
        found += _of_client(asked, asked.client)
    else:
        found += _of_all(asked)
    return found


def namesake(asked: Asked, earlier: Sequence[Position]) -> list[Verdict]:
    """``earlier``: where the stream was in other epochs, at the offset or beyond it."""
    if not earlier or asked.epoch in ("", earlier[0].epoch):
        return []  # it is the one that was asked about
    name = f"{earlier[0].epoch}:{asked.offset}"
    words = f"{asked.stream} was started anew: before that {name} was another message, which is gone"
    return [Verdict("reset", f"{words}; ask for it by that name")]


def _of_journal(asked: Asked) -> list[Verdict]:
    journal, name = asked.journal, asked.name
    match journal.state:
        case "none":
            which = (
                f"no message {asked.offset}: its newest is {journal.top}. It was"
                if asked.offset
                else "none: what was pushed was"
            )
            words = f"{asked.stream} has {which} not journalled; look at what the push was answered"
            return [Verdict("not_journalled", words)]
        case "reset":
            words = f"{asked.stream} was started anew: its epoch is another one than {asked.epoch} now, so "
            return [Verdict("reset", words + f"{name} is gone, and clients that had not got it were told reset")]
        case "trimmed":
            words = f"{name} is no longer in the journal, which begins at {journal.first}: who was away is told a gap"
            return [Verdict("trimmed", words)]
        case "unknown":
            return [Verdict("broker_unknown", f"the journal could not be read ({journal.error})")]
        case _:
            return []


def _of_nodes(asked: Asked) -> list[Verdict]:
    found = [
        Verdict("not_heard", f"node {node} follows {asked.stream} and has not heard {asked.epoch}:{asked.offset} yet")
        for node in asked.not_heard
    ]
    found += [
        Verdict("no_answer", f"node {node} did not answer: what it knows is missing here") for node in asked.silent
    ]
    return found + _died(asked.steps, asked.journal.time)


def _died(steps: Iterable[Step], time_ms: int | None) -> list[Verdict]:
    """Nodes that were there when the message came, and died."""
    died: dict[str, int] = {}
    for step in steps:
        if step.kind == "node_died" and step.about and (time_ms is None or step.time_ms >= time_ms - LIFE_MS):
            died.setdefault(step.about, step.time_ms)
    return [
        Verdict(
            "node_died",
            f"node {node} died (noticed at {at(time_ms)}): what it had written but no pong confirmed may be lost, and "
            "so is what it knew of its connections; their clients come back with their cursors",
        )
        for node, time_ms in died.items()
    ]


def _of_all(asked: Asked) -> list[Verdict]:
    found: list[Verdict] = []
    told: set[str] = set()
    for each in asked.deliveries:
        if each.state not in GOOD and each.state != "later" and each.client not in told and len(told) < MOST:
            told.add(each.client)
            found += _of_client(asked, each.client)
    have = {each.client for each in asked.deliveries if each.state in GOOD}
    for step in _newest_of_each(step for step in asked.steps if step.is_refused_join):
        if step.client is not None and step.client not in told | have and len(told) < MOST:
            told.add(step.client)
            found.append(_join_refused(asked.stream, step))
    good = sum(asked.counts.get(state, 0) for state in GOOD)
    if good:
        confirmed = asked.counts.get("confirmed", 0)
        words = f"{asked.name} went to {count(good, 'connection')}, {confirmed} of which confirmed it"
        found.append(Verdict("delivered", words))
    elif not asked.followers:
        words = f"nobody followed {asked.stream} when {asked.name} came, as far as any node that answers remembers"
        found.append(_if_remembered(asked, Verdict("nobody_followed", words), f"anybody followed {asked.stream}"))
    return found


def _of_client(asked: Asked, client: str) -> list[Verdict]:
    """Why the client has it, or has not."""
    mine = [each for each in asked.deliveries if each.client == client]
    good = [each for each in mine if each.state in GOOD]
    bad = [each for each in mine if each.state not in GOOD]
    if any(each.state not in _ABSENT for each in mine):
        bad = [each for each in bad if each.state not in _ABSENT]  # another of its connections tells more
    found = [
        Verdict(_CODES[each.state], _WORDS[each.state](asked, each), client) for each in bad if each.state != "later"
    ]
    if good:
        best = min(good, key=lambda each: GOOD.index(each.state))
        later = Verdict("confirmed" if best.state == "confirmed" else "delivered", _delivered(asked, best), client)
        return [later, *found] if best.state == "confirmed" else [*found, later]
    if found and found[0].code not in ("left_before", "closed_before"):
        return found
    return [*_never(asked, client, mine), *found]


def _never(asked: Asked, client: str, mine: Sequence[Delivery]) -> list[Verdict]:
    """It did not go to any of its connections: why not, as far as steps tell."""
    found: list[Verdict] = []
    steps = [step for step in asked.steps if step.client == client]
    refused = [step for step in steps if step.kind == "join_refused" and step.stream == asked.stream]
    refused += [
        step for step in steps if step.kind == "left" and step.stream == asked.stream and step.reason == "not_allowed"
    ]
    found += [_join_refused(asked.stream, step) for step in _newest_of_each(refused)]
    shakes = [step for step in steps if step.kind == "refused"]
    if shakes and not _was_let_in(steps, shakes[-1].time_ms):
        found.append(_handshake_refused(client, shakes))
    for step in [step for step in steps if step.kind == "lost"][-1:]:
        words = f"{client} was connected to {step.about} ({step.connection}), which died: whether it got "
        found.append(
            Verdict("node_died", words + f"{asked.name} there is not known; it comes back with its cursor", client)
        )
    later = [each for each in mine if each.state == "later"]
    for each in later[-1:]:
        words = f"{client} followed {asked.stream} only later: {_on(each)} its delivery began after {_place(each)}"
        found.append(Verdict("joined_later", words + _when(each.since_ms), client))
    if found or mine:
        return found
    known = [step for step in steps if step.kind in ("connected", "resumed", "ended")]
    if asked.connected or known:
        if kind_of(asked.stream) == "group":
            names = sorted({*asked.connected, *(step.connection for step in known if step.connection)})
            words = (
                f"{client} was never in {asked.stream}: it was connected ({', '.join(names[:5])}) and did not join it"
            )
            found.append(_if_remembered(asked, Verdict("never_joined", words, client), f"{client} was in it"))
    else:
        words = f"{client} was not connected to any node that answers, and is not now"
        found.append(_if_remembered(asked, Verdict("never_connected", words, client), f"{client} was connected"))
    return found


def _delivered(asked: Asked, each: Delivery) -> str:
    how = "from the journal, when it was back" if each.replayed else "as it came"
    if each.state == "confirmed":
        return f"{each.client} got {asked.name} {_on(each)} ({how}): its peer has confirmed it"
    if each.state == "handed":
        where = f"handed to the edge's worker {each.worker} for {each.client}, {_on(each)} ({how})"
    else:
        where = f"written to the socket of {each.client}, {_on(each)} ({how})"
    if each.ended_ms is None:
        proof = "no pong has confirmed it (yet; without cursor=last none does): look at the client"
    else:
        proof = (
            f"that ended at {at(each.ended_ms)} with {each.code} before anything confirmed it: it may not have arrived"
        )
    return f"{asked.name} was {where}; {proof}"


def _on(each: Delivery) -> str:
    return f"on connection {each.connection}"


def _place(each: Delivery) -> str:
    return "an unknown position" if each.start is None else f"{each.start.epoch}:{each.start.offset}"


def _when(time_ms: int | None) -> str:
    return "" if time_ms is None else f", at {at(time_ms)}"


def _as_far_as(asked: Asked) -> str:
    """Where the message may be older than what nodes remember."""
    time_ms = asked.journal.time
    if time_ms is None or time_ms < asked.since_ms:
        return f" (nothing is remembered of before {at(asked.since_ms)})"
    return ""


def _if_remembered(asked: Asked, verdict: Verdict, what: str) -> Verdict:
    """The verdict, which says that something never was; where that is forgotten, that ``what`` is not known."""
    older = _as_far_as(asked)
    words = f"whether {what} when {asked.name} came is not known any more{older}"
    return Verdict("too_old", words, verdict.client) if older else verdict


def _unsent(asked: Asked, each: Delivery) -> str:
    return (
        f"{asked.name} waits for {each.client} {_on(each)}, among {each.unsent_bytes} bytes that its peer has not "
        "taken: the client does not read, or its network is slow"
    )


def _thrown_away(asked: Asked, each: Delivery) -> str:
    why = "as a slow consumer " if each.code == CloseCode.SLOW_CONSUMER else ""
    return (
        f"{each.client} did not get {asked.name} {_on(each)}: that was closed {why}({each.code}) at "
        f"{at(each.ended_ms or 0)}, and {each.unsent_bytes} bytes that waited for it were thrown away, this message "
        "among them; the client gets it when it comes back with its cursor"
    )


def _waiting(asked: Asked, each: Delivery) -> str:
    return f"{each.client} {_on(each)} has not come so far yet: it reads what it missed, as fast as it takes it"


def _skipped(asked: Asked, each: Delivery) -> str:
    return (
        f"{each.client} was too slow {_on(each)}, and under policy latest {asked.name} was passed over for a newer one"
    )


def _expired(asked: Asked, each: Delivery) -> str:
    return (
        f"{each.client} was told a gap (expired) in place of {asked.name} {_on(each)}{_when(each.since_ms)}: it came "
        f"back, and the journal no longer held what followed its position; keep more (history.messages, history.age_s)"
    )


def _reset(asked: Asked, each: Delivery) -> str:
    return f"{each.client} was told a reset of {asked.stream} {_on(each)}: its position could not be continued"


def _closed_before(asked: Asked, each: Delivery) -> str:
    return (
        f"{each.client} was gone: connection {each.connection} had ended at {at(each.ended_ms or 0)} with {each.code}, "
        f"before {asked.name} was queued for it; it gets it when it comes back with its cursor"
    )


def _left(asked: Asked, each: Delivery) -> str:
    return f"{each.client} had left {asked.stream} {_on(each)} before {asked.name} came"


def _unknown(asked: Asked, each: Delivery) -> str:
    return f"whether {each.client} got {asked.name} {_on(each)} is not known any more{_as_far_as(asked)}"


_WORDS = {
    "unsent": _unsent,
    "thrown_away": _thrown_away,
    "waiting": _waiting,
    "skipped": _skipped,
    "expired": _expired,
    "reset": _reset,
    "closed_before": _closed_before,
    "left": _left,
    "unknown": _unknown,
}
_ABSENT = ("closed_before", "left", "later", "unknown")
_CODES: Mapping[str, Code] = {
    "unsent": "unsent",
    "thrown_away": "thrown_away",
    "waiting": "waiting",
    "skipped": "gap_skipped",
    "expired": "gap_expired",
    "reset": "gap_reset",
    "closed_before": "closed_before",
    "left": "left_before",
    "unknown": "too_old",
}


def _newest_of_each(steps: Iterable[Step]) -> list[Step]:
    """Of each client the newest."""
    return list({step.client: step for step in steps}.values())


def _was_let_in(steps: Sequence[Step], since_ms: int) -> bool:
    return any(step.kind in ("connected", "resumed") and step.time_ms >= since_ms for step in steps)


def _join_refused(stream: str | None, step: Step) -> Verdict:
    why = f"{step.code}: {step.message}" if step.code else f"{step.reason}"
    words = f"{step.client} is not in {stream}: its join was refused at {at(step.time_ms)} ({why})"
    return Verdict("join_refused", words, step.client)


def _handshake_refused(client: str, shakes: Sequence[Step]) -> Verdict:
    newest = shakes[-1]
    words = (
        f"{count(len(shakes), 'handshake')}{' or more' if len(shakes) >= CLAIMS else ''} that named {client} "
        f"{'was' if len(shakes) == 1 else 'were'} refused, the "
        f"newest at {at(newest.time_ms)}: {newest.status} {newest.code}, {newest.message}"
    )
    return Verdict("handshake_refused", words, client)


# A client


def of_client(client: str, connections: Sequence[str], steps: Sequence[Step], silent: Sequence[str]) -> list[Verdict]:
    """What is the matter with it, by its steps, which are in the order of their times."""
    found: list[Verdict] = []
    mine = [step for step in steps if step.client == client]
    shakes = [step for step in mine if step.kind == "refused"]
    if shakes and not _was_let_in(mine, shakes[-1].time_ms):
        found.append(_handshake_refused(client, shakes))
    refused: dict[str | None, Step] = {}
    for step in mine:
        if step.kind == "join_refused" or (step.kind == "left" and step.reason == "not_allowed"):
            refused[step.stream] = step
        elif step.kind == "joined":
            refused.pop(step.stream, None)
    found += [_join_refused(stream, step) for stream, step in refused.items()]
    gaps: dict[str, list[Step]] = {}
    for step in mine:
        if step.kind == "gap":
            gaps.setdefault(str(step.reason), []).append(step)
    for reason, told in gaps.items():
        code = _CODES.get(reason)
        if code is None:  # of a newer node; the step itself is shown
            continue
        newest = f"the newest at {at(told[-1].time_ms)} on connection {told[-1].connection}: {words_of(told[-1])}"
        found.append(Verdict(code, f"{client} was told {count(len(told), 'gap')} ({reason}), {newest}", client))
    cut = {step.connection for step in mine if step.kind == "closed" and step.code == CloseCode.SLOW_CONSUMER}
    slow = [
        step
        for step in mine
        if step.kind == "ended" and (step.code == CloseCode.SLOW_CONSUMER or step.connection in cut)
    ]
    for step in slow[-1:]:
        words = f"{client} was closed as a slow consumer (4008) {count(len(slow), 'time')}, the newest at "
        words += f"{at(step.time_ms)}: {step.unsent_bytes} bytes were thrown away"
        found.append(Verdict("slow_closed", words, client))
    found += [Verdict("no_answer", f"node {node} did not answer: what it knows is missing here") for node in silent]
    found += _died(steps, None)
    if connections:
        found.append(Verdict("connected", f"{client} is connected ({', '.join(connections[:5])})", client))
    else:
        ends = [step for step in mine if step.kind == "closed"]
        last = f"; {ends[-1].connection} ended at {at(ends[-1].time_ms)} with {ends[-1].code}" if ends else ""
        found.append(Verdict("not_connected", f"{client} is not connected{last}", client))
    return found


def behind(client: str, connection: str, places: Mapping[str, Position], tops: Mapping[str, Position]) -> list[Verdict]:
    """What its streams have that was not queued for this connection, which is there, or was the client's last."""
    found: list[Verdict] = []
    for stream, place in places.items():
        top = tops.get(stream, place)
        if top.epoch == place.epoch and top.offset > place.offset:
            some = f"{place.offset + 1} to {top.offset}" if top.offset > place.offset + 1 else str(top.offset)
            words = f"{client} has not got {some} of {stream}, which connection {connection} had not come to"
            found.append(Verdict("behind", words + ": it gets what the journal holds, from there on", client))
    return found
