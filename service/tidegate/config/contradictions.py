"""Which settings cannot be together with which others, where each is right by itself."""

from __future__ import annotations

import ipaddress
import itertools
import os
import re
from collections.abc import Iterator, Sequence

from tidegate.config.auth import ANSWER_S, LEAST_RECHECK_S, NamedApiKey, NamedKey
from tidegate.config.edge import EdgeSettings
from tidegate.config.endpoints import UNIX, bracketed, overlap
from tidegate.config.settings import ENVELOPE_BYTES, Config

EDGE_SOCKET = re.compile(r"(node-[0-9]+|behind|counters)\.sock")  # of what an edge listens on in edge.run_dir
_OF_EDGE = "is where an edge listens itself, in edge.run_dir; choose another name, or another folder"


def contradictions(config: Config) -> Iterator[tuple[str, str]]:
    """Keys, and why their values cannot be together with others: what is wrong, then what to set."""
    server, internal, auth = config.server, config.internal, config.auth
    heartbeat, limits, edge = config.heartbeat, config.limits, config.edge
    for name in ("websocket_ping_interval", "websocket_ping_timeout"):
        if getattr(heartbeat, name) >= edge.read_timeout_s:
            yield (
                f"heartbeat.{name}",
                f"must be below edge.read_timeout_s ({edge.read_timeout_s}), or the edge cuts quiet connections; "
                "lower it, or set edge.read_timeout_s above it",
            )
    if heartbeat.websocket_ping_interval > heartbeat.websocket_ping_timeout:
        yield (
            "heartbeat.websocket_ping_interval",
            f"must not be above heartbeat.websocket_ping_timeout ({heartbeat.websocket_ping_timeout}), or quiet peers "
            "are closed before they are asked; set it to half of that",
        )
    if heartbeat.write_timeout_s > edge.send_timeout_s:
        yield (
            "heartbeat.write_timeout_s",
            f"must not be above edge.send_timeout_s ({edge.send_timeout_s}), or the edge cuts first; "
            "lower it, or raise edge.send_timeout_s",
        )
    if auth.mode == "none" and not auth.anonymous_anywhere and not is_loopback(server.address):
        yield (
            "auth.mode",
            f"with server.address {bracketed(server.address)} whoever reaches the port may be any client; set "
            "auth.mode to jwt or callback, or server.address to 127.0.0.1, or, where that is meant, "
            "auth.anonymous_anywhere to true",
        )
    if not internal.api_keys and not internal.keyless_anywhere and not is_loopback(internal.address):
        yield (
            "internal.api_keys",
            f"with internal.address {bracketed(internal.address)} whoever reaches the port may push to everybody; "
            "set a key, or internal.address to 127.0.0.1, or, where that is meant, internal.keyless_anywhere to true",
        )
    keys = [name for name in ("key", "key_file", "jwks_file") if getattr(auth, name) is not None]
    if auth.mode == "jwt" and (len(keys) > 1 or not (keys or auth.keys)):
        given = " and ".join(f"auth.{name}" for name in keys) or "none (tidegate token --new-key makes one)"
        yield (
            "auth.mode",
            f"needs exactly one of auth.key, auth.key_file and auth.jwks_file, or auth.keys; set: {given}",
        )
    if auth.mode == "callback" and auth.callback_url is None:
        yield "auth.callback_url", "is needed for auth.mode callback: where the application is asked who a client is"
    if 0 < auth.recheck_s < LEAST_RECHECK_S:
        yield (
            "auth.recheck_s",
            f"must be 0 (never) or at least {LEAST_RECHECK_S:g}, or the application is asked without end; 300 is usual",
        )
    if auth.jwks_file is not None and auth.keys:
        yield "auth.keys", "cannot be beside auth.jwks_file, which has several keys itself; leave one of them out"
    yield from _items("auth.keys", "kid", auth.keys)
    yield from _items("internal.api_keys", "name", [key for key in internal.api_keys if not isinstance(key, str)])
    secret = (auth.key or "").rstrip("\r\n").encode()  # as `auth_keys` takes it, which knows more of secrets
    if auth.algorithm == "HS256" and auth.key is not None and len(secret) < 32:
        yield (
            "auth.key",
            f"must have at least 32 bytes for auth.algorithm HS256, and has {len(secret)}; "
            "`openssl rand -hex 32` makes one",
        )
    if server.port != 0 and overlap(listener(server.address, server.port), listener(internal.address, internal.port)):
        yield "internal.port", f"must differ from server.port ({server.port}); 8001 is usual"
    yield from _trunk(config)
    if server.socket is not None and edge.internal == UNIX + server.socket:
        yield "edge.internal", "must not be server.socket, which is the service's; choose another"
    if server.socket is not None and _is_of_edge(server.socket, edge):
        yield "server.socket", _OF_EDGE
    yield from _edge(edge)
    for name in ("message_bytes", "body_bytes"):
        if limits.data_bytes > getattr(limits, name):
            yield (
                "limits.data_bytes",
                f"must not be above limits.{name} ({getattr(limits, name)}), in which it comes; "
                f"lower it, or raise limits.{name}",
            )
    if limits.answer_bytes < limits.data_bytes + ENVELOPE_BYTES:
        yield (
            "limits.answer_bytes",
            f"must be at least limits.data_bytes + {ENVELOPE_BYTES} ({limits.data_bytes + ENVELOPE_BYTES}), or no "
            "answer could hold the largest message; raise it, or lower limits.data_bytes",
        )
    if limits.all_outbox_bytes < 4 * limits.outbox_bytes:
        yield (
            "limits.all_outbox_bytes",
            f"must be at least four times limits.outbox_bytes ({4 * limits.outbox_bytes}), or a few slow readers keep "
            "everybody out; raise it, or lower limits.outbox_bytes",
        )
    if limits.groups_per_client < limits.groups_per_connection:
        yield (
            "limits.groups_per_client",
            f"must not be below limits.groups_per_connection ({limits.groups_per_connection}), or one connection could "
            "not have what it may; raise it, or lower limits.groups_per_connection",
        )
    asked_s = ANSWER_S if auth.mode == "callback" else 0.0  # when its turn has come
    if limits.handshake_wait_s + asked_s >= edge.read_timeout_s:
        than = f"{asked_s:g} s and more below" if asked_s else "below"
        yield (
            "limits.handshake_wait_s",
            f"must be {than} edge.read_timeout_s ({edge.read_timeout_s}), or the edge cuts those who wait; "
            "lower it, or raise edge.read_timeout_s",
        )
    if config.events.enabled and config.broker.kind == "memory":
        yield "events.enabled", "needs Redis to write to; set broker.kind to redis, or events.enabled to false"
    if config.events.url is not None and not config.events.enabled:
        yield "events.url", "nothing is written that could go there; set events.enabled to true, or leave it out"
    if config.events.key is not None and config.events.key_file is not None:
        yield "events.key", "cannot be beside events.key_file; leave one of them out"


