"""The commands: ``python -m service serve | check | push | tail | token``. Each has ``--help``."""

from __future__ import annotations

import argparse
import os
import sys

import msgspec
import uvloop

import service
from service import app, cli, log
from service import config as configuration
from service.errors import BrokerDown
from service.settings import Config


def main() -> int:
    """0 done; 1 refused or failed, with the reason on stderr; 2 a wrong command line."""
    parser = argparse.ArgumentParser(prog="python -m service", description=service.__doc__)
    parser.add_argument("--version", action="version", version=service.__version__)
    parser.add_argument(
        "--config",
        default=None,
        metavar="FILE",
        help="configuration (default: TIDEGATE_CONFIG, else config.yaml if there is one, else the defaults)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run the gateway")
    serve.set_defaults(run=_serve)
    check = commands.add_parser("check", help="check the configuration")
    check.add_argument("--json", action="store_true", help="the result as JSON")
    check.set_defaults(run=_check)
    cli.add_commands(commands)
    args = parser.parse_args()
    path = (
        args.config or os.environ.get("TIDEGATE_CONFIG") or ("config.yaml" if os.path.exists("config.yaml") else None)
    )
    try:
        config = configuration.load(path, os.environ)
    except configuration.ConfigError as exc:
        if args.run is _check:
            return _report(args, exc)
        print(exc, file=sys.stderr)
        return 1
    return int(args.run(args, config))


def _serve(args: argparse.Namespace, config: Config) -> int:
    node = app.node_id(config.server.node)
    log.setup(config.log.level, node)
    try:
        return uvloop.run(app.serve(config, node))
    except (OSError, ValueError, BrokerDown) as exc:
        log.error("service.failed", error=f"{type(exc).__name__}: {exc}")
        print(f"cannot start: {exc}", file=sys.stderr)
        return 1


def _check(args: argparse.Namespace, config: Config) -> int:
    warnings = configuration.warnings(config)
    if args.json:
        print(msgspec.json.encode({"ok": True, "problems": [], "warnings": warnings}).decode())
    else:
        for text in warnings:
            print(f"warning: {text}")
        print("configuration: ok")
    return 0


def _report(args: argparse.Namespace, error: configuration.ConfigError) -> int:
    if args.json:
        problems = [{"key": problem.key, "message": str(problem)} for problem in error.problems]
        print(msgspec.json.encode({"ok": False, "problems": problems, "warnings": []}).decode())
    else:
        print(error, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
