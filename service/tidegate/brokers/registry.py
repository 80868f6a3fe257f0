"""The brokers by the name that ``broker.kind`` has for them: how each is made from the settings.

To add one: a package beside the others that keeps ``contract.Broker``, an entry here, its name in the setting
(``config.settings``, which a test compares), and a class for ``tests/brokers/contract.py``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

from tidegate.brokers.contract import Broker
from tidegate.config.settings import Config
from tidegate.core.push import PushLimits
from tidegate.metrics import Metrics


def make(config: Config, node: str, metrics: Metrics) -> Broker:
    """Not connected yet; its metrics are registered. Raises Unusable."""
    broker = KINDS[config.broker.kind](config, node, metrics)
    broker.register(metrics)
    return broker


# Each imports its broker only when that is wanted: the embedded one needs no client of Redis.


def _memory(config: Config, node: str, metrics: Metrics) -> Broker:
    from tidegate.brokers.memory.broker import MemoryBroker

    return MemoryBroker(
        epoch=secrets.token_hex(4),
        retention=config.retention,
        meta_age_s=config.history.meta_age_s,
        journal_bytes=config.limits.journal_bytes,
        records_per_client=config.limits.records_per_client,
    )


def _redis(config: Config, node: str, metrics: Metrics) -> Broker:
    from tidegate.brokers.redis.broker import RedisBroker

    return RedisBroker(
        url=config.broker.url,
        prefix=config.broker.prefix,
        node=node,
        retention=config.retention,
        meta_age_s=config.history.meta_age_s,
        limits=PushLimits(config.limits.data_bytes, config.limits.json_depth),
        tail_bytes=config.limits.journal_bytes,
        records_per_client=config.limits.records_per_client,
        ingress_entries=config.limits.ingress_entries,
        ingress_bytes=config.limits.ingress_bytes,
        events=config.events.messages if config.events.enabled else 0,
        observe=metrics.pushed,
    )


KINDS: Mapping[str, Callable[[Config, str, Metrics], Broker]] = {"memory": _memory, "redis": _redis}
