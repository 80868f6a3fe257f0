"""Addresses to listen on: the names by which a port is asked, its URL, and a refusal that says which key is meant."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence
from pathlib import Path

from tornado.netutil import bind_sockets

_SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
_ANY = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


def bracketed(address: str) -> str:
    """As it stands in a URL or a Host header."""
    return f"[{address}]" if ":" in address else address


def names(hosts: Sequence[str], address: str) -> list[str]:
    """The hosts that a request to ``address`` may name: those that are configured, and the address itself. It is no
    name that others could let point here."""
    return [*hosts, *([] if address in _ANY else [bracketed(address)])]


def url_host(hosts: Sequence[str], address: str) -> str:
    """The host of a URL by which somebody on this machine reaches ``address`` and is let in."""
    host = _ANY.get(address, bracketed(address))
    return host if host in names(hosts, address) else hosts[0]


def bind(key: str, address: str, port: int, backlog: int) -> list[socket.socket]:
    """Sockets that listen on all addresses of the name ``address``, or the one. ``key`` is the port's key in the
    configuration. Raises OSError, which says in words what was wrong with which key."""
    try:
        return bind_sockets(port, address, backlog=backlog)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        cure = _cure(exc, key.partition(".")[0], port)
        raise OSError(
            f"{key}: cannot listen on {bracketed(address)}:{port}: {reason[0].lower()}{reason[1:]}{cure}"
        ) from exc


def _cure(exc: OSError, section: str, port: int) -> str:
    """What to do about it, where that is known. ``section``: of the configuration."""
    variable = f"TIDEGATE_{section.upper()}__"
    if exc.errno == errno.EADDRINUSE:
        return (
            f", perhaps by a node that still runs (ss -ltnp 'sport = :{port}' names it): end it, or set {section}.port "
            f"({variable}PORT) to another"
        )
    if exc.errno in (errno.EACCES, errno.EPERM) and port < 1024:
        return f": below 1024 it takes CAP_NET_BIND_SERVICE; set {section}.port ({variable}PORT) to a higher one"
    if exc.errno == errno.EADDRNOTAVAIL or isinstance(exc, socket.gaierror):
        return f": set {section}.address ({variable}ADDRESS) to one that this machine has"
    return ""


def backlog_limit() -> int | None:
    """How many connections the kernel lets wait to be accepted, whatever is asked for; None where it does not say."""
    with contextlib.suppress(OSError, ValueError):
        return int(_SOMAXCONN.read_text())
    return None
