"""Whole stacks beside each other, as ratios in one run: Tidegate behind its edges, Nchan, and gorilla behind nginx.

Runner and report are those of ``bench peers``.
"""

from __future__ import annotations

from typing import Any

from bench.compare.modes import conditions, versions
from bench.load.processes import LOAD_CORE
from bench.load.publisher import MESSAGE_BYTES
from bench.peers.command import Book, add_arguments
from bench.stack.suites import FULL, QUICK, SUITES, TARGETS, Size


def add_command(commands: Any) -> None:
    parser = commands.add_parser("stack", help="nginx and service together, beside Nchan and gorilla behind nginx")
    add_arguments(parser, _BOOK)


def _conditions(size: Size) -> dict[str, Any]:
    return {
        **conditions(),
        **versions(),
        "messages": f"{MESSAGE_BYTES} bytes with their envelope",
        "load client": f"on core {LOAD_CORE}; it checks each message",
        "CPU": "of nginx and the service together, by the kernel's clock of a process",
        "gorilla": "over TCP behind nginx that relays as the plain edge does",
        "rounds": f"interleaved, the first dropped, ratios pair by pair; {size}",
    }


_BOOK = Book(
    "stack",
    "nginx and service together",
    SUITES,
    TARGETS,
    (FULL, QUICK),
    _conditions,
    {"workers": "one worker", "neighbour": "", "groups": "plain", "idle": "plain"},
    "plain-tcp",
)
