"""``tidegate check``: what ``serve``, ``render`` and nginx would refuse.

It builds what they build (``tidegate.check``), so it imports what they import, with one exception: it runs no loop and
imports no uvloop. All of that is imported when the check begins; its help starts without.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.cli.command import LoadConfig, write_json

if TYPE_CHECKING:
    from tidegate.config.load import ConfigError
    from tidegate.nginx.check import Finding

DESCRIPTION = (
    "Check the configuration, and nginx's against it. Whatever serve, render or nginx would refuse is refused with "
    "key, value and cure; what is missing on this machine alone is a warning."
)
EXAMPLES = (
    "tidegate check",
    "tidegate check --nginx /etc/nginx/nginx.conf",
    "nginx -T 2>/dev/null | tidegate check --nginx-dump -",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nginx", metavar="FILE", help="an nginx configuration; its includes are read too")
    parser.add_argument("--nginx-dump", metavar="FILE", help="what `nginx -T` printed of a live server; - reads stdin")
    parser.add_argument("--json", action="store_true", help="the result as JSON")


def run(args: argparse.Namespace, load_config: LoadConfig) -> int:
    from tidegate.check import check
    from tidegate.config.load import ConfigError
    from tidegate.nginx import check as nginx_check
    from tidegate.nginx.files import NginxError

    try:
        config = load_config()
    except ConfigError as exc:
        return _report(args, exc)
    problems, warnings = check(config, edge=not (args.nginx or args.nginx_dump))
    if problems:
        return _report(args, ConfigError(problems))
    findings: list[Finding] = []
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


def _report(args: argparse.Namespace, error: ConfigError) -> int:
    if args.json:
        problems = [{"key": problem.key, "message": str(problem)} for problem in error.problems]
        _print_json({"ok": False, "problems": problems, "warnings": [], "nginx": []})
    else:
        print(error, file=sys.stderr)
    return 1


def _print_json(value: object) -> None:
    import msgspec

    write_json(msgspec.json.encode(value))
