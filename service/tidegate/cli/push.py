"""``tidegate push``: one message, through the HTTP API of a running gateway."""

from __future__ import annotations

import argparse
import os

import msgspec

from tidegate.cli.api_client import ApiClient
from tidegate.cli.command import KEY_NOTE, LoadConfig, Usage, add_json, add_url, read_stdin, until_reader_leaves
from tidegate.cli.terminal import progress
from tidegate.core.model import is_id, is_traceparent

DESCRIPTION = f"Push one message. {KEY_NOTE}"
EXAMPLES = (
    """tidegate push --client alice '{"n": 1}'""",
    "echo '[1, 2]' | tidegate push --group news --key order-17 -",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    address = parser.add_mutually_exclusive_group(required=True)
    address.add_argument("--client", metavar="ID", help="to one client")
    address.add_argument("--group", metavar="NAME", help="to a group")
    address.add_argument("--all", action="store_true", help="to everybody")
    parser.add_argument("data", metavar="DATA", help="JSON; - reads it from standard input")
    parser.add_argument("--key", help="an idempotency key: repeated within 5 minutes, it is the same push")
    parser.add_argument("--conflate", metavar="WORD", help="of messages with this word slow clients get the newest")
    parser.add_argument("--traceparent", metavar="SPAN", help="the span that pushes, which `tidegate trace` shows")
    add_url(parser)
    add_json(parser, "the position as JSON")


def run(args: argparse.Namespace, load_config: LoadConfig) -> int:
    config = load_config()
    name = args.client or args.group or ""
    if not args.all and not is_id(name):
        option = "--group" if args.client is None else "--client"
        raise Usage(f"{option} {name!r}: 1-128 characters of A-Z a-z 0-9 _ . @ -")
    if args.key is not None and not (1 <= len(args.key) <= 128 and args.key.isprintable()):
        raise Usage("--key: 1-128 printable characters")
    if args.conflate is not None and not is_id(args.conflate):
        raise Usage("--conflate: 1-128 characters of A-Z a-z 0-9 _ . @ -")
    if args.traceparent is not None and not is_traceparent(args.traceparent):
        raise Usage(f"--traceparent {args.traceparent!r}: as W3C Trace Context has it, in lower case")
    data = read_stdin() if args.data == "-" else os.fsencode(args.data)
    try:
        data.decode()
        msgspec.json.decode(data, type=msgspec.Raw)
    except UnicodeDecodeError:
        raise Usage("the data is not UTF-8") from None
    except (msgspec.DecodeError, RecursionError):
        raise Usage("""the data is not JSON; text needs quotes of its own: '"hello"'""") from None
    path = "/api/all" if args.all else f"/api/{'clients' if args.client else 'groups'}/{name}"
    headers = {} if args.key is None else {"Idempotency-Key": args.key.encode().decode("latin-1")}
    if args.traceparent is not None:
        headers["traceparent"] = args.traceparent
    word = b"" if args.conflate is None else b',"conflate":"%b"' % args.conflate.encode()
    body = b'{"data":%b%b}' % (data, word)
    service = ApiClient(args.url, config)
    with progress(f"pushing to {service.url}"):
        pushed = service.call("POST", f"{path}/push", _Pushed, body, headers)
    with until_reader_leaves():
        print(msgspec.json.encode(pushed).decode() if args.json else f"{pushed.stream} {pushed.epoch}:{pushed.offset}")
    return 0


class _Pushed(msgspec.Struct):
    stream: str
    epoch: str
    offset: int