def _items(key: str, name: str, items: Sequence[NamedKey | NamedApiKey]) -> Iterator[tuple[str, str]]:
    names = [getattr(item, name) for item in items]
    if None in names:
        yield key, f"each needs a {name}"
    if len(set(names)) < len(names):
        yield key, f"no two may have the same {name}"
    if any((item.key is None) == (item.key_file is None) for item in items):
        yield key, "each needs either key or key_file"


def _trunk(config: Config) -> Iterator[tuple[str, str]]:
    server, trunk, edge = config.server, config.trunk, config.edge
    if trunk.key is not None and trunk.key_file is not None:
        yield "trunk.key", "cannot be beside trunk.key_file; leave one of them out"
    if trunk.port and trunk.key is None and trunk.key_file is None:
        yield (
            "trunk.key",
            "is needed for trunk.port, or whoever reaches it may speak for any client; set it or trunk.key_file",
        )
    if trunk.port and trunk.port in (server.port, config.internal.port):
        yield "trunk.port", "must differ from server.port and internal.port; 8002 is usual"
    if trunk.socket is not None and trunk.socket == server.socket:
        yield "trunk.socket", "must not be server.socket: whoever reaches an edge reaches that; choose another path"
    if trunk.socket is not None and (UNIX + trunk.socket in (edge.internal, *edge.upstreams)):
        yield "trunk.socket", "must be none of edge.upstreams and not edge.internal; choose another path"
    if trunk.socket is not None and _is_of_edge(trunk.socket, edge):
        yield "trunk.socket", _OF_EDGE


def _edge(edge: EdgeSettings) -> Iterator[tuple[str, str]]:
    """What nginx refuses, or warns of and does otherwise than is meant."""
    listeners = {"edge.port": listener(edge.address, edge.port)}
    if edge.tls_port:
        listeners["edge.tls_port"] = listener(edge.address, edge.tls_port)
    listeners["edge.internal"] = edge.internal
    listeners["edge.calls_port"] = listener("127.0.0.1", edge.calls_port)
    for (name, one), (other_name, other) in itertools.combinations(listeners.items(), 2):
        if overlap(one, other):
            yield other_name, f"must differ from {name} ({one}), or nginx serves one of the two only; take a free port"
    for upstream in edge.upstreams:
        if upstream.startswith(UNIX) and _is_of_edge(upstream.removeprefix(UNIX), edge):
            yield "edge.upstreams", f"{upstream} {_OF_EDGE}"
        if upstream == edge.internal:
            yield "edge.internal", "must not be one of edge.upstreams, which are the service's; choose another"
    if edge.worker_connections > edge.nofile:
        yield (
            "edge.worker_connections",
            f"must not be above edge.nofile ({edge.nofile}), as each connection is an open file; "
            "lower it, or raise edge.nofile",
        )


def _is_of_edge(path: str, edge: EdgeSettings) -> bool:
    folder, _, name = path.rpartition("/")
    return folder == os.path.normpath(edge.run_dir) and EDGE_SOCKET.fullmatch(name) is not None


def listener(address: str, port: int) -> str:
    """``address:port``, IPv6 in brackets."""
    return f"{bracketed(address)}:{port}"


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach ``address``. A host name other than localhost counts as no."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
