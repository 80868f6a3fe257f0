"""How long a quiet connection lives, and how it ends.

Quickly: a connection that says nothing is there for the whole examination, and the settings are compared. By waiting:
one that answers pings must outlive them, one that does not must be closed with 4007, by the node and in its time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from tidegate.doctor.link import Ended, Link, NoAnswer, Refusal, Welcome, greet
from tidegate.doctor.report import Finding, number, ok, unknown, wrong
from tidegate.doctor.target import Target

MOST_S = 600.0  # of waiting
SPARE_S = 10.0  # for a close to come
_CURE = (
    "something in between ends what is quiet: give it a longer timeout than heartbeat.websocket_ping_timeout "
    "(nginx: proxy_read_timeout 90s;)"
)


async def hold(target: Target, seconds: float) -> Finding:
    """A connection that says nothing for so long."""
    try:
        link = await greet(target)
    except (NoAnswer, Refusal, Ended) as exc:
        return unknown("quiet connection", str(exc))
    begun_s = time.monotonic()
    try:
        await link.stay(seconds)
    except Ended as exc:
        return _ended("quiet connection", exc, time.monotonic() - begun_s)
    finally:
        link.cut()
    return ok("quiet connection", f"is there after {number(seconds, 's')}")


def _ended(what: str, end: Ended, after_s: float) -> Finding:
    took = number(after_s, "s")
    if end.code in (1001, 1012):
        return unknown(what, f"{end} after {took}: an edge or a node stopped", "examine again")
    return wrong(what, f"{end} after {took} without traffic", _CURE)


def compare(welcome: Welcome, settings: Mapping[str, Any] | None) -> list[Finding]:
    """The order in which those who could end a quiet connection get their turn; and whether the node that welcomed has
    the settings of the API's."""
    interval, timeout = welcome["ping_interval"], welcome["ping_timeout"]
    if settings is None:
        how = f"the node pings each {interval:g} s and gives up after {timeout:g} s"
        return [unknown("timeouts", how, "--api compares the edge's with them; --patient waits for them")]
    heartbeat, edge = settings["heartbeat"], settings["edge"]
    ours = (heartbeat["websocket_ping_interval"], heartbeat["websocket_ping_timeout"])
    if (interval, timeout) != ours:
        return [
            wrong(
                "timeouts",
                f"the node behind this address pings each {interval:g} s and gives up after {timeout:g} s, and that of "
                f"the API {ours[0]:g} and {ours[1]:g}",
                "give all nodes the same heartbeat, or --api of the gateway behind this address",
            )
        ]
    how = f"ping each {interval:g} s < silent after {timeout:g} s < the edge's {edge['read_timeout_s']:g} s, as set"
    if not interval < timeout < edge["read_timeout_s"]:
        return [wrong("timeouts", how, "set edge.read_timeout_s above heartbeat.websocket_ping_timeout, and render")]
    return [ok("timeouts", how + "; --patient waits for what really is")]


async def wait(target: Target) -> list[Finding]:
    """By waiting; as long as the node's timeout, and no longer than ``MOST_S``."""
    links: list[Link] = []
    try:
        for _ in range(2):
            links.append(await greet(target))
        live, mute = links
        mute.mute = True
        interval, timeout = mute.welcome["ping_interval"], mute.welcome["ping_timeout"]
        if timeout + SPARE_S > MOST_S:
            how = f"the node gives up after {timeout:g} s, which is longer than is waited for here"
            return [unknown("idle timeout", how)]
        return list(await asyncio.gather(_live(live, interval, timeout), _mute(mute, timeout)))
    except (NoAnswer, Refusal, Ended) as exc:
        return [unknown("idle timeout", str(exc))]
    finally:
        for link in links:
            link.cut()


async def _live(link: Link, interval: float, timeout: float) -> Finding:
    begun_s = time.monotonic()
    try:
        await link.stay(timeout + SPARE_S / 2)
    except Ended as exc:
        if exc.code == 4007:
            how = f"closed with 4007 after {link.pings} pings, all of them answered: the node hears no answer"
            return wrong("kept connection", how, "something in between swallows control frames")
        since_s = time.monotonic() - link.heard_s
        return _ended("kept connection", exc, since_s if since_s > 0.05 else time.monotonic() - begun_s)
    if not link.pings:
        return wrong(
            "kept connection",
            f"no control ping came within {number(timeout + SPARE_S / 2, 's')}, where one is due each {interval:g} s",
            "something in between swallows control frames",
        )
    return ok("kept connection", f"outlives {number(timeout, 's')} with {link.pings} pings answered")


async def _mute(link: Link, timeout: float) -> Finding:
    begun_s = time.monotonic()
    try:
        await link.stay(timeout + SPARE_S)
    except Ended as exc:
        took_s = time.monotonic() - begun_s
        if exc.code == 4007:
            return ok("idle timeout", f"one that does not answer is closed with 4007 after {number(took_s, 's')}")
        if exc.code is None and took_s >= timeout:
            return wrong(
                "idle timeout",
                f"one that does not answer is cut after {number(took_s, 's')}, without 4007",
                "something in between answers for it, or does not pass the close frame on",
            )
        return _ended("idle timeout", exc, took_s)
    return wrong(
        "idle timeout",
        f"one that answers nothing is there after {number(timeout + SPARE_S, 's')}, and should have {timeout:g} s",
        "something in between answers pings in the client's name",
    )
