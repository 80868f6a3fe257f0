"""The HTTP API of a running gateway, for the commands that speak to one."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit, urlunsplit

import msgspec

from tidegate.auth import api_keys
from tidegate.cli.command import Failed, Usage, note
from tidegate.cli.terminal import visible
from tidegate.config.endpoints import bracketed
from tidegate.config.settings import Config, InternalSettings
from tidegate.core.errors import Unusable

_T = TypeVar("_T")

TIMEOUT_S = 10.0  # of a step: to connect, or until more of an answer comes
WHOLE_S = 60.0  # of an answer; what drips is no gateway's
RETRY_S = 1.0
ANSWER_BYTES = 256 * 1024 * 1024  # no answer is as large

# Of decoding what anybody may have sent: no JSON, another shape, no UTF-8, or too deep.
_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class ApiClient:
    """The HTTP API at ``url``, or where the configuration says that it is. Neither proxies nor redirects are followed:
    the key is for this service alone."""

    def __init__(self, url: str | None, config: Config) -> None:
        """Raises Usage."""
        self._headers = {"Content-Type": "application/json"}
        if url is None:
            url = _default_url(config.internal)
            # The address need not be a name that the service answers to.
            name = urlsplit(url).netloc.rpartition(":")[0]
            if name not in config.internal.hosts:
                self._headers["Host"] = config.internal.hosts[0]
        try:
            key = (os.environ.get("TIDEGATE_API_KEY") or api_keys.first(config.internal.api_keys)).strip()
        except Unusable as exc:
            raise Usage(str(exc)) from None
        if not (key.isascii() and key.isprintable()):
            raise Usage("TIDEGATE_API_KEY: visible ASCII characters only")
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self.url = url
        self._connection, self._prefix = _connection(url)
        self._answered = False

    def close(self) -> None:
        self._connection.close()

    def call(
        self,
        method: str,
        path: str,
        kind: type[_T],
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> _T:
        """The answer. Raises Failed."""
        with _cut_after(WHOLE_S, self._connection) as cut:
            try:
                self._connection.request(method, self._prefix + path, body, {**self._headers, **(headers or {})})
                response = self._connection.getresponse()
                answer = response.read(ANSWER_BYTES)
                if cut.is_set():  # it ended by that, which need not be an error
                    raise TimeoutError
            except (OSError, http.client.HTTPException) as exc:
                self._connection.close()
                why = f"no whole answer within {WHOLE_S:g} s" if cut.is_set() else _reason(exc)
                raise Failed(f"{self.url} does not answer ({why})", passing=True) from None
        if not response.isclosed():  # it goes on, or ends only with its connection
            self._connection.close()
        if len(answer) == ANSWER_BYTES:
            raise Failed(f"{self.url} is not the internal port of a gateway")
        if response.status >= 300:
            raise Failed(_in_words(response.status, answer), passing=response.status in (429, 502, 503, 504))
        try:
            decoded = msgspec.json.decode(answer, type=kind)
        except _NO_JSON:
            raise Failed(f"{self.url} is not the internal port of a gateway") from None
        self._answered = True
        return decoded

    def insist(self, method: str, path: str, kind: type[_T]) -> _T:
        """The answer, however long the service is away once it has answered. Raises Failed."""
        told = False
        while True:
            try:
                answer = self.call(method, path, kind)
            except Failed as exc:
                if not (exc.passing and self._answered):
                    raise
                if not told:
                    note(f"{exc}; trying again")
                    told = True
                time.sleep(RETRY_S)
            else:
                if told:
                    note(f"{self.url} answers again")
                return answer


@contextlib.contextmanager
def _cut_after(seconds: float, connection: http.client.HTTPConnection) -> Iterator[threading.Event]:
    """Cuts the connection where the block takes longer, and sets the event then."""
    cut = threading.Event()

    def end() -> None:
        cut.set()
        if (sock := connection.sock) is not None:
            with contextlib.suppress(OSError):  # it has gone by itself
                sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield cut
    finally:
        timer.cancel()


def _reason(exc: Exception) -> str:
    """With what to do about it, where that is known."""
    if isinstance(exc, ConnectionRefusedError):
        return "nothing listens there: start the gateway with tidegate serve, or say --url or internal.port"
    if isinstance(exc, TimeoutError):
        return f"no answer within {TIMEOUT_S:g} s"
    if isinstance(exc, socket.gaierror):
        return "the name has no address here; see --url and internal.address"
    return str(exc) or type(exc).__name__


def _default_url(internal: InternalSettings) -> str:
    """Raises Usage where the port is not known."""
    if internal.port == 0:
        raise Usage("internal.port is 0, which is any free one: say --url")
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(internal.address, internal.address)
    return f"http://{bracketed(address)}:{internal.port}"


def _connection(url: str) -> tuple[http.client.HTTPConnection, str]:
    """Not connected yet; and the path before each call's. Raises Usage."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Usage("--url: the port is no number up to 65535; as http://127.0.0.1:8001 or http://[::1]:8001") from None
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    if parts.scheme not in kinds or not parts.hostname or parts.username or parts.query or not url.isascii():
        raise Usage(f"--url {_without_secrets(parts)}: http://HOST:PORT, as http://127.0.0.1:8001 or http://[::1]:8001")
    return kinds[parts.scheme](parts.hostname, port, timeout=TIMEOUT_S), parts.path.rstrip("/")


def _without_secrets(parts: SplitResult) -> str:
    """A URL that may be shown."""
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


class _Error(msgspec.Struct):
    code: str
    message: str


class _Refusal(msgspec.Struct):
    error: _Error


def _in_words(status: int, answer: bytes) -> str:
    try:
        error = msgspec.json.decode(answer, type=_Refusal).error
    except _NO_JSON:
        return f"the answer is {status}, and not from the internal port of a gateway"
    hints = {
        "broker_down": "; it may have been accepted all the same: repeat it with --key",
        "unauthorized": "; TIDEGATE_API_KEY may hold the key, or internal.api_keys of the configuration",
    }
    return visible(f"{error.code}: {error.message}{hints.get(error.code, '')}")
