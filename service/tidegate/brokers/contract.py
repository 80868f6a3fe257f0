"""The contract of a broker: it orders, keeps and announces; the gateway asks, the hub hears.

``registry`` names the brokers that implement it; ``tests/brokers/contract.py`` checks each.
Every coroutine may raise ``BrokerDown``. Nothing here blocks the loop.

What a receiver may rely on, for each stream between ``subscribe`` and ``unsubscribe``:

* ``on_message`` comes in offset order, beginning after the position that ``subscribe`` returned, without a hole
  and without a repeat. A hole that the broker finds it repairs from the journal first.
* What cannot be repaired is announced by ``on_gap`` (the stream goes on after ``gap.last``, or for a reset after
  the offset that ``on_gap`` names).
* A stream that never had a message may get another epoch, without loss: ``on_moved`` says so.
* All are plain calls on the loop's thread, never during ``subscribe`` itself.

A subscription stores nothing. A stream without a message is at offset 0 of a common epoch, which its first push takes
over (docs/decisions/0013).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from tidegate.core.errors import Refused
from tidegate.core.model import (
    ConnectionInfo,
    Cursor,
    Gap,
    History,
    Message,
    NodeInfo,
    Position,
    Publication,
    RejectedPush,
)
from tidegate.metrics import Metrics

ANSWER_S = 1.0  # that other nodes have for an answer

# A metric of every broker: its name, and what it says.
RECORDS_GIVEN_UP = ("tidegate_records_given_up", "Records of cursor=last for which their client had too many devices.")


class CloseOrder(msgspec.Struct, frozen=True, tag="close"):
    """Order: end a client's connections, or one of them, with ``code``."""

    client: str
    connection: str | None
    code: int


class MembershipOrder(msgspec.Struct, frozen=True, tag="membership"):
    """Order: a client's lasting membership began (``member``) or ended; its connections follow."""

    client: str
    group: str
    member: bool


Order = CloseOrder | MembershipOrder
NodeChange = Literal["came", "stopped", "died"]


class Claim(msgspec.Struct, frozen=True):
    """Answer to ``claim``: what the record held (None: there was none) and who owned it before (None: nobody)."""

    record: Cursor | None
    previous: str | None


class ServerCondition(msgspec.Struct, frozen=True):
    """How the server behind a broker is, as it says itself. Bytes, seconds and milliseconds as the names end; None is
    what it does not say, or not to this user. ``most_``: 0 is no limit. ``waiting``: pushes made through Redis that no
    node has taken, ``oldest_s`` how long the oldest of them has been there; ``reader``: the node whose turn it is to
    take them."""

    version: str
    role: str
    replicas: int
    appendonly: bool | None
    appendfsync: str | None
    snapshots: bool | None
    writes_to_disk: bool
    eviction: str
    used_bytes: int
    most_bytes: int
    machine_bytes: int
    clients: int
    most_clients: int | None
    latency_ms: float
    clock_off_ms: float
    waiting: int
    oldest_s: float
    rejected: int
    reader: str | None


class StreamReceiver(Protocol):
    """Who hears a stream."""

    def on_message(self, message: Message) -> None: ...

    def on_gap(self, gap: Gap, position: Position) -> None:
        """``position``: where the stream goes on; the next message follows it."""

    def on_moved(self, stream: str, position: Position) -> None:
        """Nothing was said of the stream yet and nothing was lost; its offset 0 is ``position`` from now on."""


class Receiver(StreamReceiver, Protocol):
    """Who hears the broker: the gateway, which passes messages and gaps to the hub."""

    def on_order(self, order: Order) -> None: ...


class Neighbour(Protocol):
    """Who answers what other nodes ask, and is told of them."""

    async def on_question(self, question: bytes) -> bytes:
        """This node's answer. Raises msgspec.MsgspecError where it does not understand."""

    def on_node(self, node: str, what: NodeChange) -> None:
        """Another node was found to be there, or no longer."""

    def on_lost(self, info: ConnectionInfo) -> None:
        """A connection was found in presence whose node has died."""


