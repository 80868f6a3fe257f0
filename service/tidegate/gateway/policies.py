"""The policies of groups, which may change while a node runs."""

from __future__ import annotations

import asyncio

from tidegate.config.changes import changes
from tidegate.config.settings import Config, GroupPolicy
from tidegate.core.hub import Hub
from tidegate.core.session import Session
from tidegate.gateway.changes import NewPolicies
from tidegate.gateway.commands import Commands
from tidegate.gateway.gateway import Gateway

SLICE = 200  # connections that are looked at before others have a turn


class Policies:
    def __init__(self, config: Config, gateway: Gateway, hub: Hub, commands: Commands) -> None:
        self._config = config
        self._gateway = gateway
        self._hub = hub
        self._commands = commands

    async def take(self, groups: dict[str, GroupPolicy]) -> list[str]:
        """From now on these; what changes by that, in words. Whoever is in a group that it may no longer join leaves
        it, as after a ``refresh``."""
        changed = _differences(self._config.groups, groups)
        if not changed:
            return []
        self._config.take_policies(groups)
        for number, session in enumerate(list(self._hub.sessions()), 1):
            if not session.ended and (not session.welcomed or not self._may_stay(session)):
                self._gateway.change(session, NewPolicies())
            if number % SLICE == 0:
                await asyncio.sleep(0)
        return changed

    def _may_stay(self, session: Session) -> bool:
        return all(self._commands.changes.may_join(session, group) for group in session.groups)


def _differences(old: dict[str, GroupPolicy], new: dict[str, GroupPolicy]) -> list[str]:
    changed = [f"groups: {pattern} {how}" for pattern, how in changes(old, new)]
    kept = [[pattern for pattern in some if pattern in old and pattern in new] for some in (old, new)]
    if kept[0] != kept[1]:
        changed.append("groups: their order has changed")  # the first that matches wins
    return changed
