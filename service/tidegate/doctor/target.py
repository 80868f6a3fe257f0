"""What is examined: the address of a WebSocket as a client is given it, and who the doctor is there."""

from __future__ import annotations

import ssl
from urllib.parse import SplitResult, urlencode, urlsplit

import msgspec

DEFAULT_PATH = "/ws-notifications/"
_PORTS = {"ws": 80, "wss": 443}


class Target(msgspec.Struct, frozen=True):
    """``client``: None where ``token`` or one of the ``headers``, such as a cookie, says who it is. ``ca``: a file with
    the authorities to trust beside the machine's own."""

    secure: bool
    host: str  # without brackets
    port: int
    path: str
    client: str | None = None
    token: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    ca: str | None = None

    @property
    def authority(self) -> str:
        """Host, and port where it is not the scheme's own: what a browser sends as Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Of a page that is served from the same host."""
        return f"{'https' if self.secure else 'http'}://{self.authority}"

    @property
    def url(self) -> str:
        return f"{'wss' if self.secure else 'ws'}://{self.authority}{self.path}"

    def target(self, **more: str) -> str:
        """What stands in the request's first line."""
        query = ({} if self.client is None else {"client": self.client}) | more
        return f"{self.path}?{urlencode(query)}" if query else self.path


def read(url: str) -> Target:
    """Raises ValueError, in words."""
    parts = _split(url)
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError("a token, a client or a user do not belong into the URL: TIDEGATE_TOKEN, --client")
    return Target(
        secure=parts.scheme == "wss",
        host=parts.hostname or "",
        port=parts.port or _PORTS[parts.scheme],
        path=parts.path if parts.path not in ("", "/") else DEFAULT_PATH,
    )


def is_visible(text: str) -> bool:
    """Whether it may stand in a request's line or in a header as it is."""
    return text.isascii() and text.isprintable() and " " not in text


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        known = parts.scheme in _PORTS and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        known = False
    if not known or not is_visible(url):
        raise ValueError("ws://HOST:PORT/PATH or wss://HOST:PORT/PATH, as clients are given it")
    return parts


def trusting(target: Target) -> ssl.SSLContext:
    """A context that verifies as a client does. Raises OSError for a file that is no certificate."""
    context = ssl.create_default_context(cafile=None)
    if target.ca is not None:
        context.load_verify_locations(target.ca)
    context.set_alpn_protocols(["http/1.1"])
    return context


def credulous() -> ssl.SSLContext:
    """A context that takes any certificate, so that what is behind a bad one can be measured all the same."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context
