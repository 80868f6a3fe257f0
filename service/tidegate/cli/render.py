"""``tidegate render``: nginx's configuration, as the settings have it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tidegate.cli.command import Failed, LoadConfig, add_json, until_reader_leaves, write_json

DESCRIPTION = "Write nginx's configuration: what the settings say as conf.d/*.inc, and all that these files need."
EXAMPLES = ("tidegate render --out /etc/tidegate/nginx", "nginx -e stderr -c /etc/tidegate/nginx/conf.d/plain.conf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write to: conf.d/, njs/, lua/")
    add_json(parser, "the files that were written, as JSON")


def run(args: argparse.Namespace, load_config: LoadConfig) -> int:
    from tidegate.config import load as configuration
    from tidegate.core.errors import Unusable
    from tidegate.nginx import render

    config = load_config()
    try:
        written = render.write(config, Path(args.out))
    except Unusable as exc:
        print(configuration.problem(config, exc), file=sys.stderr)
        return 1
    except OSError as exc:
        raise Failed(
            f"--out {args.out}: cannot write {exc.filename or ''}: {(exc.strerror or str(exc)).lower()}; name a folder "
            "that this user may write to"
        ) from None
    if args.json:
        import msgspec

        with until_reader_leaves():
            write_json(msgspec.json.encode({"written": [str(path) for path in written]}))
        return 0
    print(f"wrote {len(written)} files to {args.out}; start with: nginx -e stderr -c {args.out}/conf.d/plain.conf")
    return 0
