"""What the service manager hears, where one has started the process and asks for it (sd_notify(3)): systemd with
``Type=notify``. So `systemctl restart` returns when the node takes clients, and a node that hangs is ended by
``WatchdogSec=``. Elsewhere nothing is said."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Mapping

LOOK_S = 0.1
PARTS = 3  # signs of life in the time within which one must come


class Manager:
    """The one that ``environ`` names. It is told by datagrams, which nobody waits for."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        of_another = environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid())
        microseconds = "" if of_another else environ.get("WATCHDOG_USEC", "")
        self._watchdog_s = int(microseconds) / 1e6 if microseconds.isdigit() else 0.0

    async def follow(self, is_ready: Callable[[], Awaitable[bool]]) -> None:
        """Says that the process is ready, as soon as it is; and that it lives, for as long as its loop turns."""
        if not self._address:
            return
        while not await is_ready():  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(LOOK_S)
        self._say("READY=1")
        while self._watchdog_s:
            self._say("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_s / PARTS)

    def stopping(self) -> None:
        self._say("STOPPING=1")

    def _say(self, text: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(text.encode(), self._address)
