"""``python -m bench COMMAND``. Each command is a module with ``add_command(commands)``."""

from __future__ import annotations

import argparse
import sys

import bench
from bench import echo, guard
from bench.compare import agreement, flood, stalled
from bench.compare import command as compare
from bench.load import remote
from bench.peers import command as against
from bench.peers import followed, redis
from bench.report import command as comparison_report
from bench.stack import command as stack
from bench.stack import deploys, soak, storms

COMMANDS = (
    compare,
    echo,
    against,
    stack,
    deploys,
    storms,
    soak,
    guard,
    flood,
    stalled,
    redis,
    followed,
    comparison_report,
    agreement,
    remote,
)


def main() -> int:
    """The command's exit code; 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=bench.__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_command(commands)
    args = parser.parse_args()
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(main())
