"""The origins of pages that may connect (RFC 6454)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias

from tidegate.auth.hosts import split_host
from tidegate.core.errors import OriginNotAllowed

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*\Z", re.ASCII)
_ELSEWHERE = re.compile(r"(cross|same)-site", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}

_Origin: TypeAlias = tuple[str, str, int | None]  # scheme, host, port


def _split_origin(text: str) -> _Origin:
    """The origin with its scheme's default port filled in. Raises ValueError."""
    scheme, _, rest = text.partition("://")
    if not _SCHEME.match(scheme):
        raise ValueError("malformed origin")
    host, port = split_host(rest)
    scheme = scheme.lower()
    return scheme, host, _DEFAULT_PORTS.get(scheme) if port is None else port


class Origins:
    """Whose pages may connect: those of the host that the request itself names, and listed ones. Never those of opaque
    origin (``null``: sandboxed pages, local files), which anybody can have."""

    def __init__(self, allowed: Iterable[str], extra: Iterable[str] = ()) -> None:
        """Raises ValueError for what is no origin."""
        self._allowed = {_split_origin(name) for name in (*allowed, *extra)}

    def check(self, origin: str | None, host: str | None, site: str | None = None) -> None:
        """Origin, Host and Sec-Fetch-Site are headers. No Origin is no browser, and fine, unless one says that the page
        is another's and leaves out whose. Raises OriginNotAllowed."""
        if origin is None:
            if site is not None and _ELSEWHERE.search(site):
                raise OriginNotAllowed("the page's origin is not said, and it is another one")
            return
        try:
            given = _split_origin(origin)
        except ValueError:
            raise OriginNotAllowed("the page's origin is opaque or malformed") from None
        if not (given in self._allowed or self._is_same_host(given, host)):
            raise OriginNotAllowed("pages of this origin may not connect")

    def _is_same_host(self, origin: _Origin, host: str | None) -> bool:
        """Whether the page came from ``host``. Behind an edge that ends TLS the scheme is not known here: it is the
        page's, and gives the port that a browser leaves out of both."""
        scheme, name, port = origin
        if scheme not in _DEFAULT_PORTS:
            return False
        try:
            own, own_port = split_host(host or "")
        except ValueError:
            return False
        return (own, _DEFAULT_PORTS[scheme] if own_port is None else own_port) == (name, port)
