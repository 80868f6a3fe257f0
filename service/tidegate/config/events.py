"""The settings of what the application hears of connections. ``settings`` has the other sections, and says how they are
written."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from tidegate.config.endpoints import Url
from tidegate.config.section import Section
from tidegate.config.texts import ApiKey, Word


class EventsSettings(Section, frozen=True):
    """What the application hears of connections, as a stream in Redis and, from there, by HTTP. docs/protocol.md"""

    enabled: Annotated[bool, Meta(description="Write connected, disconnected, joined and left there.")] = False
    messages: Annotated[int, Meta(ge=1, le=10_000_000, description="Entries kept, about.")] = 10000
    url: Annotated[
        Url | None, Meta(description="Where `tidegate forward-events` posts what is written there; null: nowhere.")
    ] = None
    key: Annotated[ApiKey | None, Meta(description="What these requests are signed with.")] = None
    key_file: Annotated[Word | None, Meta(description="File with the key, in place of key.")] = None
    batch_events: Annotated[int, Meta(ge=1, le=1000, description="Events in one request at most.")] = 100
    timeout_s: Annotated[float, Meta(ge=0.01, le=300, description="Seconds to wait for its answer.")] = 10
    retry_s: Annotated[
        float,
        Meta(
            ge=0,
            le=604_800,
            description="Seconds for which a request that fails is made again, and holds up those behind it; then its "
            "events go to events:dead.",
        ),
    ] = 3600
