"""``tidegate tail``: the messages of a stream as they come, read from the HTTP API of a running gateway."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import msgspec

from tidegate.cli.api_client import ApiClient
from tidegate.cli.command import KEY_NOTE, LoadConfig, Usage, add_json, add_url, note, until_reader_leaves
from tidegate.cli.terminal import paint
from tidegate.core import protocol
from tidegate.core.model import ALL, Message, Position, is_position, is_stream

DESCRIPTION = (
    "Print the messages of a stream as they come, one in a line: offset, time, who published it (- for the "
    f"application), data. Gaps are said on standard error. {KEY_NOTE}"
)
EXAMPLES = ("tidegate tail group:news --since start", "tidegate tail client:alice --count 1 --json")

POLL_S = 0.5
PAGE = 1000

# Line breaks to some programs and orders to some terminals. In JSON they stand in strings only.
_UNSEEN = re.compile("[\x7f-\x9f\u2028\u2029]")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stream", metavar="STREAM", help="client:ID, group:NAME or all")
    parser.add_argument(
        "--since", metavar="WHERE", help="start (the oldest kept) or EPOCH:OFFSET (default: from now on)"
    )
    parser.add_argument("--count", type=int, metavar="N", help="end after N messages")
    add_url(parser)
    add_json(parser, "events as JSON, one in a line; gaps too")


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


def run(args: argparse.Namespace, load_config: LoadConfig) -> int:
    config = load_config()
    if not is_stream(args.stream):
        raise Usage(f"{args.stream!r} is no stream: client:ID, group:NAME or all")
    if args.count is not None and args.count < 1:
        raise Usage(f"--count {args.count}: 1 or more")
    kind, _, name = args.stream.partition(":")
    path = f"/api/{kind}s/{name}/history" if name else f"/api/{ALL}/history"
    position = _start(args.since)
    service = ApiClient(args.url, config)
    try:
        if args.since is None:
            page = service.call("GET", f"{path}?limit=1", _Page)
            position = Position(page.epoch, page.top)
        with until_reader_leaves():
            _follow(service, path, position, args.count, _as_event if args.json else _as_line)
    except KeyboardInterrupt:
        pass  # how one stops following
    return 0


def _start(since: str | None) -> Position | None:
    if since in (None, "start"):
        return None
    epoch, _, offset = since.rpartition(":") if since else ("", "", "")
    if offset.isascii() and offset.isdecimal() and len(offset) <= 16:
        position = Position(epoch, int(offset))
        if is_position(position):
            return position
    raise Usage(f"--since {since}: start or EPOCH:OFFSET, as push prints them")


def _follow(
    service: ApiClient, path: str, position: Position | None, count: int | None, shown: Callable[[Message], bytes]
) -> None:
    left = sys.maxsize if count is None else count
    told = False
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
            if not told:
                note(f"waiting for messages of {page.stream}; Ctrl-C ends it")
                told = True
            time.sleep(POLL_S)


def _announce(gap: dict[str, Any], *, as_event: bool) -> None:
    if as_event:
        sys.stdout.buffer.write(msgspec.json.encode({"type": "gap", **gap}) + b"\n")
    elif gap["reason"] == "reset":
        note(f"{gap['stream']} was started anew, its epoch is {gap['epoch']}: what came before may be lost")
    else:
        note(f"{gap['stream']}: messages {gap['from']} to {gap['to']} are lost ({gap['reason']})")


def _as_event(message: Message) -> bytes:
    return protocol.encode_message(message)


def _as_line(message: Message) -> bytes:
    when = datetime.fromtimestamp(message.time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    fields = " ".join((str(message.offset), when.replace("+00:00", "Z"), message.client or "-"))
    return paint(fields, "dim", sys.stdout).encode() + b" " + message.data


def _on_one_line(data: bytes) -> bytes:
    """The same JSON. Outside of strings line breaks are white space, and inside they cannot be."""
    text = data.decode().replace("\n", " ").replace("\r", " ")
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()
