"""Every setting, defined once: name with unit, default, limit, one sentence. Reading and checking them is ``config``'s.

Numbers are in the unit that ends their name. ``config.yaml`` and the words of refusals are made from what stands here:
a description is a sentence, ``allowed`` follows "must be".
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tidegate.config import endpoints
from tidegate.config.auth import AuthSettings, NamedApiKey
from tidegate.config.edge import EdgeSettings
from tidegate.config.endpoints import HOST, PATH_LENGTH, Address, Host, Network, Origin, SocketPath
from tidegate.config.events import EventsSettings
from tidegate.config.section import Section
from tidegate.config.texts import ApiKey, Group, Method, Word
from tidegate.config.trace import TraceSettings
from tidegate.core.model import Retention, group_of
from tidegate.core.patterns import matches

EVENT_BYTES = 262144  # no event is larger; edges are built for it
ENVELOPE_BYTES = 16384  # of an event, beside its data
HEADER_BUFFERS = 4  # of edge.header_bytes each: what an edge takes of one request's line and headers together
POLICIES_KEPT = 10000
PROBE_PATH = "/.probe"  # where an edge asks whether a node takes handshakes; a WebSocket's path ends in "/"
TRUNK_HEADER = "Tidegate-Trunk"  # in a probe: where is yours? And in its answer
NEXT_HEADER = "X-Tidegate-Next"  # in an edge's handshake: it can try another node


class ServerSettings(Section, frozen=True):
    """The public port: for clients, behind an edge or not."""

    address: Annotated[Address, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 8000
    socket: Annotated[
        SocketPath | None,
        Meta(description="Unix socket to serve the same on, for an edge on this machine; null: none."),
    ] = None
    socket_mode: Annotated[
        Literal["0600", "0660", "0666"],
        Meta(
            description="Who may connect to it. 0600: the service's own user. 0660: its group too. 0666: whoever may "
            "enter the folder."
        ),
    ] = "0660"
    socket_group: Annotated[
        Group | None, Meta(description="Group of it, by name or number, such as nginx's; null: the service's own.")
    ] = None
    path: Annotated[
        str,
        Meta(
            # Under /.refused/ the edge keeps its answers.
            pattern=r"^/(?!\.refused/)((?!\.+/)[A-Za-z0-9_.~-]+/)*\Z",
            max_length=PATH_LENGTH,
            description="Path of the WebSocket.",
            extra={
                "allowed": 'a path that begins and ends with "/", of A-Z a-z 0-9 _ . ~ - between, not under '
                f"/.refused/, up to {PATH_LENGTH} characters"
            },
        ),
    ] = "/ws-notifications/"
    hosts: Annotated[
        list[Host], Meta(min_length=1, description="Host names that requests may name, beside the address itself.")
    ] = msgspec.field(default_factory=lambda: ["localhost", "127.0.0.1", "[::1]"])
    edges: Annotated[
        list[Network],
        Meta(
            description="Networks that edges come from: their X-Forwarded-For tells a client's address, as it does "
            "over server.socket and trunks."
        ),
    ] = msgspec.field(default_factory=lambda: ["127.0.0.1", "::1"])
    header_timeout_s: Annotated[
        float, Meta(ge=0.01, le=300, description="Seconds within which a request's headers must have arrived.")
    ] = 10
    unsent_bytes: Annotated[
        # Below a page of history a replay would wait for the loop at each write.
        int,
        Meta(
            ge=0,
            le=16_777_216,
            description="Bytes of a connection that the kernel may hold unsent; 0: as many as it likes.",
        ),
    ] = 131072
    drain_s: Annotated[
        float, Meta(ge=0, le=3600, description="Seconds over which a stop spreads the closing of its connections.")
    ] = 20
    node: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9_.-]{0,64}\Z",
            description="First part of this node's id; empty takes the machine's host name.",
            extra={"allowed": "up to 64 characters from A-Z a-z 0-9 _ . -"},
        ),
    ] = ""


class InternalSettings(Section, frozen=True):
    """The internal port: the HTTP API, metrics, health and the console. Never through an edge."""

    address: Annotated[Address, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 8001
    hosts: Annotated[
        list[Host], Meta(min_length=1, description="Host names that requests may name, beside the address itself.")
    ] = msgspec.field(default_factory=lambda: ["localhost", "127.0.0.1", "[::1]"])
    api_keys: Annotated[
        list[ApiKey | NamedApiKey],
        Meta(
            description="Keys of applications: a text, which opens all of the API, or name, key or key_file, may (of "
            "push, read, manage) and groups (patterns). Read again at SIGHUP."
        ),
    ] = []
    audit_pushes: Annotated[
        bool,
        Meta(description="A line in the log for each push with a key; other changes, and refusals, always have one."),
    ] = True
    probes_by_address: Annotated[
        bool,
        Meta(description="Answer /healthz, /readyz and /metrics also where Host is an IP address, such as a pod's."),
    ] = False
    keyless_anywhere: Annotated[
        bool, Meta(description="Allow an address beyond loopback without a key: whoever reaches the port may push.")
    ] = False
    cors_origins: Annotated[
        list[Origin], Meta(description="Origins whose pages may call the API, beside the console's own.")
    ] = []


class TrunkSettings(Section, frozen=True):
    """Where edges open trunks: a listener of its own, as whoever reaches it may speak for any client. docs/trunk.md"""

    socket: Annotated[
        SocketPath | None,
        Meta(description="Unix socket for edges on this machine, of server.socket's mode and group; null: none."),
    ] = None
    address: Annotated[Address, Meta(description="Address to listen on, where port is not 0.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port for edges on other machines; 0: none.")] = 0
    key: Annotated[
        ApiKey | None, Meta(description="What an edge must know to open a trunk over TCP; it is never sent.")
    ] = None
    key_file: Annotated[Word | None, Meta(description="File with the key, in place of key.")] = None


class HeartbeatSettings(Section, frozen=True):
    """How a dead peer is noticed."""

    websocket_ping_interval: Annotated[float, Meta(ge=0.01, le=3600, description="Seconds between control pings.")] = 30
    websocket_ping_timeout: Annotated[
        float, Meta(ge=0.01, le=3600, description="Seconds without any sign of life that end a connection (4007).")
    ] = 60
    write_timeout_s: Annotated[
        float, Meta(ge=0.01, le=3600, description="Seconds without progress of a write that end a connection (4008).")
    ] = 15


class BrokerSettings(Section, frozen=True):
    """Where streams live."""

    kind: Annotated[
        Literal["memory", "redis"],
        Meta(description="memory: one node, lost at a restart. redis: many nodes, Redis 7 or newer, or Valkey."),
    ] = "memory"
    url: Annotated[
        str,
        Meta(
            pattern=r"^(rediss?://[^/?#\s]+(/[0-9]*)?|rediss?\+sentinel://[^/?#\s]+/[^/?#\s]+)(\?[^#\s]*)?\Z",
            description="Redis server.",
            extra={
                "allowed": "redis://, rediss:// (TLS), redis+sentinel://h1:p1,h2:p2/NAME or rediss+sentinel://, "
                "passwords percent-encoded"
            },
        ),
    ] = "redis://127.0.0.1:6379/0"
    prefix: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9_.:-]{1,64}\Z",
            description="Beginning of every key in Redis; gateways that share it are one.",
            extra={"allowed": "1 to 64 characters from A-Z a-z 0-9 _ . : -"},
        ),
    ] = "tidegate"


class HistorySettings(Section, frozen=True):
    """What the journal of each stream keeps; groups may differ."""

    messages: Annotated[int, Meta(ge=1, le=1_000_000, description="Messages kept of a stream.")] = 1000
    age_s: Annotated[float, Meta(ge=0.01, le=31_536_000, description="Seconds that a message is kept.")] = 3600
    meta_age_s: Annotated[
        float,
        Meta(
            ge=0.01,
            le=315_360_000,
            description="Seconds that epochs, offsets and records of cursor=last outlive the messages.",
        ),
    ] = 2_592_000


class GroupPolicy(Section, frozen=True):
    """What clients may do with a group, and what becomes of its messages."""

    join: Annotated[
        Literal["anyone", "nobody"],
        Meta(description="Who may join by command or at connect; nobody: the application's lasting members only."),
    ] = "anyone"
    publish: Annotated[
        Literal["nobody", "members", "anyone"], Meta(description="Who may publish; a token must allow it too.")
    ] = "nobody"
    history: Annotated[Literal["nobody", "members", "anyone"], Meta(description="Who may read history.")] = "members"
    presence: Annotated[Literal["nobody", "members", "anyone"], Meta(description="Who may read who is here.")] = (
        "nobody"
    )
    messages: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None,
        Meta(description="Messages kept; null: as history.messages says."),
    ] = None
    age_s: Annotated[
        Annotated[float, Meta(ge=0.01, le=31_536_000)] | None,
        Meta(description="Seconds that a message is kept; null: as history.age_s says."),
    ] = None
    slow: Annotated[
        Literal["close", "replay", "latest"],
        Meta(
            description="A connection that does not keep up is closed (4008), reads on from the journal, or gets the "
            "newest message of each conflate word only."
        ),
    ] = "close"


class LimitsSettings(Section, frozen=True):
    """What one peer may cost."""

    message_bytes: Annotated[
        int, Meta(ge=1024, le=EVENT_BYTES, description="Bytes of an inbound WebSocket message; over it 1009.")
    ] = 131072
    messages_per_second: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Messages, fragments and control frames of a connection in a second, five times that at once; "
            "over it reading stops for a while.",
        ),
    ] = 1000
    bytes_per_second: Annotated[
        int,
        Meta(
            ge=1024,
            le=1_099_511_627_776,
            description="Bytes of a connection in a second, five times that at once; over it reading stops a while.",
        ),
    ] = 8_388_608
    json_depth: Annotated[
        int, Meta(ge=1, le=256, description="Depth of an inbound message's JSON; over it too_deep.")
    ] = 64
    data_bytes: Annotated[
        int,
        Meta(
            ge=1,
            le=EVENT_BYTES - ENVELOPE_BYTES,
            description="Bytes of data in a push, publish or call; over it too_large.",
        ),
    ] = 65536
    body_bytes: Annotated[
        int, Meta(ge=1024, le=67_108_864, description="Bytes of an HTTP body of the API; over it 413.")
    ] = 1_048_576
    outbox_bytes: Annotated[
        int,
        # An event of the largest size must fit behind others, or nobody could ever receive it.
        Meta(ge=EVENT_BYTES + 65536, le=268_435_456, description="Unsent bytes of a connection; over it 4008."),
    ] = 1_048_576
    all_outbox_bytes: Annotated[
        int,
        Meta(
            ge=1_048_576,
            le=1_099_511_627_776,
            description="Unsent bytes of connections and trunks in a node's memory, a message to many once; over it "
            "those of whom most waits are slow (4008), over three quarters of it new connections get 503.",
        ),
    ] = 1_073_741_824
    groups_per_connection: Annotated[
        # 500 of the longest names in one welcome stay below 256 KiB.
        int, Meta(ge=1, le=500, description="Groups of a connection, lasting ones too; over it too_many_groups.")
    ] = 100
    groups_per_client: Annotated[
        int,
        Meta(ge=1, le=100_000, description="Groups of all connections of a client on a node; over it too_many_groups."),
    ] = 500
    groups: Annotated[
        int, Meta(ge=1, le=100_000_000, description="Groups that the connections of a node are in; over it full.")
    ] = 500_000
    new_streams_per_second_per_connection: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Streams that a connection may begin in a second, ten times that at once; over it too_fast. "
            "A stream is new where it never had a message and nobody follows it on this node.",
        ),
    ] = 50
    new_streams_per_second_per_client: Annotated[
        int, Meta(ge=1, le=1_000_000, description="The same of all connections of a client on a node.")
    ] = 100
    new_streams_per_second: Annotated[
        int, Meta(ge=1, le=1_000_000, description="The same of all clients of a node.")
    ] = 10_000
    new_streams_per_client: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000_000,
            description="Streams that a client may begin by publishing, on a node and within history.meta_age_s, which "
            "is for how long they are kept; over it too_fast.",
        ),
    ] = 10_000
    new_streams: Annotated[int, Meta(ge=1, le=1_000_000_000, description="The same of all clients of a node.")] = (
        1_000_000
    )
    commands_in_flight: Annotated[
        int, Meta(ge=1, le=1024, description="Commands of a connection at once; at it reading stops.")
    ] = 16
    calls_in_flight: Annotated[
        int, Meta(ge=1, le=1024, description="Calls of a connection at once; over it too_many_calls.")
    ] = 32
    connections: Annotated[int, Meta(ge=1, le=1_000_000, description="Connections of a node; over it 503.")] = 15000
    handshakes_per_second: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Clients that a node lets in in a second; more wait in a queue.")
    ] = 1000
    handshake_wait_s: Annotated[
        # Below 10 s, after which client libraries give up.
        float,
        Meta(ge=0, le=60, description="Seconds that a handshake may wait in that queue; over it 503."),
    ] = 5
    lag_s: Annotated[
        float,
        Meta(ge=0.01, le=60, description="Seconds that the event loop may lag; over it new handshakes get 503."),
    ] = 0.25
    connections_per_client: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Connections of one client; over it 429.")
    ] = 50
    records_per_client: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="Records of cursor=last of a client, one for each device; over it the one used least goes.",
        ),
    ] = 100
    journal_bytes: Annotated[
        int,
        Meta(
            ge=1_048_576,
            le=1_099_511_627_776,
            description="Bytes of all that the memory broker keeps, or of the newest messages that a node with Redis "
            "keeps; over it the least used goes.",
        ),
    ] = 268_435_456
    ingress_entries: Annotated[
        int,
        # More than a node has taken and not settled: those are the oldest, and stay.
        Meta(ge=1000, le=1_000_000_000, description="Entries that may wait in push; over it the newest are rejected."),
    ] = 1_000_000
    ingress_bytes: Annotated[
        int,
        Meta(
            ge=1_048_576,
            le=1_099_511_627_776,
            description="Bytes that they may cost Redis; over it the newest are rejected.",
        ),
    ] = 1_073_741_824
    answer_bytes: Annotated[
        int,
        Meta(ge=ENVELOPE_BYTES, le=EVENT_BYTES, description="Bytes of an answer to history or presence; cut there."),
    ] = EVENT_BYTES
    batch_pushes: Annotated[int, Meta(ge=1, le=10000, description="Pushes in one request; over it 413.")] = 1000
    not_understood_per_minute: Annotated[
        int, Meta(ge=1, le=1000, description="Commands not understood in a minute that end a connection (4500).")
    ] = 10


class CallsSettings(Section, frozen=True):
    """The REST application that answers calls."""

    url: Annotated[
        str,
        Meta(
            pattern=rf"^https?://{HOST}(:[0-9]+)?(/(?!\.+(/|\Z))[A-Za-z0-9_.~-]+)*\Z",
            max_length=PATH_LENGTH,
            description="Where calls go; the method follows after a slash.",
            extra={
                "allowed": "http://host[:port][/path] or https://…, in lower case but for the path, without user, "
                f'query and "/" at the end, the port from 1 to 65535, up to {PATH_LENGTH} characters',
                "is": endpoints.is_url,
            },
        ),
    ] = "http://127.0.0.1:9000"
    allow: Annotated[
        list[Method],
        Meta(
            description="Methods that clients may call.",
            extra={"allowed": "a list of methods, none of them twice", "is": endpoints.are_different},
        ),
    ] = msgspec.field(default_factory=lambda: ["echo"])
    timeout_s: Annotated[float, Meta(ge=0.01, le=300, description="Seconds to wait for an answer.")] = 5
    answer_bytes: Annotated[
        int,
        Meta(ge=1, le=EVENT_BYTES - ENVELOPE_BYTES, description="Bytes of an answer's body; over it call_bad_answer."),
    ] = 229_376
    connections: Annotated[int, Meta(ge=1, le=10000, description="Connections for calls; half for one client.")] = 100


class LogSettings(Section, frozen=True):
    """JSON lines on standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="The least that is logged.")] = (
        "info"
    )


