"""The commands: ``tidegate serve | check | render | push | tail | token``. Each has ``--help``."""

from __future__ import annotations

import argparse
import io
import os
import sys
from pathlib import Path

import msgspec
import uvloop

import tidegate
from tidegate import app, check, log
from tidegate.cli import cli
from tidegate.config import load as configuration
from tidegate.config.settings import Config
from tidegate.core.errors import BrokerDown, Unusable
from tidegate.nginx import check as nginx_check
from tidegate.nginx import render
from tidegate.nginx.files import NginxError
from tidegate.process import signals


def main() -> int:
    """0 done; 1 refused or failed, with the reason on stderr; 2 a wrong command line."""
    parser = argparse.ArgumentParser(prog="python -m service", description=tidegate.__doc__)
    parser.add_argument("--version", action="version", version=tidegate.__version__)
    parser.add_argument(
        "--config",
        default=None,
        metavar="FILE",
        help="configuration (default: TIDEGATE_CONFIG, else config.yaml if there is one, else the defaults)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run the gateway")
    serve.set_defaults(run=_serve)
    checked = commands.add_parser("check", help="check the configuration, and nginx's against it")
    checked.add_argument("--nginx", metavar="FILE", help="an nginx configuration; its includes are read too")
    checked.add_argument("--nginx-dump", metavar="FILE", help="what `nginx -T` printed of a live server; - reads stdin")
    checked.add_argument("--json", action="store_true", help="the result as JSON")
    checked.set_defaults(run=_check)
    written = commands.add_parser("render", help="write nginx's configuration")
    written.add_argument("--out", required=True, metavar="DIR", help="folder to write to: conf.d/, njs/, lua/")
    written.set_defaults(run=_render)
    cli.add_commands(commands)
    args = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: a name may be what the locale cannot say
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
    try:
        code = int(args.run(args, config))
        if sys.stdout is not None:  # closed by who started us
            sys.stdout.flush()
    except OSError as exc:  # its reader has gone, as head(1) does, or the disk is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again when it ends
        if not isinstance(exc, BrokenPipeError):
            print(f"cannot write the answer: {exc}", file=sys.stderr)
        return 1
    return code


def _serve(args: argparse.Namespace, config: Config) -> int:
    signals.ignore()
    node = app.node_id(config.server.node)
    log.setup(config.log.level, node)
    try:
        return uvloop.run(app.serve(config, node))
    except Unusable as exc:
        fault = str(configuration.problem(config, exc))
        log.error("service.failed", error=fault)
        log.say(f"cannot start: {fault}", to=log.STDERR)
        return 1
    except (OSError, ValueError, BrokerDown) as exc:
        log.error("service.failed", error=f"{type(exc).__name__}: {exc}")
        log.say(f"cannot start: {exc}", to=log.STDERR)
        return 1
    finally:
        signals.ignore_all()


def _check(args: argparse.Namespace, config: Config) -> int:
    problems, warnings = check.check(config, edge=not (args.nginx or args.nginx_dump))
    if problems:
        return _report(args, configuration.ConfigError(problems))
    findings: list[nginx_check.Finding] = []
    try:
        if args.nginx:
            findings += nginx_check.check_file(args.nginx, config)
        if args.nginx_dump:
            findings += nginx_check.check_dump(_read(args.nginx_dump), config)
    except (NginxError, OSError) as exc:
        print(f"nginx: {exc}", file=sys.stderr)
        return 1
    ok = all(finding.level != "error" for finding in findings)
    if args.json:
        _print_json({"ok": ok, "problems": [], "warnings": warnings, "nginx": findings})
        return 0 if ok else 1
    for text in warnings:
        print(f"warning: {text}")
    for finding in findings:
        print(f"nginx: {finding}")
    print("configuration: ok")
    if args.nginx or args.nginx_dump:
        print("nginx: ok" if ok else "nginx: not ok")
    return 0 if ok else 1


def _read(name: str) -> str:
    """As UTF-8, whatever the locale says: nginx's own text is ASCII."""
    data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    return data.decode(errors="replace")


def _render(args: argparse.Namespace, config: Config) -> int:
    try:
        written = render.write(config, Path(args.out))
    except Unusable as exc:
        print(configuration.problem(config, exc), file=sys.stderr)
        return 1
    except OSError as exc:
        print(f"cannot write: {exc}", file=sys.stderr)
        return 1
    print(f"wrote {len(written)} files to {args.out}; start with: nginx -e stderr -c {args.out}/conf.d/plain.conf")
    return 0


def _report(args: argparse.Namespace, error: configuration.ConfigError) -> int:
    if args.json:
        problems = [{"key": problem.key, "message": str(problem)} for problem in error.problems]
        _print_json({"ok": False, "problems": problems, "warnings": [], "nginx": []})
    else:
        print(error, file=sys.stderr)
    return 1


def _print_json(value: object) -> None:
    """In UTF-8, whatever the locale says (RFC 8259, 8.1)."""
    data = msgspec.json.encode(value)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.flush()
        sys.stdout.buffer.write(data + b"\n")
    else:  # closed by who started us, or another's
        print(data.decode())


if __name__ == "__main__":
    sys.exit(main())
