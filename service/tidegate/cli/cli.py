"""The commands ``push``, ``tail`` and ``token``. The first two speak to a running service through its HTTP API.

Exit codes: 0 done, 1 refused or failed, 2 a wrong command line. Faults are said in words on standard error.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from tidegate.auth import tokens as auth
from tidegate.config.settings import Config, InternalSettings
from tidegate.core import protocol
from tidegate.core.model import ALL, Message, Position, is_id, is_position, is_stream
from tidegate.core.patterns import is_pattern

_T = TypeVar("_T")

TIMEOUT_S = 10.0
POLL_S = 0.5
RETRY_S = 1.0
PAGE = 1000

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Line breaks to some programs and orders to some terminals. In JSON they stand in strings only.
_UNSEEN = re.compile("[\x7f-\x9f\u2028\u2029]")


class Usage(Exception):
    """The command line asks for what cannot be."""


class Failed(Exception):
    """In words: what was refused, or what did not work. ``passing``: it may work later."""

    def __init__(self, words: str, *, passing: bool = False) -> None:
        self.passing = passing
        super().__init__(words)


def add_commands(subparsers: Any) -> None:
    """Adds the three to what ``ArgumentParser.add_subparsers`` returned; each sets ``run(args, config) -> int``."""
    url = {"default": None, "metavar": "URL", "help": "the internal port (default: as the configuration says)"}
    key_note = "The API key comes from TIDEGATE_API_KEY, else from the configuration."

    push = subparsers.add_parser("push", help="push a message", description=f"Push one message. {key_note}")
    address = push.add_mutually_exclusive_group(required=True)
    address.add_argument("--client", metavar="ID", help="to one client")
    address.add_argument("--group", metavar="NAME", help="to a group")
    address.add_argument("--all", action="store_true", help="to everybody")
    push.add_argument("data", metavar="DATA", help="JSON; - reads it from standard input")
    push.add_argument("--key", help="an idempotency key: repeated within 5 minutes, it is the same push")
    push.add_argument("--url", **url)
    push.add_argument("--json", action="store_true", help="the position as JSON")
    push.set_defaults(run=_command(_push))

    tail = subparsers.add_parser(
        "tail",
        help="follow a stream",
        description="Print the messages of a stream as they come, one in a line: offset, time, who published it (- for "
        f"the application), data. Gaps are said on standard error. {key_note}",
    )
    tail.add_argument("stream", metavar="STREAM", help="client:ID, group:NAME or all")
    tail.add_argument("--since", metavar="WHERE", help="start (the oldest kept) or EPOCH:OFFSET (default: from now on)")
    tail.add_argument("--count", type=int, metavar="N", help="end after N messages")
    tail.add_argument("--url", **url)
    tail.add_argument("--json", action="store_true", help="events as JSON, one in a line; gaps too")
    tail.set_defaults(run=_command(_tail))

    token = subparsers.add_parser(
        "token",
        help="make a token for a client",
        description="Print a JWT, signed as the section auth of the configuration says. Patterns may be given several "
        "times or with commas; without any, no group is allowed.",
    )
    token.add_argument("--sub", required=True, metavar="CLIENT", help="whose token it is")
    token.add_argument("--groups", action="append", default=[], metavar="PATTERN", help="groups it may join")
    token.add_argument("--publish", action="append", default=[], metavar="PATTERN", help="groups it may publish to")
    token.add_argument("--expires", default="1h", metavar="TIME", help="30s, 15m, 1h or 7d from now (default: 1h)")
    token.add_argument("--key-file", metavar="FILE", help="the key to sign with (default: auth.key or auth.key_file)")
    token.add_argument("--kid", help="the key's name in a JWKS file")
    token.set_defaults(run=_command(_token))


def _command(run: Callable[[argparse.Namespace, Config], None]) -> Callable[[argparse.Namespace, Config], int]:
    def command(args: argparse.Namespace, config: Config) -> int:
        try:
            run(args, config)
            sys.stdout.flush()
        except Usage as exc:
            return _say(str(exc), 2)
        except Failed as exc:
            return _say(str(exc), 1)
        except KeyboardInterrupt:
            return _say("interrupted", 1)
        except BrokenPipeError:  # the reader has what it wanted, as head(1) does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again when it ends
        return 0

    return command


def _say(words: str, code: int = 0) -> int:
    print(f"tidegate: {words}", file=sys.stderr, flush=True)
    return code


# push


def _push(args: argparse.Namespace, config: Config) -> None:
    name = args.client or args.group or ""
    if not args.all and not is_id(name):
        raise Usage("a client or group is 1-128 characters of A-Z a-z 0-9 _ . @ -")
    if args.key is not None and not (1 <= len(args.key) <= 128 and args.key.isprintable()):
        raise Usage("--key: 1-128 printable characters")
    data = sys.stdin.buffer.read() if args.data == "-" else os.fsencode(args.data)
    try:
        data.decode()
        msgspec.json.decode(data, type=msgspec.Raw)
    except UnicodeDecodeError:
        raise Usage("the data is not UTF-8") from None
    except (msgspec.DecodeError, RecursionError):
        raise Usage("""the data is not JSON; text needs quotes of its own: '"hello"'""") from None
    path = "/api/all" if args.all else f"/api/{'clients' if args.client else 'groups'}/{name}"
    headers = {} if args.key is None else {"Idempotency-Key": args.key.encode().decode("latin-1")}
    pushed = _ApiClient(args.url, config).call("POST", f"{path}/push", _Pushed, b'{"data":%b}' % data, headers)
    if args.json:
        print(msgspec.json.encode(pushed).decode())
    else:
        print(f"{pushed.stream} {pushed.epoch}:{pushed.offset}")


class _Pushed(msgspec.Struct):
    stream: str
    epoch: str
    offset: int


# tail


class _Entry(msgspec.Struct):
    offset: int
    time: int
    data: msgspec.Raw
    client: str | None = None


class _Page(msgspec.Struct):
    stream: str
    epoch: str
    offset: int
    top: int
    messages: list[_Entry]
    more: bool
    gap: dict[str, Any] | None = None


def _tail(args: argparse.Namespace, config: Config) -> None:
    if not is_stream(args.stream):
        raise Usage("a stream is client:ID, group:NAME or all")
    if args.count is not None and args.count < 1:
        raise Usage("--count: 1 or more")
    kind, _, name = args.stream.partition(":")
    path = f"/api/{kind}s/{name}/history" if name else f"/api/{ALL}/history"
    position = _start(args.since)
    service = _ApiClient(args.url, config)
    try:
        if args.since is None:
            page = service.call("GET", f"{path}?limit=1", _Page)
            position = Position(page.epoch, page.top)
        _follow(service, path, position, args.count, _as_event if args.json else _as_line)
    except KeyboardInterrupt:
        pass  # how one stops following


def _start(since: str | None) -> Position | None:
    if since in (None, "start"):
        return None
    epoch, _, offset = since.rpartition(":") if since else ("", "", "")
    if offset.isascii() and offset.isdecimal() and len(offset) <= 16:
        position = Position(epoch, int(offset))
        if is_position(position):
            return position
    raise Usage("--since: start or EPOCH:OFFSET, as push prints them")


def _follow(
    service: _ApiClient, path: str, position: Position | None, count: int | None, shown: Callable[[Message], bytes]
) -> None:
    left = sys.maxsize if count is None else count
    while True:
        query: dict[str, object] = {"limit": min(PAGE, left)}
        if position is not None:
            query |= {"epoch": position.epoch, "offset": position.offset}
        page = service.insist("GET", f"{path}?{urlencode(query)}", _Page)
        if page.gap is not None:
            _announce(page.gap, as_event=shown is _as_event)
        for entry in page.messages:
            line = _on_one_line(bytes(entry.data))
            message = Message(page.stream, page.epoch, entry.offset, entry.time, line, entry.client)
            sys.stdout.buffer.write(shown(message) + b"\n")
        sys.stdout.buffer.flush()
        left -= len(page.messages)
        if left <= 0:
            return
        position = Position(page.epoch, page.offset + len(page.messages))
        if not (page.more and page.messages):
            time.sleep(POLL_S)


def _announce(gap: dict[str, Any], *, as_event: bool) -> None:
    if as_event:
        sys.stdout.buffer.write(msgspec.json.encode({"type": "gap", **gap}) + b"\n")
    elif gap["reason"] == "reset":
        _say(f"{gap['stream']} was started anew, its epoch is {gap['epoch']}: what came before may be lost")
    else:
        _say(f"{gap['stream']}: messages {gap['from']} to {gap['to']} are lost ({gap['reason']})")


def _as_event(message: Message) -> bytes:
    return protocol.encode_message(message)


def _as_line(message: Message) -> bytes:
    when = datetime.fromtimestamp(message.time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    fields = (str(message.offset), when.replace("+00:00", "Z"), message.client or "-")
    return " ".join(fields).encode() + b" " + message.data


def _on_one_line(data: bytes) -> bytes:
    """The same JSON. Outside of strings line breaks are white space, and inside they cannot be."""
    text = data.decode().replace("\n", " ").replace("\r", " ")
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


# token


def _token(args: argparse.Namespace, config: Config) -> None:
    if not is_id(args.sub):
        raise Usage("--sub: a client is 1-128 characters of A-Z a-z 0-9 _ . @ -")
    claims: dict[str, Any] = {"sub": args.sub, "exp": int(time.time()) + _seconds(args.expires)}
    for claim in ("groups", "publish"):
        patterns = [pattern for given in getattr(args, claim) for pattern in given.split(",")]
        if not all(map(is_pattern, patterns)):
            raise Usage(f"--{claim}: a pattern is 1-128 characters of A-Z a-z 0-9 _ . @ - and *")
        if patterns:
            claims[claim] = patterns
    try:
        token = auth.sign(config.auth, claims, key_file=args.key_file, kid=args.kid)
    except ValueError as exc:
        raise Failed(str(exc)) from None
    if config.auth.mode != "jwt":
        _say(f"note: auth.mode is {config.auth.mode}, so that the service does not look at tokens")
    print(token)


def _seconds(text: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd]?)", text, re.ASCII)
    if found is None:
        raise Usage("--expires: a time such as 30s, 15m, 1h or 7d")
    return int(found[1]) * _UNITS_S[found[2] or "s"]


# The service


class _ApiClient:
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
        key = (os.environ.get("TIDEGATE_API_KEY") or next(iter(config.internal.api_keys), "")).strip()
        if not (key.isascii() and key.isprintable()):
            raise Usage("TIDEGATE_API_KEY: visible ASCII characters only")
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._url = url
        self._connection, self._prefix = _connection(url)
        self._answered = False

    def call(
        self,
        method: str,
        path: str,
        kind: type[_T],
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> _T:
        """The answer. Raises Failed."""
        try:
            self._connection.request(method, self._prefix + path, body, {**self._headers, **(headers or {})})
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as exc:
            self._connection.close()
            raise Failed(f"{self._url} does not answer ({exc or type(exc).__name__})", passing=True) from None
        if response.status >= 300:
            raise Failed(_in_words(response.status, answer), passing=response.status in (429, 502, 503, 504))
        try:
            decoded = msgspec.json.decode(answer, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Failed(f"{self._url} is not the internal port of a gateway") from None
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
                    _say(f"{exc}; trying again")
                    told = True
                time.sleep(RETRY_S)
            else:
                if told:
                    _say(f"{self._url} answers again")
                return answer


def _default_url(internal: InternalSettings) -> str:
    """Raises Usage where the port is not known."""
    if internal.port == 0:
        raise Usage("internal.port is 0, which is any free one: say --url")
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(internal.address, internal.address)
    return f"http://[{address}]:{internal.port}" if ":" in address else f"http://{address}:{internal.port}"


def _connection(url: str) -> tuple[http.client.HTTPConnection, str]:
    """Not connected yet; and the path before each call's. Raises Usage."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Usage("--url: malformed") from None
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    if parts.scheme not in kinds or not parts.hostname or parts.username or parts.query or not url.isascii():
        raise Usage("--url: http://host:port")
    return kinds[parts.scheme](parts.hostname, port, timeout=TIMEOUT_S), parts.path.rstrip("/")


class _Error(msgspec.Struct):
    code: str
    message: str


class _Refusal(msgspec.Struct):
    error: _Error


def _in_words(status: int, answer: bytes) -> str:
    try:
        error = msgspec.json.decode(answer, type=_Refusal).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return f"the answer is {status}, and not from the internal port of a gateway"
    hints = {
        "broker_down": "; it may have been accepted all the same: repeat it with --key",
        "unauthorized": "; TIDEGATE_API_KEY may hold it",
    }
    return f"{error.code}: {error.message}{hints.get(error.code, '')}"
