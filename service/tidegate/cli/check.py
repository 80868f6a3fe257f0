"""``tidegate check``: what ``serve``, ``render`` and nginx would refuse.

It builds what they build (``tidegate.check``), so it imports what they import, with one exception: it runs no loop and
imports no uvloop. All of that is imported when the check begins; its help starts without.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.cli.command import LoadConfig, add_json, read_stdin, write_json
from tidegate.cli.terminal import Colour, paint, progress

if TYPE_CHECKING:
    from tidegate.config.load import ConfigError
    from tidegate.nginx.finding import Finding

DESCRIPTION = (
    "Check the configuration, and nginx's against it. Whatever serve, render or nginx would refuse is refused with "
    "key, value and cure; what is missing on this machine alone is a warning. Of nginx's, what breaks WebSockets "
    "(exit code 1) is told from what is to be hardened."
)
EXAMPLES = (
    "tidegate check",
    "tidegate check --nginx /etc/nginx/nginx.conf",
    "nginx -T 2>/dev/null | tidegate check --nginx-dump - --strict",
)

_COLOURS: dict[str, Colour] = {"ok": "green", "breaks": "red", "not ok": "red", "warning": "yellow", "harden": "yellow"}
_SHOWN = 3  # of the places where the same is to be said


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nginx", metavar="FILE", help="an nginx configuration; its includes are read too")
    parser.add_argument("--nginx-dump", metavar="FILE", help="what `nginx -T` printed of a live server; - reads stdin")
    parser.add_argument(
        "--strict", action="store_true", help="exit with 1 for what is to be hardened, too, not only for what breaks"
    )
    add_json(parser, "the result as JSON")


def run(args: argparse.Namespace, load_config: LoadConfig) -> int:
    from tidegate.check import check
    from tidegate.config.load import ConfigError
    from tidegate.nginx import check as nginx_check
    from tidegate.nginx.syntax import NginxError

    try:
        config = load_config()
    except ConfigError as exc:
        return _report(args, exc)
    problems, warnings = check(config, edge=not (args.nginx or args.nginx_dump))
    if problems:
        return _report(args, ConfigError(problems))
    findings: list[Finding] = []
    gc.disable()  # a tree of a million directives would be looked through again and again, and the process ends soon
    try:
        if args.nginx:
            with progress(f"checking {args.nginx}"):
                findings += nginx_check.check_file(args.nginx, config)
        if args.nginx_dump:
            dump = _read(args.nginx_dump)
            with progress("checking the dump"):
                findings += nginx_check.check_dump(dump, config)
    except (NginxError, OSError) as exc:
        fault = f"{exc.filename}: {(exc.strerror or str(exc)).lower()}" if isinstance(exc, OSError) else str(exc)
        if args.json:
            _print_json({"ok": False, "problems": [{"key": "nginx", "message": fault}], "warnings": [], "nginx": []})
        else:
            print(f"{paint('nginx:', 'red', sys.stderr)} {fault}", file=sys.stderr)
        return 1
    ok = not any(args.strict or finding.level == "breaks" for finding in findings)
    if args.json:
        _print_json({"ok": ok, "problems": [], "warnings": warnings, "nginx": findings})
        return 0 if ok else 1
    for text in warnings:
        print(f"{_painted('warning')}: {text}")
    for line in _lines(findings):
        level, _, rest = line.partition(":")
        print(f"nginx: {_painted(level)}:{rest}")
    print(f"configuration: {_painted('ok')}")
    if args.nginx or args.nginx_dump:
        print(f"nginx: {_painted(_summary(findings))}")
    return 0 if ok else 1


def _lines(findings: list[Finding]) -> Iterator[str]:
    """The same words are said of a few places, and then counted."""
    places = Counter((finding.level, finding.rule, finding.message) for finding in findings)
    shown = Counter[tuple[str, str, str]]()
    for finding in findings:
        what = (finding.level, finding.rule, finding.message)
        shown[what] += 1
        if shown[what] <= _SHOWN:
            yield str(finding)
        elif shown[what] == _SHOWN + 1:
            yield f"{finding.level}: {finding.rule}: the same at {places[what] - _SHOWN} more places"


def _summary(findings: list[Finding]) -> str:
    breaks = sum(finding.level == "breaks" for finding in findings)
    rest = len(findings) - breaks
    if breaks:
        return f"not ok, {breaks} {'thing breaks' if breaks == 1 else 'things break'} WebSockets"
    return (
        f"WebSockets get through, {rest} {'thing is' if rest == 1 else 'things are'} to be hardened" if rest else "ok"
    )


def _painted(words: str) -> str:
    """By what stands before their first comma."""
    return paint(words, _COLOURS.get(words.partition(",")[0], "yellow"), sys.stdout)


def _read(name: str) -> str:
    """As UTF-8, whatever the locale says: nginx's own text is ASCII."""
    data = read_stdin() if name == "-" else Path(name).read_bytes()
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
