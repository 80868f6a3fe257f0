"""The asyncio client."""

from __future__ import annotations


class Client:
    """Follows streams."""