class Broker(Protocol):
    """``sweep_s``: how often ``sweep`` is to be called, in seconds; None where there is nothing to sweep."""

    @property
    def sweep_s(self) -> float | None: ...

    # Life
    async def start(self, receiver: Receiver, node: NodeInfo) -> None:
        """Raises BrokerDown or ValueError (an unusable broker) after a first real exchange with it."""

    async def stop(self) -> None: ...

    async def canary(self) -> float:
        """Passes a message through the broker's whole path; milliseconds it took. Raises BrokerDown."""

    def sweep(self) -> None:
        """Forgets some of what is too old."""

    def register(self, metrics: Metrics) -> None:
        """Adds what it alone can count; once."""

    def report(self, node: NodeInfo) -> None:
        """What ``nodes`` shall say of this node from now on."""

    async def nodes(self) -> list[NodeInfo]: ...

    async def condition(self) -> ServerCondition | None:
        """Of the server behind it; None where there is none."""

    @property
    def clock_off_ms(self) -> float | None:
        """This machine's time of day less the server's, as last seen; None where there is no server."""

    def meet(self, neighbour: Neighbour) -> None:
        """It is this node's; to be called before ``start``."""

    async def ask(self, question: bytes) -> dict[str, bytes | None]:
        """What every other node answers, by node; None: nothing within ``ANSWER_S``."""

    # Streams
    async def publish(self, publications: Sequence[Publication]) -> list[Position | Refused]:
        """Journals each in order; one answer each. An answer is a position, or why not: ``KeyReused``,
        ``BrokerDown`` (may have been accepted, or there is no room for its key), ``NotTried``, or ``Internal`` (what is
        stored of this stream is spoilt). Never raises any of them itself."""

    async def rejected(self, limit: int) -> list[RejectedPush]:
        """The newest pushes that came through this broker's own door and could not be taken, newest first."""

    async def subscribe(self, stream: str) -> Position:
        """Returns once confirmed, with the position after which ``on_message`` will come.
        The caller serialises calls for one stream."""

    async def unsubscribe(self, stream: str) -> None: ...

    async def top(self, stream: str) -> Position:
        """The newest position."""

    async def history(self, stream: str, since: Position | None, *, messages: int, size: int) -> History:
        """What follows ``since`` (None: from the oldest kept), oldest first, at most ``messages`` and about
        ``size`` bytes of data, but at least one message if there is one. No ``messages``: whether ``since`` can be
        continued, or for None the newest position. Where ``since`` is the beginning of the stream
        in an earlier common epoch, the answer starts at offset 0 of the present one without a gap."""

    async def entry(self, stream: str, position: Position) -> Message | None:
        """The message at ``position`` as the journal has it, with what is told to nobody; None where it has not, or is
        of another epoch. Each asks the journal: this is for who looks, not for deliveries."""

    # Presence: eventually true; a killed node's connections vanish by themselves
    async def presence_join(self, info: ConnectionInfo) -> None:
        """This node's connection is here, in these groups (call again when they change)."""

    async def presence_leave(self, info: ConnectionInfo) -> None: ...

    async def presence_move(self, info: ConnectionInfo) -> None:
        """A connection that was another node's is here now. Presence shows neither an end nor a beginning."""

    def presence_hold(self, info: ConnectionInfo) -> None:
        """This node lost the connection, which may go on at another: it stays as it is, until ``presence_release``."""

    async def presence_release(self, info: ConnectionInfo) -> None:
        """The time is over: it has left, unless another node has it."""

    async def connections(self, client: str) -> list[ConnectionInfo]: ...

    async def present(self, group: str) -> list[tuple[str, str]]:
        """(client, connection) of every connection in the group, on all nodes."""

    # Lasting membership
    async def memberships(self, client: str) -> frozenset[str]: ...

    async def add_member(self, group: str, client: str, *, most: int) -> bool:
        """True if it is new. Raises TooManyGroups if the client has ``most`` already. Records of this client that
        lack the group get it with its present top; then every node hears the order."""

    async def remove_member(self, group: str, client: str) -> bool:
        """True if it was there. The order goes out either way: connections that joined by themselves leave too."""

    # The records of ``cursor=last``
    async def claim(self, client: str, device: str, connection: str) -> Claim:
        """``connection`` owns the record from now on. Where its client has as many as it may, a new one takes the place
        of the least recently used."""

    async def save(self, client: str, device: str, connection: str, record: Cursor) -> bool:
        """Replaces the record if ``connection`` still owns it; False if not. Groups that ``add_member`` put there and
        ``record`` lacks stay until the connection has joined them."""

    async def reclaim(self, client: str, device: str, connection: str, owner: str) -> Cursor | None:
        """The record, whose owner is ``owner`` from now on; None if it is no longer ``connection``'s, or is a later
        term's. An owner is a connection, or one with ``#`` and its term, which tells its saves from earlier ones."""

    # Orders
    async def order(self, order: Order) -> None:
        """Every node hears it through ``on_order``, this one too."""

    @property
    def orders_heard(self) -> str:
        """How far this node has obeyed."""

    async def orders_since(self, heard: str) -> list[Order] | None:
        """What was ordered after ``heard``, which may be another node's; None where that can't be told any more."""
