"""What ``check --nginx`` makes of configurations that were made at random, against what nginx makes of them: for each
name that a server has, whether a handshake gets through."""

from __future__ import annotations

import asyncio

import pytest

from tests.nginx.generated import PATH, Writer
from tests.nginx.judge import Client, Stand, Started, handshake, stand
from tidegate.nginx import files
from tidegate.nginx.arrival import Gateway
from tidegate.nginx.model import Model
from tidegate.nginx.trips import Follower, entries

SEED = 15


async def compared(nginx: Started, s: Stand) -> tuple[int, list[str]]:
    """How many handshakes got through, and where the walk says otherwise."""
    port = nginx.ports["PORT"]
    try:
        await nginx.process.port(port)
    except AssertionError as exc:  # it did not start, or its port was taken
        return 0, [str(exc)]
    gateway = Gateway(s.config)
    model = Model(files.read(str(nginx.file)))
    follower = Follower(model, gateway)
    passed, wrong = 0, []
    for entry in (entry for entry in entries(model, gateway) if entry.listen.port):
        trip = follower.trip(entry, PATH)
        works = trip.reached is True and trip.works
        failure = await handshake(Client(port, entry.host, PATH, False), 0)
        passed += not failure
        if works != (not failure):
            said = [str(finding) for finding in trip.findings] or trip.end
            wrong.append(f"as {entry.host}: {failure or 'works'}, and {said} is said of\n{nginx.text}")
    return passed, wrong


async def compare(configurations: int, seed: int) -> tuple[int, list[str]]:
    writer = Writer(seed)
    passed, wrong = 0, list[str]()
    async with stand() as s:
        for _ in range(0, configurations, 50):
            texts = [writer.configuration() for _ in range(min(configurations, 50))]
            results = await asyncio.gather(*(compared(nginx, s) for nginx in s.start(*texts)))
            passed += sum(good for good, _ in results)
            # Once more, each by itself: another test may have taken a port, and a busy machine cuts.
            for text in [text for text, (_, bad) in zip(texts, results, strict=True) if bad]:
                wrong += (await compared(s.start(text)[0], s))[1]
            s.stop()
    return passed, wrong


@pytest.mark.parametrize(
    ("configurations", "seed"), [(50, SEED), pytest.param(500, SEED + 1, marks=pytest.mark.slow)], ids=["few", "many"]
)
async def test_a_walk_ends_where_nginx_ends(configurations: int, seed: int) -> None:
    passed, wrong = await compare(configurations, seed)
    assert not wrong, f"{len(wrong)} times, first\n{wrong[0]}"
    assert passed > configurations / 5, "most are refused, and that is no proof"
