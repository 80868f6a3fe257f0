"""``python -m bench COMMAND``. Each command is a module with ``add_command(commands)``."""

from __future__ import annotations

import argparse
import sys

import bench
from bench import against, agreement, compare, comparison_report, echo, flood, guard, redis, remote

COMMANDS = (compare, echo, against, guard, flood, redis, comparison_report, agreement, remote)


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
