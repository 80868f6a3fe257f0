"""What the gateway's answers say, as values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate_client.client.model import Gap, History, Limits, Message


def limits(found: object) -> Limits:
    """Of a welcome; what it does not say is as by default."""
    default = Limits()
    if not isinstance(found, Mapping):
        return default
    return Limits(
        *(
            value if type(value := found.get(name)) is int and value > 0 else getattr(default, name)
            for name in ("message_bytes", "data_bytes", "groups")
        )
    )


def history(reply: Mapping[str, Any]) -> History:
    stream, epoch, gap = reply["stream"], reply["epoch"], reply.get("gap")
    messages = [
        Message(stream, epoch, found["offset"], found["time"], found.get("data"), found.get("client"), missed=True)
        for found in reply.get("messages", ())
    ]
    return History(
        stream,
        epoch,
        reply["offset"],
        reply["top"],
        messages,
        reply.get("more", False),
        Gap(stream, gap["epoch"], gap.get("from"), gap.get("to"), gap["reason"]) if gap else None,
    )
