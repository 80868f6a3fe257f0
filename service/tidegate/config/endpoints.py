"""Names and addresses of machines, as settings write them: what nginx, the service and browsers all understand.

They are read more strictly than any of the three does by itself. What one of them takes and another refuses, or takes
for something else, is found when it is written and not when it is used. Nothing is looked up.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from typing import Annotated, TypeAlias

from msgspec import Meta

UNIX = "unix:"
UNIX_BYTES = 107  # of a Unix socket's path (sys/un.h), without the zero at its end

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_WILDCARDS = ("0.0.0.0", "::")


def is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def is_ipv6(text: str) -> bool:
    """Without brackets and without a zone. ``::`` stands for two groups at least (RFC 5952, 4.2.2); some of those where
    it stands for one nginx does not take."""
    try:
        zone = ipaddress.IPv6Address(text).scope_id
    except ValueError:
        return False
    groups = len([group for group in text.split(":") if group]) + ("." in text)
    return zone is None and (groups == 8 or groups <= 6)


def bracketed(address: str) -> str:
    """As it stands before a port, in a URL, and in a sentence."""
    return f"[{address}]" if ":" in address else address


def is_name(text: str) -> bool:
    """A host name in lower case. What ends in a number is an IPv4 address or nothing (WHATWG URL, 3.5): a browser takes
    1.2.3 for 1.2.0.3, nginx for a name."""
    labels = text.split(".")
    return (
        len(text) <= 253 and all(_LABEL.fullmatch(label) for label in labels) and labels[-1].strip("0123456789") != ""
    )


def is_host(text: str) -> bool:
    """As in a URL: a name, an IPv4 address, or an IPv6 address in brackets."""
    if text.startswith("["):
        return text.endswith("]") and is_ipv6(text[1:-1])
    return is_ipv4(text) or is_name(text)


def is_address(text: str) -> bool:
    """As one listens on it: IPv6 without brackets, and no port."""
    return is_ipv4(text) or is_ipv6(text) or is_name(text.lower())


def is_host_port(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return is_host(host) and _PORT.fullmatch(port) is not None and int(port) <= 65535


def is_socket_path(text: str) -> bool:
    """Of a file, and with one way to write it, so that two settings that mean the same are the same."""
    return len(text) <= UNIX_BYTES and text != "/" and text[:2] != "//" and os.path.normpath(text) == text


def is_upstream(text: str) -> bool:
    """``host:port`` or ``unix:/path``."""
    if text.startswith(UNIX):
        return is_socket_path(text.removeprefix(UNIX))
    return is_host_port(text)


def is_named(upstream: str) -> bool:
    """Whether somebody has to be asked for its address."""
    return not upstream.startswith((UNIX, "[")) and not is_ipv4(upstream.rpartition(":")[0])


def is_network(text: str) -> bool:
    """An IP address, or a network with the length of its prefix."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def is_origin(text: str) -> bool:
    """``scheme://host`` or ``scheme://host:port``, as a browser would say it. The scheme is not looked at."""
    _, _, rest = text.partition("://")
    return is_host(rest) or is_host_port(rest)


def is_url(text: str) -> bool:
    """An origin and a path. Neither is looked at for characters, nor is a query told from a path."""
    scheme, _, rest = text.partition("://")
    return is_origin(f"{scheme}://{rest.partition('/')[0]}")


def are_different(items: Sequence[object]) -> bool:
    return len(set(items)) == len(items)


def overlap(one: str, other: str) -> bool:
    """Whether two listeners, ``address:port`` or ``unix:/path`` with IPv6 in brackets, are in each other's way. Of a
    name other than localhost only itself is known."""
    if one.startswith(UNIX) or other.startswith(UNIX):
        return one == other
    (host, _, port), (other_host, _, other_port) = one.rpartition(":"), other.rpartition(":")
    if port != other_port:
        return False
    hosts = {_bare(host), _bare(other_host)}
    return len(hosts) == 1 or any(host in _WILDCARDS for host in hosts)


def _bare(host: str) -> str:
    host = host.removeprefix("[").removesuffix("]")
    return str(ipaddress.IPv6Address(host)) if is_ipv6(host) else host.lower().replace("localhost", "127.0.0.1")


# As types of settings

HOST = r"([a-z0-9_][a-z0-9_.-]*|\[[0-9a-f:.]+\])"  # Of nginx's own meaning are spaces, quotes, ; { } and $.
PATH = r"[A-Za-z0-9_./@+=-]+"
PATH_LENGTH = 1024  # nginx takes words of 4 KiB
PATH_ALLOWED = "a path of A-Z a-z 0-9 _ . / @ + = -"

# What a pattern cannot say is said by ``is``, a function of the value.
Address: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_.:-]+\Z",
        extra={
            "allowed": "an IP address without brackets or a host name, without a port",
            "is": is_address,
        },
    ),
]
Host: TypeAlias = Annotated[
    str,
    Meta(
        pattern=rf"^{HOST}\Z",
        extra={
            "allowed": 'a host name or address in lower case, without a port, IPv6 in brackets ("[::1]")',
            "is": is_host,
        },
    ),
]
Origin: TypeAlias = Annotated[
    str,
    Meta(
        # A browser leaves the default port out, so that an origin with it would never match.
        pattern=rf"^(?!http://.*:80\Z|https://.*:443\Z)[a-z][a-z0-9+.-]*://{HOST}(:[0-9]{{1,5}})?\Z",
        extra={
            "allowed": "scheme://host[:port] in lower case, without a path and without the scheme's default port",
            "is": is_origin,
        },
    ),
]
HostPort: TypeAlias = Annotated[
    str,
    Meta(
        pattern=rf"^{HOST}:[0-9]+\Z",
        extra={
            "allowed": "host:port in lower case, IPv6 in brackets, the port from 1 to 65535",
            "is": is_host_port,
        },
    ),
]
Upstream: TypeAlias = Annotated[
    str,
    Meta(
        pattern=rf"^({HOST}:[0-9]+|unix:/{PATH})\Z",
        extra={
            "allowed": "host:port in lower case, IPv6 in brackets, the port from 1 to 65535, or unix:/path of "
            f"A-Z a-z 0-9 _ . / @ + = -, without . and .. and // in it, up to {UNIX_BYTES} characters",
            "is": is_upstream,
        },
    ),
]
SocketPath: TypeAlias = Annotated[
    str,
    Meta(
        pattern=rf"^/{PATH}\Z",
        extra={
            "allowed": "the absolute path of a file, of A-Z a-z 0-9 _ . / @ + = -, without . and .. and // in it, up "
            f"to {UNIX_BYTES} characters",
            "is": is_socket_path,
        },
    ),
]
Network: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-f.:]+(/[0-9]{1,3})?\Z",
        extra={"allowed": "an IP address or a network such as 10.0.0.0/8", "is": is_network},
    ),
]
Url: TypeAlias = Annotated[
    str,
    Meta(
        pattern=rf"^https?://{HOST}(:[0-9]+)?(/(?!\.+(/|\Z))[A-Za-z0-9_.~-]+)*/?\Z",
        max_length=PATH_LENGTH,
        extra={
            "allowed": "http://host[:port][/path] or https://…, in lower case but for the path, without user "
            f"and query, the port from 1 to 65535, up to {PATH_LENGTH} characters",
            "is": is_url,
        },
    ),
]
