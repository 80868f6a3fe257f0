"""A running Tidegate from outside, wherever it is: handshakes, heartbeats, calls and pushes at a modest fixed rate.

It puts load on somebody's machine: little, unless it is told otherwise, and after a question where that machine is not
this one. It connects as clients that it makes up (``bench-…``), pushes to them and to one group of that name alone, and
leaves. CPU and memory of servers can't be seen from here.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import logging
import secrets
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import jwt
import uvloop

from bench.load.remote_client import Crew, RemoteError, Target
from bench.report.comparison import Cell
from bench.report.figures import number
from bench.report.stats import LIMIT_SHARE

# More than this is a load test, which wants to be planned with those whose machine it is.
MOST_CONNECTIONS, MOST_RATE, MOST_SECONDS = 1000, 1000, 60
TOKEN_S = 3600
FOOTNOTE = "Rates are what was asked for, not what is possible; latencies count from when each was due."


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "url",
        help="a running Tidegate from outside: latencies at a modest rate",
        epilog="A secret may be given as @FILE. Pushed messages stay in the journals of clients and of a group named "
        "bench-… for as long as history is kept.",
    )
    parser.add_argument("url", help="ws://host:port/ws-notifications/, or wss://")
    parser.add_argument("--token", type=_secret, help="a JWT; all connections are that client's")
    parser.add_argument("--token-key", type=_secret, help="an HS256 key to make tokens with, for a client each")
    parser.add_argument(
        "--claim", action="append", default=[], metavar="NAME=VALUE", help="of these tokens, as iss, aud"
    )
    parser.add_argument(
        "--push-url", default="", help="the internal API, http://host:8001; without it nothing is pushed"
    )
    parser.add_argument("--api-key", type=_secret, help="for the internal API")
    parser.add_argument("--method", default="echo", help="to call; its answer must be what it was given (%(default)s)")
    parser.add_argument("--connections", type=_up_to(MOST_CONNECTIONS), default=20, help="default: %(default)s")
    parser.add_argument("--rate", type=_up_to(MOST_RATE), default=50, help="per second; default: %(default)s")
    parser.add_argument("--seconds", type=_up_to(MOST_SECONDS), default=5, help="for each thing; default: %(default)s")
    parser.add_argument("--insecure", action="store_true", help="take any certificate")
    parser.add_argument("--yes", action="store_true", help="do not ask before loading another machine")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    parser.set_defaults(run=run)


def _up_to(most: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"1 to {most}, not {text}")
        return int(text)

    return whole


def _secret(text: str) -> str:
    try:
        return Path(text[1:]).read_text().strip() if text.startswith("@") else text
    except OSError as exc:
        raise argparse.ArgumentTypeError(f"{text[1:]}: {exc.strerror}") from None


def run(args: argparse.Namespace) -> int:
    """0 when all was measured, 1 when there is nobody, when a client is refused, or when something was wrong; 2 where
    nothing was tried; 130 after Ctrl-C."""
    logging.getLogger("picows").setLevel(logging.CRITICAL)  # what it would say is in what it raises
    try:
        target = _target(args)
        hosts = [name for name in _hosts(target) if not _is_loopback(name)]
        if hosts and not args.yes and not _agreed(hosts, args):
            return 2
    except ValueError as exc:
        print(exc, file=sys.stderr)
        return 2
    except OSError as exc:
        print(f"{args.url}: {exc}", file=sys.stderr)
        return 1
    found: dict[str, Cell] = {}
    try:
        uvloop.run(_measure(Crew(target, args.rate, args.seconds), args.method, bool(target.push_url), found))
    except RemoteError as exc:
        print(exc, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if found:
            print(f"{table(found)}\n{FOOTNOTE}")
            _write(args, found)
    return 1 if any(_fault(cell) for cell in found.values()) else 0


async def _measure(crew: Crew, method: str, push: bool, found: dict[str, Cell]) -> None:
    """``found`` has what is done so far."""
    steps: list[tuple[str, Callable[[], Awaitable[Cell]]]] = [
        ("handshake", crew.connect),
        ("text heartbeat", crew.heartbeats),
        ("JSON ping", crew.pings),
        (f"call {method}", lambda: crew.calls(method)),
    ]
    if push:
        steps += [("push to a client", crew.push_to_clients), (f"push to a group of {crew.size}", crew.push_to_group)]
    for name, step in steps:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{name} …", end="\r", file=sys.stderr, flush=True)
        found[name] = await step()
    await crew.leave()


def table(found: dict[str, Cell]) -> str:
    """For a terminal."""
    rows = [["", "p50 ms", "p99 ms", "most ms", "per s", "count"]]
    for name, cell in found.items():
        if fault := _fault(cell):
            rows.append([name, f"no figures: {fault}"])
            continue
        _, most_ms = cell.curves["latency"][-1]
        values = [cell.values["p50_ms"], cell.values["p99_ms"], most_ms, cell.values["rate"]]
        rows.append([name, *map(number, values), str(cell.notes["count"])])
    width = max(len(row[0]) for row in rows)
    return "\n".join(
        row[0].ljust(width) + ("  " + row[1] if len(row) == 2 else "".join(each.rjust(9) for each in row[1:]))
        for row in rows
    )


def _fault(cell: Cell) -> str:
    if not cell.fault and cell.client_share >= LIMIT_SHARE:
        return f"this client was the limit ({cell.client_share:.0%} of its core)"
    return cell.fault


# Where, and as whom


def _target(args: argparse.Namespace) -> Target:
    """Raises ValueError."""
    try:
        parts, api = urlsplit(args.url), urlsplit(args.push_url)
        _ = parts.port, api.port
    except ValueError as exc:
        raise ValueError(f"malformed address: {exc}") from None
    if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError(f"{args.url}: give it as ws://host:port/ws-notifications/, without a query")
    if args.push_url and (api.scheme not in ("http", "https") or not api.hostname or api.query or api.username):
        raise ValueError("--push-url: give it as http://host:port")
    if args.token and args.token_key:
        raise ValueError("--token or --token-key, not both")
    if args.claim and not args.token_key:
        raise ValueError("--claim needs --token-key")
    run = secrets.token_hex(4)
    names = [f"bench-{run}-{number}" for number in range(args.connections)]
    with_token = bool(args.token or args.token_key)
    tokens = [args.token] * len(names) if args.token else _tokens(args, names)
    tls = None
    if args.insecure:
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return Target(
        url=args.url,
        queries=["" if with_token else f"?client={quote(name)}" for name in names],
        headers=[{"Authorization": f"Bearer {token}"} if token else {} for token in tokens],
        run=run,
        push_url=args.push_url.rstrip("/"),
        api_headers={"Authorization": f"Bearer {args.api_key}"} if args.api_key else {},
        tls=tls,
    )


def _tokens(args: argparse.Namespace, names: list[str]) -> list[str]:
    """One for each client; empty ones without a key. Raises ValueError."""
    if not args.token_key:
        return [""] * len(names)
    claims: dict[str, Any] = {"exp": int(time.time()) + TOKEN_S, "groups": ["bench-*"]}
    for claim in args.claim:
        name, sign, value = claim.partition("=")
        if not name or not sign:
            raise ValueError(f"--claim {claim}: give it as NAME=VALUE")
        claims[name] = value
    return [jwt.encode({**claims, "sub": name}, args.token_key, algorithm="HS256") for name in names]


def _hosts(target: Target) -> list[str]:
    urls = [target.url, target.push_url] if target.push_url else [target.url]
    return list(dict.fromkeys(urlsplit(url).hostname or "" for url in urls))


def _is_loopback(host: str) -> bool:
    """All of its addresses are this machine's own. Raises OSError where it has none."""
    addresses = {info[4][0] for info in socket.getaddrinfo(host, None)}
    return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in addresses)


def _agreed(hosts: list[str], args: argparse.Namespace) -> bool:
    """Raises ValueError where nobody can be asked."""
    if not sys.stdin.isatty():
        raise ValueError(f"{' and '.join(hosts)}: not this machine. Give --yes if it may be loaded.")
    things = 6 if args.push_url else 4
    deliveries = f", and {args.rate * args.connections / 10:.0f} deliveries" if args.push_url else ""
    print(
        f"This puts load on {' and '.join(hosts)}: {args.connections} connections and {args.rate} requests{deliveries} "
        f"per second, for about {things * args.seconds} s."
    )
    try:
        return input("Go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _write(args: argparse.Namespace, found: dict[str, Cell]) -> None:
    """No secret is in it."""
    if args.out is None:
        return
    about = {name: getattr(args, name) for name in ("url", "push_url", "method", "connections", "rate", "seconds")}
    record = {
        **about,
        "ended": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "found": {k: asdict(v) for k, v in found.items()},
    }
    args.out.write_text(json.dumps(record, indent=1) + "\n")
