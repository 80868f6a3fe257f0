"""Connections to each of the nodes behind an edge, as far as it chooses them."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from tidegate.doctor.link import Link, greet
from tidegate.doctor.report import Finding, ok, unknown, wrong
from tidegate.doctor.target import Target

HANDSHAKES_EACH = 3  # of one node, until it is given up that the edge chooses it
MOST_HANDSHAKES = 24


class Reached(NamedTuple):
    """``links``: the first that came to each node, by its name; ``all`` has the others as well. All are open."""

    links: dict[str, Link]
    all: list[Link]

    def cut(self) -> None:
        for link in self.all:
            link.cut()


async def reach(target: Target, nodes: Collection[str], handshakes: int | None = None) -> Reached:
    """Until ``nodes`` are reached, which are known to be there. Raises as ``link.greet``."""
    reached = Reached({}, [])
    most = min(HANDSHAKES_EACH * max(1, len(nodes)), MOST_HANDSHAKES) if handshakes is None else handshakes
    try:
        for _ in range(most):
            link = await greet(target)
            reached.all.append(link)
            reached.links.setdefault(link.welcome["node"], link)
            if handshakes is None and set(nodes) <= set(reached.links):
                break
    except BaseException:
        reached.cut()
        raise
    return reached


def judge(reached: Reached, nodes: Collection[str]) -> list[Finding]:
    """Whether they are those that the API knows; nothing to say where it knows none."""
    what = "nodes through the edge"
    if missed := sorted(set(nodes) - set(reached.links)):
        how = f"not reached in {len(reached.all)} handshakes: {', '.join(missed)}"
        do = "an edge prefers nodes with fewer connections; examine again, or see edge.upstreams"
        return [unknown(what, how, do)]
    if nodes and (strange := sorted(set(reached.links) - set(nodes))):
        how = f"{', '.join(strange)} answers behind the edge, and the API does not know it"
        do = "edge and API belong to different gateways, or nodes do not share broker.url and broker.prefix"
        return [wrong(what, how, do)]
    if not nodes:
        return []
    return [ok(what, "the only one is reached" if len(nodes) == 1 else f"all {len(nodes)} are reached")]
