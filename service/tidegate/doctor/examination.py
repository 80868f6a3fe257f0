"""All of it in its order: who gets in, what passes, what ends whom, and what the nodes say of themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from tidegate.doctor import delivery, handshake, heartbeat, nodes, redis, timeouts, tls
from tidegate.doctor.api import Api, ask_health
from tidegate.doctor.link import Ended, Link, NoAnswer
from tidegate.doctor.report import Finding, unknown, wrong
from tidegate.doctor.target import Target

HOLD_S = 3.0


class Wishes(msgspec.Struct, frozen=True):
    """``patient``: waits for what only waiting shows. ``origins``: of pages that must get in. ``call``: the method that
    is called. ``edge``: where the edge's internal port is. ``hold_s``: how long a quiet connection is watched."""

    patient: bool = False
    origins: Sequence[str] = ()
    call: str = "echo"
    edge: str | None = None
    hold_s: float = HOLD_S


async def examine(target: Target, api: Api | None, wishes: Wishes) -> list[Finding]:
    """All findings, in the order in which one reads them."""
    health = await ask_health(api)
    known = health if isinstance(health, dict) else None
    settings = None if known is None else known["settings"]
    greeting, encrypted = await asyncio.gather(handshake.greet(target), tls.examine(target))
    findings = [*greeting.findings, *encrypted]
    if greeting.link is None:
        findings.append(unknown("through the edge", "nothing more can be measured until a client gets in"))
    else:
        # The quiet connection is watched while the others are busy.
        through, quiet, waited = await asyncio.gather(
            _through(target, greeting.link, known, api, wishes),
            timeouts.hold(target, wishes.hold_s),
            timeouts.wait(target) if wishes.patient else _nothing(),
        )
        findings += [*through, quiet, *waited]
        if wishes.patient and api is not None and settings is not None:
            findings.append(await delivery.stall(target, api, settings))
    if isinstance(health, Finding):
        findings.append(health)
    if known is not None:
        findings += [
            *nodes.examine(known),
            *await asyncio.to_thread(nodes.edge, known, wishes.edge),
            *redis.examine(known),
        ]
    return findings


async def _through(
    target: Target, link: Link, health: dict[str, Any] | None, api: Api | None, wishes: Wishes
) -> list[Finding]:
    settings = None if health is None else health["settings"]
    try:
        await link.be_welcomed()
    except NoAnswer as exc:
        link.cut()
        return [wrong("welcome", str(exc), "name or path are not the gateway's, or its version is another one")]
    except (Ended, TimeoutError) as exc:
        link.cut()
        how = f"none comes: {exc}" if isinstance(exc, Ended) else "none comes"
        return [wrong("welcome", how, "the handshake passes and messages do not: see the logs of edge and node")]
    findings = [*await heartbeat.examine(link), *await handshake.rules(target, wishes.origins)]
    findings += timeouts.compare(link.welcome, settings)
    if api is not None and health is not None:
        findings += await delivery.examine(
            target, api, [node["node"] for node in health["nodes"] if not node["draining"]]
        )
    return [*findings, await delivery.call(target, wishes.call, settings)]


async def _nothing() -> list[Finding]:
    return []
