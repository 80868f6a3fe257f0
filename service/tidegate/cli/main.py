"""The command line: ``tidegate [--config FILE] COMMAND ...``.

Each command is the module of this package that has its name, with _ for -. A module is imported only when its command
is asked for, so that a command which serves nothing imports nothing of serving. A module has

- ``DESCRIPTION`` and ``EXAMPLES``, which its help shows,
- ``add_arguments(parser)``,
- ``run(args, load_config) -> int``: the exit code. It may raise what ``_run`` knows.

To add a command: write its module, give it a line in ``COMMANDS``, and test it. Its help and what shells complete are
made of that (``completion``).
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import tidegate
from tidegate.cli import command
from tidegate.cli.terminal import is_coloured, paint

if TYPE_CHECKING:
    from tidegate.config.settings import Config

COMMANDS = {
    "serve": "run the gateway",
    "check": "check the configuration, and nginx's against it",
    "render": "write nginx's configuration",
    "doctor": "measure a running deployment, and say what is wrong with it",
    "push": "push a message",
    "tail": "follow a stream",
    "trace": "say what became of a message, or of a client",
    "token": "make a token for a client",
    "forward-events": "post to the application who comes and goes",
    "completion": "have a shell complete these commands",
}

_HEADING = re.compile(r"^(?:usage:|[a-z][a-z ]*:$)", re.MULTILINE)


def main(argv: Sequence[str] | None = None) -> int:
    """0 done; 1 refused or failed, with the reason on stderr; 2 a wrong command line."""
    asked = parser().parse_args(argv)
    module = command_module(asked.command)
    args = command_parser(asked.command).parse_args(asked.arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: a name may be what the locale cannot say
    return _run(partial(module.run, args, partial(_load_config, asked.config)))


def command_module(name: str) -> Any:
    """What has the command of this name."""
    return importlib.import_module(f"tidegate.cli.{name.replace('-', '_')}")


class _Parser(argparse.ArgumentParser):
    """Headings of its help stand out on a terminal."""

    def print_help(self, file: Any = None) -> None:
        stream = file or sys.stdout
        if not is_coloured(stream) or sys.version_info >= (3, 14):  # which has colours of its own
            super().print_help(file)
        else:
            stream.write(_HEADING.sub(lambda found: paint(found[0], "bold", stream), self.format_help()))


def parser() -> argparse.ArgumentParser:
    """Of the command line up to the command's name."""
    listed = "\n".join(f"  {name:16}{summary}" for name, summary in COMMANDS.items())
    parser = _Parser(
        prog="tidegate",
        description=tidegate.__doc__,
        epilog=f"commands:\n{listed}\n\nexamples:\n  tidegate serve\n  tidegate check\n  tidegate push --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=tidegate.__version__)
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="configuration (default: TIDEGATE_CONFIG, else config.yaml if there is one, else the defaults)",
    )
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help="one of those below; each has --help")
    parser.add_argument("arguments", metavar="...", nargs=argparse.REMAINDER, help="what the command takes")
    return parser


def command_parser(name: str) -> argparse.ArgumentParser:
    """Of what stands behind the command's name."""
    module = command_module(name)
    parser = _Parser(
        prog=f"tidegate {name}",
        description=textwrap.fill(module.DESCRIPTION, 78),
        epilog="examples:\n" + "\n".join(f"  {example}" for example in module.EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return parser


def _load_config(path: str | None) -> Config:
    """Raises ConfigError."""
    from tidegate.config import load as configuration  # here, because help needs none of it

    path = path or os.environ.get("TIDEGATE_CONFIG") or ("config.yaml" if os.path.exists("config.yaml") else None)
    return configuration.load(path, os.environ)


def _run(run: Callable[[], int]) -> int:
    from tidegate.config.load import ConfigError

    try:
        code = run()
        if sys.stdout is not None:  # closed by who started us
            sys.stdout.flush()
        return code
    except command.Usage as exc:
        command.complain(str(exc))
        return 2
    except command.Failed as exc:
        command.complain(str(exc))
    except ConfigError as exc:
        print(exc, file=sys.stderr)
    except KeyboardInterrupt:
        command.note("interrupted")
    except OSError as exc:  # the reader has gone, or the disk is full
        command.discard_stdout()
        if not isinstance(exc, BrokenPipeError):
            print(f"cannot write the answer: {exc}", file=sys.stderr)
    return 1
