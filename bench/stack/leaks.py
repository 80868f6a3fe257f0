"""A service with a fault that was planted, to see that ``python -m bench soak`` finds it: this module runs in place of
``tidegate serve``, with the fault's name as its argument."""

from __future__ import annotations

import os
import sys
from typing import Any

from tidegate import node
from tidegate.cli import main as cli
from tidegate.core.errors import CloseCode
from tidegate.core.session import Session
from tidegate.gateway.gateway import Gateway

_kept: list[Any] = []
_remove, _leave = Gateway.remove, Gateway._presence_leave


def memory(self: Gateway, session: Session, *, confirmed: bool) -> None:
    """Who has gone leaves a KiB behind."""
    _kept.append(bytearray(1024))
    _remove(self, session, confirmed=confirmed)


def files(self: Gateway, session: Session, *, confirmed: bool) -> None:
    """One in fifty leaves a descriptor behind."""
    _kept.append(None)
    if len(_kept) % 50 == 0:
        os.open(os.devnull, os.O_RDONLY)
    _remove(self, session, confirmed=confirmed)


async def keys(self: Gateway, session: Session) -> None:
    """Who has gone is shown in presence, in a group of its own."""
    session.client = f"gone-{session.connection}"
    await self._broker.presence_join(self.info(session))


def close(self: Gateway, session: Session, *, confirmed: bool) -> None:
    """With one in five hundred who go somebody else has to go as well."""
    _kept.append(None)
    if len(_kept) % 500 == 0:
        self.close(next(iter(self._hub.sessions())), CloseCode.SLOW_CONSUMER)
    _remove(self, session, confirmed=confirmed)


PLANTS = ("memory", "files", "keys", "close")

if __name__ == "__main__":
    (plant,) = sys.argv[1:]
    assert node.serve is not None
    setattr(Gateway, "_presence_leave" if plant == "keys" else "remove", globals()[plant])
    sys.argv = ["tidegate", "serve"]
    sys.exit(cli.main())
