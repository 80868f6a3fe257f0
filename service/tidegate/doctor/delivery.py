"""Whether what is pushed arrives, through each node; whether calls are answered; how much is taken for one who does not
read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from tidegate.doctor.api import Api, ApiError, Pushed
from tidegate.doctor.link import Ended, Link, NoAnswer, Refusal, greet
from tidegate.doctor.reach import judge, reach
from tidegate.doctor.report import Finding, number, ok, size, unknown, weak, wrong
from tidegate.doctor.target import Target

ARRIVAL_S = 10.0
CALL_S = 15.0
TAKEN_BYTES = 4 * 1024 * 1024  # beyond limits.outbox_bytes: what kernels and proxies hold on the way
_DATA = {"doctor": "<a href='http://doctor.invalid/'>é\u2028</a>", "n": 9007199254740993}


async def examine(target: Target, api: Api, nodes: Iterable[str]) -> list[Finding]:
    """A push to a client that has a connection to each node, as far as the edge chooses them; and how it is told that
    the application has disconnected it."""
    wanted = set(nodes)
    try:
        reached = await reach(target, wanted)
    except (NoAnswer, Refusal, Ended) as exc:
        return [unknown("push", str(exc))]
    try:
        findings = [await _push(api, reached.links), *judge(reached, wanted)]
        return [*findings, await _disconnect(api, reached.links)]
    finally:
        reached.cut()


async def _push(api: Api, links: Mapping[str, Link]) -> Finding:
    client = _client(links)
    begun_s = time.monotonic()
    try:
        position = await api.call("POST", f"/api/clients/{client}/push", {"data": _DATA}, shape=Pushed)
    except ApiError as exc:
        return unknown("push", str(exc), "a key that may push shows whether messages arrive")
    took_ms: list[float] = []
    for node, link in links.items():
        try:
            event = await link.event(ARRIVAL_S, type="message", epoch=position["epoch"], offset=position["offset"])
        except (Ended, TimeoutError) as exc:
            how = f"accepted, and not delivered by {node}" + (f": {exc}" if isinstance(exc, Ended) else "")
            return wrong(
                "push", how, f"see the log of {node}; does it share broker.url and broker.prefix with the API's?"
            )
        if event.get("data") != _DATA:
            how = f"{_DATA} arrived as {str(event.get('data'))[:120]}"
            return wrong(
                "push", how, "something in between rewrites what passes: take the path of the WebSocket out of it"
            )
        took_ms.append((time.monotonic() - begun_s) * 1000)
    return ok("push", f"arrives through {', '.join(sorted(links))} within {number(max(took_ms), 'ms')}")


async def _disconnect(api: Api, links: Mapping[str, Link]) -> Finding:
    link = next(iter(links.values()))
    try:
        await api.call("DELETE", f"/api/clients/{_client(links)}?connection={link.welcome['connection']}")
    except ApiError as exc:
        return unknown("close codes", str(exc), "a key that may manage shows whether they arrive")
    try:
        await link.until(lambda opcode, payload: False, ARRIVAL_S)
    except Ended as exc:
        if exc.code == 4501:
            return ok("close codes", "arrive: a client that is disconnected hears 4501")
        do = "something in between does not pass close frames on: clients cannot tell whether to come back"
        return wrong("close codes", f"a client that is disconnected with 4501 finds its connection {exc}", do)
    except TimeoutError:
        pass
    return wrong("close codes", "a client that is disconnected is not told", "see the log of its node")


def _client(links: Mapping[str, Link]) -> str:
    return next(iter(links.values())).welcome["client"]


# Calls


async def call(target: Target, method: str, settings: Mapping[str, Any] | None) -> Finding:
    """One call of ``method``, which should give back what it got."""
    if settings is not None and method not in settings["calls"]["allow"]:
        return ok("calls", f"{method} is not in calls.allow, so that none is made")
    try:
        link = await greet(target)
    except (NoAnswer, Refusal, Ended) as exc:
        return unknown("calls", str(exc))
    try:
        begun_s = time.monotonic()
        link.say(type="call", id="doctor", method=method, data={"doctor": 1})
        answer = await link.event(CALL_S, id="doctor")
    except (Ended, TimeoutError) as exc:
        return wrong(
            "calls",
            f"{method} is not answered" + (f": {exc}" if isinstance(exc, Ended) else ""),
            "see nginx's error log, and the node's",
        )
    finally:
        link.cut()
    took = number((time.monotonic() - begun_s) * 1000, "ms")
    if answer.get("type") == "reply":
        return ok(
            "calls",
            f"{method} is answered with {answer.get('status')} within {took}",
        )
    if answer.get("code") == "not_allowed":
        return ok("calls", f"{method} is not allowed, so that none is made; --call METHOD names another")
    do = "see that the application runs at calls.url; where nobody makes calls: calls.allow: []"
    return weak("calls", f"{method}: {answer.get('code')}: {answer.get('message')}", do)


# One who does not read


async def stall(target: Target, api: Api, settings: Mapping[str, Any]) -> Finding:
    """How much is taken for a client that reads nothing, until it is given up: what comes when it reads again."""
    limits = settings["limits"]
    data = "x" * (limits["data_bytes"] - 64)
    pushes = (limits["outbox_bytes"] + TAKEN_BYTES) // len(data) + 1
    try:
        link = await greet(target)
    except (NoAnswer, Refusal, Ended) as exc:
        return unknown("slow reader", str(exc))
    link.stop_reading()
    came = 0
    try:
        for _ in range(pushes):
            await api.call("POST", f"/api/clients/{link.welcome['client']}/push", {"data": data})
        link.read_on()
        while came < pushes:
            await link.event(ARRIVAL_S, type="message")
            came += 1
    except (ApiError, TimeoutError) as exc:
        return unknown("slow reader", str(exc) or f"nothing came for {ARRIVAL_S:g} s when it read again")
    except Ended as exc:
        return ok("slow reader", f"one that reads nothing is given up after {size(came * len(data))}: {exc}")
    finally:
        link.cut()
    do = "something in between takes whatever comes: nginx: proxy_buffering off; and edge.sndbuf_bytes at listen"
    taken, most = size(came * len(data)), size(limits["outbox_bytes"])
    return wrong("slow reader", f"{taken} are taken for one that reads nothing; limits.outbox_bytes is {most}", do)
