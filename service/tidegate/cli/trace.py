"""``tidegate trace``: what became of a message, or is the matter with a client, asked of a running gateway."""

from __future__ import annotations

import argparse
import contextlib
import sys
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import msgspec

from tidegate.cli.api_client import ApiClient
from tidegate.cli.command import KEY_NOTE, Failed, LoadConfig, Usage, add_json, add_url, until_reader_leaves, write_json
from tidegate.cli.terminal import paint, visible
from tidegate.core.model import Position, is_id, is_position, is_stream

DESCRIPTION = (
    "Say what became of a message: whether it is journalled, which nodes heard it, to which connections it was "
    "written, who confirmed it, and who did not get it and why. Or what a client did: handshakes, refusals, joins, "
    "gaps, closes. All nodes are asked; each remembers the newest, and forgets all when it ends. The answer comes "
    f"first, then where the message went, then step by step how. {KEY_NOTE}"
)
EXAMPLES = (
    "tidegate trace group:news 42",
    "tidegate trace group:news 42 --client alice",
    "tidegate trace client:alice k3f9:17",
    "tidegate trace --client alice",
    "tidegate trace --refused",
)

SHOWN = 20  # connections, of those that are listed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stream", metavar="STREAM", nargs="?", help="client:ID, group:NAME or all")
    parser.add_argument(
        "position", metavar="WHERE", nargs="?", help="OFFSET or EPOCH:OFFSET, as push prints it (default: the newest)"
    )
    parser.add_argument("--client", metavar="ID", help="only what concerns this client; alone: all that it did")
    parser.add_argument("--refused", action="store_true", help="the newest refused handshakes")
    parser.add_argument("--limit", type=int, metavar="N", default=100, help="steps and connections (default: 100)")
    add_url(parser)
    add_json(parser, "the answer of the API")


class _Any(msgspec.Struct):
    """An answer of which only what is shown must be as it is described."""

    verdicts: list[dict[str, Any]] = []
    steps: list[dict[str, Any]] = []
    connections: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    workers: dict[str, int] = {}
    nodes: list[dict[str, Any]] = []
    refusals: list[dict[str, Any]] = []
    journal: dict[str, Any] = {}
    stream: str = ""
    epoch: str = ""
    offset: int = 0
    client: str = ""


def run(args: argparse.Namespace, load_config: LoadConfig) -> int:
    path = _path(args)
    with contextlib.closing(ApiClient(args.url, load_config())) as service, until_reader_leaves():
        if args.json:
            write_json(bytes(service.call("GET", path, msgspec.Raw)))
            return 0
        found = service.call("GET", path, _Any)
        try:
            lines = _refused(found) if args.refused else _lines(found)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError):
            raise Failed(f"{service.url} does not answer as a node of this version does; --json shows what") from None
        for line in lines:
            print(_shown(line))
        sys.stdout.flush()
    return 0


def _shown(line: str) -> str:
    """The answer itself is in colour."""
    shown = visible(line)
    return paint(shown, "bold", sys.stdout) if shown.startswith("  => ") else shown


def _path(args: argparse.Namespace) -> str:
    if not 1 <= args.limit <= 1000:
        raise Usage(f"--limit {args.limit}: from 1 to 1000")
    query: dict[str, object] = {"limit": args.limit}
    if args.refused:
        if args.stream or args.client:
            raise Usage("--refused: of all; leave out STREAM and --client")
        return f"/api/refusals?{urlencode(query)}"
    if args.client is not None:
        if not is_id(args.client):
            raise Usage(f"--client {args.client!r}: a client's id is 1-128 characters of A-Z a-z 0-9 _ . @ -")
        query["client"] = args.client
    if args.stream is not None:
        if not is_stream(args.stream):
            raise Usage(f"{args.stream!r} is no stream: client:ID, group:NAME or all")
        query |= {"stream": args.stream, **_position(args.position)}
    elif args.client is None:
        raise Usage("of what? STREAM and an offset, or --client, or --refused")
    return f"/api/trace?{urlencode(query)}"


def _position(text: str | None) -> dict[str, object]:
    if text is None:
        return {}
    epoch, _, offset = text.rpartition(":")
    if offset.isascii() and offset.isdecimal() and len(offset) <= 16:
        if not epoch:
            return {"offset": offset}
        if is_position(Position(epoch, int(offset))):
            return {"epoch": epoch, "offset": offset}
    raise Usage(f"{text!r} is no position: OFFSET or EPOCH:OFFSET, as push prints them")


def _lines(found: _Any) -> list[str]:
    """The answer, where it went, and how."""
    lines = [
        f"{found.stream} {found.epoch}:{found.offset}{_journalled(found.journal)}" if found.stream else found.client
    ]
    lines += [f"  => {each['code']}: {each['words']}" for each in found.verdicts]
    if found.connections:
        lines += ["", "connections:"]
        lines += [f"  {_connection(each)}" for each in found.connections[:SHOWN]]
        rest = sum(found.counts.values()) - SHOWN
        if rest > 0:
            lines.append(f"  and {rest} more (--json lists up to --limit)")
    lines += [f"  handed to worker {worker} for {count} connections" for worker, count in found.workers.items()]
    lines += ["", "steps:"] if found.steps else ["", "no steps are remembered"]
    lines += [f"  {_step(each, with_client=not found.client)}" for each in found.steps]
    silent = [str(each["node"]) for each in found.nodes if not each.get("answered")]
    heard = [str(each["node"]) for each in found.nodes if each.get("answered")]
    lines += ["", f"answered by {', '.join(heard)}" + (f"; not by {', '.join(silent)}" if silent else "")]
    return lines


def _journalled(journal: dict[str, Any]) -> str:
    if journal.get("state") != "kept":
        return f": journal {journal.get('state')}"
    by = f" by client {journal['client']}" if journal.get("client") else ""
    trace = f", traceparent {journal['traceparent']}" if journal.get("traceparent") else ""
    return f": journalled {_time(journal['time'])}{by}, {journal['bytes']} bytes{trace}"


def _connection(each: dict[str, Any]) -> str:
    if "positions" not in each:
        more = f" over worker {each['worker']}" if each.get("worker") else ""
        more += " (from the journal)" if each.get("replayed") else ""
        closed = each.get("closed")
        more += f", closed {_time(closed['time_ms'])} with {closed['code']}" if closed else ""
        return f"{each['client']} {each['connection']} on {each['node']}: {each['state']}{more}"
    places = [
        f"{stream} {at['epoch']}:{at['offset']} {at['state']}"
        + (f" confirmed {at['confirmed']}" if at.get("confirmed") is not None else "")
        for stream, at in each["positions"].items()
    ]
    unsent = f", {each['unsent_bytes']} bytes unsent" if each.get("unsent_bytes") else ""
    return f"{each['connection']} on {each['node']} since {_time(each['since_ms'])}{unsent}: {'; '.join(places)}"


def _step(each: dict[str, Any], *, with_client: bool) -> str:
    names = [each.get("node") or "-", each.get("client") if with_client else None, each.get("connection")]
    return " ".join([_time(each["time_ms"]), *(str(name) for name in names if name), "-", str(each["words"])])


def _refused(found: _Any) -> list[str]:
    return [
        f"{_time(each['time_ms'])} {each['node']} {each['status']} {each['code']} "
        f"client={each['client'] or '-'} address={each['address'] or '-'} {each['message']}"
        for each in found.refusals
    ] or ["no refused handshake is remembered"]


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
