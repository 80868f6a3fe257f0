"""The settings of what a node remembers of its messages and connections. ``settings`` has the other sections, and says
how they are written."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from tidegate.config.section import Section

MOST = 200_000  # a question copies them before it goes through them in parts: some 10 ms of one turn of the loop


class TraceSettings(Section, frozen=True):
    """What a node remembers for `tidegate trace`, in memory. docs/operations.md"""

    enabled: Annotated[bool, Meta(description="Remember it.")] = True
    messages: Annotated[int, Meta(ge=1, le=MOST, description="Messages, the newest; about 250 bytes for each.")] = 20000
    steps: Annotated[
        int,
        Meta(
            ge=1,
            le=MOST,
            description="What happened to connections, and as much again to their streams; about 350 bytes for each "
            "step, and for each stream with which a connection begins and ends.",
        ),
    ] = 20000
