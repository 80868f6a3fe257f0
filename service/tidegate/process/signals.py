"""What the process is told from outside.

SIGTERM and SIGQUIT ask it to drain, SIGINT to end at once; another of them does not wait for the first. SIGHUP has keys
and policies read again. SIGUSR1 and SIGUSR2, by which other programs are told to open their logs again, would end it on
the spot: they are ignored, with a line.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from functools import partial

from tidegate import log

_DRAIN = (signal.SIGTERM, signal.SIGQUIT)
_IGNORED = {
    signal.SIGUSR1: "there is no log file to open again: lines go to standard error",
    signal.SIGUSR2: "it has no meaning here",
}


def ignore() -> None:
    """For before the loop, which may not end by what is ignored later."""
    for number in (*_IGNORED, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def ignore_all() -> None:
    """For after the loop, which gives signals their defaults back: the last lines are being written."""
    for number in (*_IGNORED, *_DRAIN, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def listen(drain_s: float, hung_up: Callable[[], None]) -> asyncio.Queue[float]:
    """For each signal that asks for the end, over how many seconds to drain. ``hung_up`` hears of each SIGHUP."""
    asked: asyncio.Queue[float] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in _DRAIN:
        loop.add_signal_handler(number, asked.put_nowait, drain_s)
    loop.add_signal_handler(signal.SIGHUP, hung_up)
    loop.add_signal_handler(signal.SIGINT, asked.put_nowait, 0.0)
    for number, text in _IGNORED.items():
        loop.add_signal_handler(number, partial(log.info, "signal.ignored", signal=number.name, message=text))
    return asked