class Config(Section, frozen=True, dict=True):
    """The effective settings; made by ``config.load``."""

    server: ServerSettings = msgspec.field(default_factory=ServerSettings)
    internal: InternalSettings = msgspec.field(default_factory=InternalSettings)
    trunk: TrunkSettings = msgspec.field(default_factory=TrunkSettings)
    heartbeat: HeartbeatSettings = msgspec.field(default_factory=HeartbeatSettings)
    broker: BrokerSettings = msgspec.field(default_factory=BrokerSettings)
    history: HistorySettings = msgspec.field(default_factory=HistorySettings)
    auth: AuthSettings = msgspec.field(default_factory=AuthSettings)
    origins: Annotated[
        list[Origin],
        Meta(description="Origins whose pages may connect, beside pages of the same host and the console."),
    ] = []
    groups: Annotated[
        dict[str, GroupPolicy],
        Meta(
            description="Policies by pattern of group names; * is any run of characters, the first that matches wins."
        ),
    ] = {}
    limits: LimitsSettings = msgspec.field(default_factory=LimitsSettings)
    calls: CallsSettings = msgspec.field(default_factory=CallsSettings)
    events: EventsSettings = msgspec.field(default_factory=EventsSettings)
    edge: EdgeSettings = msgspec.field(default_factory=EdgeSettings)
    log: LogSettings = msgspec.field(default_factory=LogSettings)
    trace: TraceSettings = msgspec.field(default_factory=TraceSettings)

    @cached_property
    def _policies(self) -> dict[str, GroupPolicy]:
        return {}

    def policy(self, group: str) -> GroupPolicy:
        """The first policy whose pattern covers ``group``; the default where none does."""
        policy = self._policies.get(group)
        if policy is None:
            if len(self._policies) >= POLICIES_KEPT:  # names come from peers
                self._policies.clear()
            found = (policy for pattern, policy in self.groups.items() if matches(pattern, group))
            policy = self._policies[group] = next(found, _DEFAULT_POLICY)
        return policy

    def take_policies(self, groups: dict[str, GroupPolicy]) -> None:
        """In place of the present ones. It is the one thing of a configuration that changes while a node runs."""
        msgspec.structs.force_setattr(self, "groups", groups)
        self._policies.clear()

    def retention(self, stream: str) -> Retention:
        """What the journal of ``stream`` keeps: as its group's policy says, else as ``history`` does."""
        group = group_of(stream)
        policy = _DEFAULT_POLICY if group is None else self.policy(group)
        return Retention(
            messages=self.history.messages if policy.messages is None else policy.messages,
            age_s=self.history.age_s if policy.age_s is None else policy.age_s,
        )


_DEFAULT_POLICY = GroupPolicy()
