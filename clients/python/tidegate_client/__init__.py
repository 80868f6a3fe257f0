"""Tidegate from Python: ``Client`` follows streams, ``Publisher`` pushes to them.

Each name is imported when it is first asked for, so that a program that only pushes loads no WebSocket library."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidegate_client.client import Client as Client

__version__ = "0.2.0"

# The module that each public name lives in.
_HOMES = {
    "Client": "tidegate_client.client",
}

__all__ = ["Client", "__version__"]


def __getattr__(name: str) -> Any:
    if home := _HOMES.get(name):
        return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
