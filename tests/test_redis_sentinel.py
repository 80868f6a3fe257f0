"""A failover by a real trio of Sentinels while messages flow."""

from __future__ import annotations

import asyncio

from service.errors import BrokerDown
from service.model import Position, Publication
from tests.broker_contract import push
from tests.redis_nodes import Node
from tests.redis_server import Trio
from tests.support import Logs, eventually


async def test_a_failover_while_messages_flow_is_survived_and_its_loss_announced(expected_logs: Logs):
    expected_logs.allow("redis.went_back")
    with Trio() as trio:
        async with Node(trio.url, "n1") as one, Node(trio.url, "n2") as two:
            await one.broker.subscribe("group:a")
            alone = await push(two.broker, "group:nobody", b"1")
            accepted: dict[Position, bytes] = {}
            flowing = True

            async def flow() -> None:
                number = 0
                while flowing:
                    number += 1
                    data = b"%d" % number
                    (answer,) = await two.broker.publish([Publication("group:a", data, f"k{number}")])
                    while isinstance(answer, BrokerDown):
                        await asyncio.sleep(0.05)
                        (answer,) = await two.broker.publish([Publication("group:a", data, f"k{number}")])
                    assert isinstance(answer, Position)
                    assert accepted.setdefault(answer, data) == data
                    await asyncio.sleep(0.01)

            flow_task = asyncio.ensure_future(flow())  # noqa: TID251
            await eventually(lambda: len(one.heard.of("group:a")) > 20)
            old = trio.master
            old.kill()
            before = len(accepted)
            await eventually(lambda: len(accepted) > before + 50, 40)
            assert trio.master is not old
            flowing = False
            await flow_task
            await one.up()
            newest = list(accepted)[-1]
            await eventually(lambda: one.heard.data("group:a")[-1] == accepted[newest], 10)

            heard, gaps = one.heard.data("group:a"), one.heard.gaps("group:a")
            assert len(set(heard)) == len(heard) or gaps
            if not gaps:  # nothing was lost: then nothing may be missing
                assert heard == list(accepted.values())
                assert newest.epoch == alone[0].epoch.partition(".")[0] + "." + newest.epoch.partition(".")[2]
            else:
                page = await two.broker.history("group:nobody", alone[0], messages=10, size=100)
                assert page.gap is not None
            # What the present epoch says was accepted, its followers have heard.
            assert {data for position, data in accepted.items() if position.epoch == newest.epoch} <= set(heard)
