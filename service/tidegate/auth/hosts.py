"""The host names that a request may name, how a host is read from a header, and the networks that one is in."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from tidegate.core.errors import BadRequest, HostNotAllowed

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_][A-Za-z0-9_.-]*)(?::([0-9]{0,5}))?\Z", re.ASCII)


def split_host(text: str) -> tuple[str, int | None]:
    """Host, in lower case and IPv6 in its shortest form, and port. Raises ValueError."""
    found = _HOST.match(text)
    if found is None or int(found[2] or 0) > 65535:
        raise ValueError("malformed host")
    host, port = found[1].lower(), int(found[2]) if found[2] else None
    if host.startswith("["):
        host = f"[{ipaddress.IPv6Address(host[1:-1])}]"
    return host, port


class Hosts:
    """The host names that requests may name (against DNS rebinding). ``key`` is where they are configured."""

    def __init__(self, hosts: Iterable[str], key: str = "the configuration") -> None:
        """Raises ValueError for what is no host name."""
        self._key = key
        self._allowed = {split_host(name)[0] for name in hosts}

    def check(self, host: str | None) -> None:
        """``host``: the Host header. Its port does not matter, an edge may have another. Raises HostNotAllowed, and
        BadRequest where there is no host to speak of (RFC 9112, 3.2)."""
        try:
            name, _ = split_host(host or "")
        except ValueError:
            raise BadRequest("the request names no host, or a malformed one") from None
        if name not in self._allowed:
            raise HostNotAllowed(f"the request names a host that is not allowed here: {self._key} lists those that are")

    @staticmethod
    def is_address(host: str) -> bool:
        """Whether this Host header names an IP address. A page whose own name is made to point here cannot send it."""
        try:
            ipaddress.ip_address(split_host(host)[0].strip("[]"))
        except ValueError:
            return False
        return True


class Networks:
    """IP addresses by the networks that they are in: ``address in networks``."""

    def __init__(self, networks: Iterable[str]) -> None:
        """Raises ValueError for what is no network."""
        self._networks = [ipaddress.ip_network(text, strict=False) for text in networks]

    def __contains__(self, address: str) -> bool:
        if not self._networks:
            return False
        try:
            known = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped is not None:
            known = known.ipv4_mapped  # as a socket of both families says it
        return any(known in network for network in self._networks)
