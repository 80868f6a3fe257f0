"""``tidegate token``: a JWT for a client, signed with the configured key."""

from __future__ import annotations

import argparse
import re
import secrets
import time
from typing import Any

from tidegate.cli.command import Failed, LoadConfig, Usage, add_json, note, until_reader_leaves, write_json

DESCRIPTION = (
    "Print a JWT, signed as the section auth of the configuration says. Patterns may be given several times or with "
    "commas; without any, no group is allowed. With --new-key, make a key to sign with, and print that."
)
EXAMPLES = (
    "TIDEGATE_AUTH__KEY=... tidegate token --sub alice --groups 'news,chat.*' --publish 'chat.*' --expires 15m",
    "tidegate token --sub alice --key-file private.pem --kid 2026-01",
    "export TIDEGATE_AUTH__MODE=jwt TIDEGATE_AUTH__KEY=$(tidegate token --new-key)",
    "tidegate token --new-key ES256 > private.pem && openssl pkey -in private.pem -pubout > public.pem",
)

ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sub", metavar="CLIENT", help="whose token it is")
    parser.add_argument("--groups", action="append", default=[], metavar="PATTERN", help="groups it may join")
    parser.add_argument("--publish", action="append", default=[], metavar="PATTERN", help="groups it may publish to")
    parser.add_argument("--expires", default="1h", metavar="TIME", help="30s, 15m, 1h or 7d from now (default: 1h)")
    parser.add_argument("--key-file", metavar="FILE", help="the key to sign with (default: auth.key or auth.key_file)")
    parser.add_argument("--kid", help="the key's name in a JWKS file")
    parser.add_argument(
        "--new-key",
        nargs="?",
        const="HS256",
        choices=ALGORITHMS,
        metavar="ALGORITHM",
        help=f"make a key for auth.algorithm {', '.join(ALGORITHMS)} (default: the first); no token",
    )
    add_json(parser, "the token, whose it is and when it expires (Unix seconds), or the key, as JSON")


def run(args: argparse.Namespace, load_config: LoadConfig) -> int:
    return _make_key(args) if args.new_key else _make_token(args, load_config)


def _make_token(args: argparse.Namespace, load_config: LoadConfig) -> int:
    from tidegate.auth import tokens
    from tidegate.core.model import is_id
    from tidegate.core.patterns import is_pattern

    if args.sub is None:
        raise Usage("--sub CLIENT: whose token it is; or --new-key for a key")
    config = load_config()
    if not is_id(args.sub):
        raise Usage(f"--sub {args.sub!r}: a client is 1-128 characters of A-Z a-z 0-9 _ . @ -")
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
    _print(token, {"token": token, "client": args.sub, "expires": claims["exp"]}, as_json=args.json)
    return 0


def _make_key(args: argparse.Namespace) -> int:
    """Asks for no configuration: one that wants a key cannot be read before there is one."""
    if args.sub is not None:
        raise Usage("--new-key makes a key and --sub a token: one after the other")
    key = new_key(args.new_key)
    _print(key, {"key": key, "algorithm": args.new_key}, as_json=args.json)
    if args.new_key == "HS256":
        note("this is a secret: set auth.mode to jwt, and auth.key to it, or TIDEGATE_AUTH__KEY; who has it is anybody")
    else:
        note(
            f"this is a secret: sign with it, token --key-file FILE; set auth.mode to jwt, auth.algorithm to "
            f"{args.new_key}, and auth.key_file to the public half: openssl pkey -in FILE -pubout"
        )
    return 0


def new_key(algorithm: str) -> str:
    """A shared secret as text, or a private key as PEM."""
    if algorithm == "HS256":
        return secrets.token_urlsafe(48)
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    if algorithm == "RS256":
        private = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    elif algorithm == "ES256":
        private = ec.generate_private_key(ec.SECP256R1())
    else:
        private = ed25519.Ed25519PrivateKey.generate()
    pem = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    return pem.decode().rstrip("\n")


def _print(words: str, answer: dict[str, Any], *, as_json: bool) -> None:
    import msgspec

    with until_reader_leaves():
        if as_json:
            write_json(msgspec.json.encode(answer))
        else:
            print(words)


def _seconds(text: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd]?)", text, re.ASCII)
    if found is None:
        raise Usage(f"--expires {text}: a time such as 30s, 15m, 1h or 7d")
    return int(found[1]) * _UNITS_S[found[2] or "s"]
