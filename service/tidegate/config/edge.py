"""The settings of the edge. ``settings`` has the other sections, and says how they are written."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tidegate.config import endpoints
from tidegate.config.endpoints import PATH, PATH_ALLOWED, PATH_LENGTH, Address, HostPort, Network, Upstream
from tidegate.config.section import Section


class EdgeSettings(Section, frozen=True):
    """What nginx and the service must agree on beside the rest of this file; rendered into nginx's includes."""

    upstreams: Annotated[
        list[Upstream],
        Meta(
            min_length=1,
            max_length=100,
            description="The public ports of all nodes, or their Unix sockets (server.socket).",
            extra={
                "allowed": "a list of 1 to 100, none of them twice, each host:port or unix:/path",
                "is": endpoints.are_different,
            },
        ),
    ] = msgspec.field(default_factory=lambda: ["127.0.0.1:8000"])
    trunk: Annotated[
        bool,
        Meta(description="Carry all clients of a worker over one trunk where the nodes have one (OpenResty's edge)."),
    ] = True
    hold_s: Annotated[
        float,
        Meta(ge=0, le=300, description="Seconds for which clients on a trunk are kept while no node takes them."),
    ] = 10
    resolver: Annotated[
        HostPort | None,
        Meta(description="DNS server that finds the upstreams' addresses again; null: they are looked up at start."),
    ] = None
    nginx: Annotated[
        Literal["debian", "image"],
        Meta(description="Whose nginx. debian: Debian's packages. image: the official images, nginx 1.29.6 or newer."),
    ] = "debian"
    address: Annotated[Address, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="Port for ws.")] = 8080
    tls_port: Annotated[int, Meta(ge=0, le=65535, description="Port for wss; 0: no TLS.")] = 8443
    tls_dir: Annotated[
        str,
        Meta(
            pattern=rf"^{PATH}\Z",
            max_length=PATH_LENGTH,
            description="Folder with fullchain.pem and privkey.pem; relative to nginx's own configuration.",
            extra={"allowed": f"{PATH_ALLOWED}, up to {PATH_LENGTH} characters"},
        ),
    ] = "../../deploy/tls"
    hsts_s: Annotated[
        int, Meta(ge=0, le=63_072_000, description="Seconds for which browsers shall use TLS only; 0 does not ask.")
    ] = 0
    internal: Annotated[Upstream, Meta(description="Where the edge serves its health and metrics.")] = "127.0.0.1:8081"
    calls_port: Annotated[
        int, Meta(ge=1, le=65535, description="Port on loopback where the edge makes calls for its own code.")
    ] = 8082
    run_dir: Annotated[
        str,
        # A Unix socket's path has 107 bytes at most (sys/un.h), and "/node-99.sock" follows.
        Meta(
            pattern=rf"^{PATH}\Z",
            max_length=90,
            description="Folder that nginx writes to: pid, temporary files, sockets.",
            extra={"allowed": PATH_ALLOWED + ", up to 90 characters"},
        ),
    ] = "/run/tidegate"
    access_log: Annotated[
        str,
        Meta(
            pattern=rf"^(?!off\Z){PATH}\Z",  # nginx takes "off" for none, but not with a format
            max_length=PATH_LENGTH,
            description="Where a line of JSON goes for each WebSocket and each refusal.",
            extra={"allowed": f"{PATH_ALLOWED}, up to {PATH_LENGTH} characters; without a log /dev/null"},
        ),
    ] = "/dev/stdout"
    trusted_proxies: Annotated[
        list[Network], Meta(description="Networks whose X-Forwarded-For tells the real address of a client.")
    ] = []
    read_timeout_s: Annotated[
        int, Meta(ge=1, le=86400, description="Seconds without traffic after which the edge cuts a connection.")
    ] = 90
    send_timeout_s: Annotated[
        int, Meta(ge=1, le=86400, description="Seconds without progress of a write after which the edge cuts.")
    ] = 90
    sndbuf_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=16_777_216,
            description="Bytes of a connection that the kernel may hold for the client; 0: as many as it likes.",
        ),
    ] = 131072
    connect_timeout_s: Annotated[
        int, Meta(ge=1, le=75, description="Seconds to wait for a node before another is tried.")
    ] = 3
    probe_timeout_s: Annotated[
        int,
        Meta(ge=1, le=75, description="Seconds for a node to say whether it takes handshakes, or another is asked."),
    ] = 2
    shutdown_timeout_s: Annotated[
        int,
        Meta(ge=1, le=86400, description="Seconds after a reload or stop when old workers cut what they still have."),
    ] = 30
    # nginx has room for 1024 processes, old ones after a reload among them.
    workers: Annotated[int, Meta(ge=1, le=512, description="Worker processes; one for each core is usual.")] = 4
    worker_connections: Annotated[
        # What is listened on counts: with njs a socket for each of edge.upstreams.
        int,
        Meta(ge=128, le=1_000_000, description="Connections of a worker; a WebSocket is two, with njs four or six."),
    ] = 16384
    nofile: Annotated[int, Meta(ge=128, le=2_000_000, description="Open files of a worker.")] = 20000
    connections_per_address: Annotated[
        int, Meta(ge=1, le=65535, description="Connections of one address; over it 429.")
    ] = 200
    handshakes_per_second: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Handshakes per second of one address; over it 429.")
    ] = 20
    handshakes_burst: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Handshakes of one address at once, beyond those per second.")
    ] = 100
    header_bytes: Annotated[
        # A request line of 8 KiB must pass: docs/protocol.md, Limits.
        int, Meta(ge=10240, le=16384, description="Bytes of a request's line, and of each header; over it 400 or 414.")
    ] = 12288
    body_bytes: Annotated[
        int, Meta(ge=1, le=65536, description="Bytes of a request's body, of which a handshake has none; over it 413.")
    ] = 1024
    session_bytes: Annotated[
        int,
        Meta(
            ge=0, le=268_435_456, description="Bytes that a session may hold while njs reads it; then it only relays."
        ),
    ] = 1_048_576
    session_calls: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Calls of a session that njs answers, of which large ones count more; then it only relays.",
        ),
    ] = 100
