"""``tidegate doctor``: a running deployment, measured through its edge. What is measured is ``tidegate.doctor``'s."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tidegate.cli.command import KEY_NOTE, Failed, LoadConfig, Usage, note, until_reader_leaves, write_json
from tidegate.cli.terminal import Colour, paint, progress, visible

if TYPE_CHECKING:
    from tidegate.cli.api_client import ApiClient
    from tidegate.config.settings import Config
    from tidegate.doctor.api import Api, Ask
    from tidegate.doctor.report import Finding, Level
    from tidegate.doctor.target import Target

DESCRIPTION = (
    "Go through the deployed edge as clients do, measure, and say what is wrong: a line for each finding, with how it "
    "is and what to do, the heaviest first. Exit code 0 where nothing is wrong, 1 where something is. A token comes "
    "from TIDEGATE_TOKEN or --token-file, else it is made with the configuration's key. " + KEY_NOTE
)
EXAMPLES = (
    "tidegate doctor ws://127.0.0.1:8080/ws-notifications/",
    "tidegate doctor wss://push.example.org/ws-notifications/ --api --patient",
    "tidegate doctor wss://push.example.org/ws-notifications/ --api http://10.0.0.7:8001 --stop 60",
    "TIDEGATE_API_KEY=... tidegate doctor wss://push.example.org/ws-notifications/ --api http://10.0.0.7:8001 --json",
)


_COLOURS: dict[Level, Colour] = {"wrong": "red", "weak": "yellow", "unknown": "dim", "ok": "green"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="ws:// or wss://, as clients are given it")
    parser.add_argument(
        "--api",
        nargs="?",
        const="",
        metavar="URL",
        help="ask this internal port for nodes and Redis too, and push through it (no URL: as the configuration says)",
    )
    parser.add_argument("--edge", metavar="HOST:PORT", help="the edge's internal port (default: as --api says)")
    how_long = parser.add_mutually_exclusive_group()
    how_long.add_argument("--patient", action="store_true", help="wait for timeouts too: 75 s with the defaults")
    how_long.add_argument(
        "--stop",
        type=float,
        metavar="SECONDS",
        help="instead: hold a session on each node, and say what clients see while you stop, restart or upgrade one",
    )
    parser.add_argument("--client", metavar="ID", help="who it is, where clients name themselves (default: doctor-...)")
    parser.add_argument("--token-file", metavar="FILE", help="file with a token; - reads it from standard input")
    parser.add_argument(
        "--header-file", metavar="FILE", help="file with headers of each handshake, such as Cookie: ...; - as above"
    )
    parser.add_argument("--origin", action="append", default=[], metavar="URL", help="a page's that must get in")
    parser.add_argument("--call", default="echo", metavar="METHOD", help="the method that is called (default: echo)")
    parser.add_argument("--ca", metavar="FILE", help="certificates to trust beside the machine's own")
    parser.add_argument("--strict", action="store_true", help="exit with 1 for what is weak, too")
    parser.add_argument("--json", action="store_true", help="the findings as JSON")


def run(args: argparse.Namespace, load_config: LoadConfig) -> int:
    from tidegate.doctor.api import Api

    config = load_config()
    target = _target(args, config)
    api = None if args.api is None else Api(asking(_service(args.api, config)))
    findings = _examine(args, target, api) if args.stop is None else _watch(args.stop, target, api)
    counted = ("wrong", "weak") if args.strict else ("wrong",)
    is_ok = not any(finding.level in counted for finding in findings)
    with until_reader_leaves():
        if args.json:
            write_json(msgspec.json.encode({"ok": is_ok, "url": target.url, "findings": findings}))
        else:
            _print(findings)
    return 0 if is_ok else 1


def _examine(args: argparse.Namespace, target: Target, api: Api | None) -> list[Finding]:
    import asyncio

    from tidegate.doctor.examination import Wishes, examine

    wishes = Wishes(patient=args.patient, origins=args.origin, call=args.call, edge=args.edge)
    with progress("examining"):
        return asyncio.run(examine(target, api, wishes))


def _watch(seconds: float, target: Target, api: Api | None) -> list[Finding]:
    """Raises Usage."""
    import asyncio

    from tidegate.doctor.stop import MOST_S, Watch

    if not 1 <= seconds <= MOST_S:
        raise Usage(f"--stop: 1 to {MOST_S:g} seconds")
    with contextlib.ExitStack() as shown:

        def begun(words: str) -> None:
            note(visible(words))
            shown.enter_context(progress("watching"))

        async def watch() -> list[Finding]:
            loop = asyncio.get_running_loop()
            it = Watch(target, api, seconds, begun)

            def enough() -> None:
                loop.remove_signal_handler(signal.SIGINT)  # another one does not wait for what is under way
                it.enough()

            loop.add_signal_handler(signal.SIGINT, enough)
            return await it.findings()

        return asyncio.run(watch())


def _print(findings: list[Finding]) -> None:
    from tidegate.doctor.report import heaviest_first, summary

    for finding in heaviest_first(findings):
        level = finding.level.ljust(8)
        colour = _COLOURS[finding.level]
        print(paint(level, colour, sys.stdout) + visible(str(finding)).removeprefix(level))
    print(summary(findings))


def _target(args: argparse.Namespace, config: Config) -> Target:
    """Raises Usage and Failed."""
    from tidegate.core.model import is_id
    from tidegate.doctor import target

    if args.client is not None and not is_id(args.client):
        raise Usage("--client: 1-128 characters of A-Z a-z 0-9 _ . @ -")
    for origin in args.origin:
        if not target.is_visible(origin):
            raise Usage(f"--origin {origin!r}: visible ASCII characters only, as https://app.example.org")
    name = args.client or f"doctor-{secrets.token_hex(3)}"
    token = _token(args.token_file, config, name)
    headers = () if args.header_file is None else _headers(args.header_file)
    named = args.client is not None or not (token or headers)
    try:
        read = target.read(args.url)
        found: Target = msgspec.structs.replace(
            read, client=name if named and token is None else None, token=token, headers=headers, ca=args.ca
        )
        if args.ca is not None:
            target.trusting(found)
    except ValueError as exc:
        raise Usage(f"{args.url}: {exc}") from None
    except OSError as exc:
        raise Usage(f"--ca {args.ca}: {exc.strerror or exc}") from None
    return found


def _headers(file: str) -> tuple[tuple[str, str], ...]:
    """A line each. Raises Usage, which does not say them."""
    headers = []
    for line in filter(None, _read("--header-file", file).splitlines()):
        name, colon, value = line.partition(":")
        if not (colon and name and line.isascii() and line.isprintable() and " " not in name):
            raise Usage(f"--header-file {file}: a line is NAME: VALUE")
        headers.append((name, value.strip()))
    return tuple(headers)


def _token(file: str | None, config: Config, client: str) -> str | None:
    """What is given, else one of the configuration's own key; None where there is none. Raises Usage."""
    from tidegate.doctor.target import is_visible

    given = os.environ.get("TIDEGATE_TOKEN", "") if file is None else _read("--token-file", file)
    token = given.strip()
    if file is not None and not token:
        raise Usage(f"--token-file {file}: is empty")
    if token and not is_visible(token):
        raise Usage("a token is visible ASCII characters")
    if token or config.auth.mode != "jwt" or config.auth.algorithm != "HS256":
        return token or None
    from tidegate.auth import tokens

    try:
        return tokens.sign(config.auth, {"sub": client, "exp": int(time.time()) + 900})
    except ValueError:  # no key here: the deployment is another machine's
        return None


def _read(option: str, file: str) -> str:
    """What is secret is in a file, never among the arguments. Raises Usage."""
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise Usage(f"{option} {file}: {exc.strerror if isinstance(exc, OSError) else 'is no text'}") from None


def _service(url: str, config: Config) -> ApiClient:
    """Raises Usage."""
    from tidegate.cli.api_client import ApiClient

    try:
        return ApiClient(url or None, config)
    except Usage as exc:
        raise Usage(str(exc).replace("--url", "--api")) from None


def asking(service: ApiClient) -> Ask:
    """How the doctor asks it."""
    from tidegate.doctor.api import ApiError

    def ask(method: str, path: str, body: bytes | None) -> Any:
        try:
            return service.call(method, path, dict, body)
        except Failed as exc:
            raise ApiError(str(exc).replace("--url", "--api")) from None

    return ask
