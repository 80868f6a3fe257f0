"""A slow reader of a group with the policy ``latest`` behind each edge: whatever edge and kernels hold for it, it hears
what was skipped, ends with the newest of each word, and stays. Its neighbour gets everything."""

from __future__ import annotations

import pytest

from tests.edges.edge import stand

KIB = 1024
WORDS = 3
BATCH, BATCHES = 30, 20


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["plain", "njs", "openresty-trunk"])
async def test_a_slow_reader_is_told_the_newest_of_each_word_again_and_again(variant: str) -> None:
    item = {"group": "prices", "data": "x" * 8 * KIB}
    batch = {"pushes": [item | {"conflate": f"w{number % WORDS}"} for number in range(BATCH)]}
    async with (
        stand(variant, GROUPS={"prices": {"slow": "latest"}}) as s,
        s.peer("slow", groups="prices", rcvbuf=16 * KIB) as slow,
        s.peer("neighbour", groups="prices") as neighbour,
    ):
        await slow.event()
        await neighbour.event()
        at = pushed = skipped = 0
        for _ in range(2):
            slow.reading.clear()
            for _ in range(BATCHES):
                assert (await s.node.call("POST", "/api/push", batch)).status == 200
                assert [event["offset"] for event in await neighbour.events(BATCH)] == [
                    *range(pushed + 1, pushed + BATCH + 1)
                ]
                pushed += BATCH
            slow.reading.set()
            messages = []
            while at < pushed:
                event = await slow.event(10)
                assert event.get("from", event.get("offset")) == at + 1
                at = event["to"] if event["type"] == "gap" else event["offset"]
                if event["type"] == "message":
                    messages.append(at)
                else:
                    assert event["reason"] == "skipped"
                    skipped += at + 1 - event["from"]
            assert messages[-WORDS:] == [*range(pushed + 1 - WORDS, pushed + 1)]
        assert skipped > pushed / 4
        assert slow.close_code is None
