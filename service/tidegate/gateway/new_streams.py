"""How many streams clients may begin. A stream is new where it never had a message and nobody follows it on this node:
whoever may join ``*`` could else make as many as there are names.

Joining one costs a node memory and its broker a subscription for as long as somebody follows; so there is a rate, and a
most of groups that a client and a node have. Publishing to one costs the broker its epoch for
``history.meta_age_s``; so for that time too there is a most. What the application does is not counted: its pushes, its
lasting memberships, connections that come from another node, and the stream of the client itself.

Whether a stream is new the broker knows. It is asked only for those who have used up what they may: the others' streams
are counted when it has answered anyhow. So whoever has used it up goes on in streams that there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic

from tidegate import log
from tidegate.brokers.contract import Broker
from tidegate.config.load import Config
from tidegate.core.allowance import Allowance
from tidegate.core.errors import Full, Refused, TooFast, TooManyGroups, TooManyGroupsAsked
from tidegate.core.hub import Hub
from tidegate.core.model import kind_of
from tidegate.core.session import Session
from tidegate.metrics import Metrics
from tidegate.turn import Floods

BURST_S = 10.0  # of the rates, which may be used at once
NODE = ""  # the name of all together


class Scope:
    """Who is counted as one: ``of`` gives its name. ``kept`` is None where only the rate is bounded."""

    def __init__(self, who: str, of: Callable[[Session], str], rate: Allowance, kept: Allowance | None) -> None:
        self.who = who
        self.of = of
        self.rate = rate
        self.kept = kept

    def wait_s(self, session: Session, now_s: float, *, publishes: bool) -> float:
        name = self.of(session)
        wait_s = self.rate.wait_s(name, now_s)
        return wait_s if not publishes or self.kept is None else max(wait_s, self.kept.wait_s(name, now_s))

    def use(self, session: Session, now_s: float, *, publishes: bool) -> None:
        name = self.of(session)
        self.rate.use(name, now_s)
        if publishes and self.kept is not None:
            self.kept.use(name, now_s)


class NewStreams:
    """``clock`` gives monotonic seconds."""

    def __init__(
        self, config: Config, hub: Hub, broker: Broker, metrics: Metrics, clock: Callable[[], float] = monotonic
    ) -> None:
        limits, kept_s = config.limits, config.history.meta_age_s
        self._limits = limits
        self._hub = hub
        self._broker = broker
        self._metrics = metrics
        self._clock = clock
        self._floods = Floods(1)
        self._scopes = (
            Scope(
                "a connection",
                lambda session: session.connection,
                _rate(limits.new_streams_per_second_per_connection, limits.groups_per_connection),
                None,
            ),
            Scope(
                "a client",
                lambda session: session.client,
                _rate(limits.new_streams_per_second_per_client, limits.groups_per_client),
                _kept(limits.new_streams_per_client, kept_s),
            ),
            Scope(
                "a node",
                lambda session: NODE,
                _rate(limits.new_streams_per_second, 0),
                _kept(limits.new_streams, kept_s),
            ),
        )

    # Joining

    async def joins(self, session: Session, stream: str) -> None:
        """It is about to follow a group that it chose by itself. Raises Refused."""
        self._check_client(session, stream)
        if stream in self._hub.audiences:
            return
        if len(self._hub.audiences) - len(self._hub.clients) > self._limits.groups:  # each client has its own, and all
            raise self._said(session, Full(f"connections of this node are in {self._limits.groups} groups"))
        await self._check(session, stream, publishes=False)

    def joined(self, session: Session, stream: str) -> None:
        """It follows it, first of all where it is new."""
        audience = self._hub.audiences.get(stream)
        if audience is not None and audience.position.offset == 0 and audience.is_only(session):
            self._count(session, publishes=False)

    def _check_client(self, session: Session, stream: str) -> None:
        most = self._limits.groups_per_client
        sessions = self._hub.of_client(session.client)
        if sum(len(one.streams) for one in sessions) < most:
            return
        groups = {stream for one in sessions for stream in one.streams if kind_of(stream) == "group"}
        if stream not in groups and len(groups) >= most:
            error = TooManyGroups if session.welcomed else TooManyGroupsAsked
            raise error(f"the connections of a client may be in {most} groups together")

    # Publishing

    async def publishes(self, session: Session, stream: str) -> None:
        """It is about to publish there. Raises Refused."""
        audience = self._hub.audiences.get(stream)
        if audience is None or audience.position.offset == 0:
            await self._check(session, stream, publishes=True)

    def published(self, session: Session, offset: int) -> None:
        """What it published has this offset."""
        if offset == 1:
            self._count(session, publishes=True)

    # Both

    async def _check(self, session: Session, stream: str, *, publishes: bool) -> None:
        now_s = self._clock()
        waits = [(scope.wait_s(session, now_s, publishes=publishes), scope.who) for scope in self._scopes]
        wait_s, who = max(waits, key=lambda wait: wait[0])
        if wait_s and not (await self._broker.top(stream)).offset:
            error = TooFast(f"{who} may not begin so many streams", retry_after_s=math.ceil(wait_s))
            raise self._said(session, error)

    def _count(self, session: Session, *, publishes: bool) -> None:
        self._metrics.new_streams["publish" if publishes else "join",] += 1
        now_s = self._clock()
        for scope in self._scopes:
            scope.use(session, now_s, publishes=publishes)

    def _said(self, session: Session, error: Refused) -> Refused:
        """A client each ten seconds, and few of them."""
        if self._floods.used(session.client, self._clock()):
            log.warning("streams.refused", conn=session.connection, client=session.client, error=error.message)
        return error


def _rate(per_second: float, at_once: float) -> Allowance:
    return Allowance(per_second=per_second, at_once=max(at_once, BURST_S * per_second))


def _kept(most: int, kept_s: float) -> Allowance:
    """One that was used up is had again when what it was used for is forgotten."""
    return Allowance(per_second=most / kept_s, at_once=most)
