"""``tidegate token``: a JWT for a client, signed with the configured key."""

from __future__ import annotations

import argparse
import re
import time
from typing import Any

from tidegate.cli.command import Failed, LoadConfig, Usage, note, until_reader_leaves

DESCRIPTION = (
    "Print a JWT, signed as the section auth of the configuration says. Patterns may be given several times or with "
    "commas; without any, no group is allowed."
)
EXAMPLES = (
    "TIDEGATE_AUTH__KEY=... tidegate token --sub alice --groups 'news,chat.*' --publish 'chat.*' --expires 15m",
    "tidegate token --sub alice --key-file private.pem --kid 2026-01",
)

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sub", required=True, metavar="CLIENT", help="whose token it is")
    parser.add_argument("--groups", action="append", default=[], metavar="PATTERN", help="groups it may join")
    parser.add_argument("--publish", action="append", default=[], metavar="PATTERN", help="groups it may publish to")
    parser.add_argument("--expires", default="1h", metavar="TIME", help="30s, 15m, 1h or 7d from now (default: 1h)")
    parser.add_argument("--key-file", metavar="FILE", help="the key to sign with (default: auth.key or auth.key_file)")
    parser.add_argument("--kid", help="the key's name in a JWKS file")


def run(args: argparse.Namespace, load_config: LoadConfig) -> int:
    from tidegate.auth import tokens
    from tidegate.core.model import is_id
    from tidegate.core.patterns import is_pattern

    config = load_config()
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
        token = tokens.sign(config.auth, claims, key_file=args.key_file, kid=args.kid)
    except ValueError as exc:
        raise Failed(str(exc)) from None
    if config.auth.mode != "jwt":
        note(f"note: auth.mode is {config.auth.mode}, so that the service does not look at tokens")
    with until_reader_leaves():
        print(token)
    return 0


def _seconds(text: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd]?)", text, re.ASCII)
    if found is None:
        raise Usage("--expires: a time such as 30s, 15m, 1h or 7d")
    return int(found[1]) * _UNITS_S[found[2] or "s"]
