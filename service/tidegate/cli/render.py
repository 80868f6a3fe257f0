"""``tidegate render``: nginx's configuration, as the settings have it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tidegate.cli.command import LoadConfig

DESCRIPTION = "Write nginx's configuration: what the settings say as conf.d/*.inc, and all that these files need."
EXAMPLES = ("tidegate render --out /etc/tidegate/nginx", "nginx -e stderr -c /etc/tidegate/nginx/conf.d/plain.conf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write to: conf.d/, njs/, lua/")


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
        print(f"cannot write: {exc}", file=sys.stderr)
        return 1
    print(f"wrote {len(written)} files to {args.out}; start with: nginx -e stderr -c {args.out}/conf.d/plain.conf")
    return 0
