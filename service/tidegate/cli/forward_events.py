"""``tidegate forward-events``: posts events to the application, until a signal ends it."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING

from tidegate.cli.command import LoadConfig

if TYPE_CHECKING:
    from tidegate.config.settings import Config
    from tidegate.forwarder import Forwarder

DESCRIPTION = (
    "Post who comes and goes to events.url, in signed batches: connected, disconnected, joined, left, lost. Run it "
    "beside the gateway, with the same configuration; of several one works, and another takes over. SIGTERM or SIGINT "
    "ends it when the request under way is answered, a second one at once."
)
EXAMPLES = (
    "TIDEGATE_EVENTS__KEY=... tidegate forward-events",
    "tidegate --config /etc/tidegate/config.yaml forward-events",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None: all is in the configuration."""


def run(args: argparse.Namespace, load_config: LoadConfig) -> int:
    import uvloop

    from tidegate import log
    from tidegate.config import load as configuration
    from tidegate.core.errors import Unusable
    from tidegate.process import signals

    config = load_config()
    signals.ignore()
    log.setup(config.log.level, "")
    try:
        return uvloop.run(_forward(config))
    except Unusable as exc:
        fault = str(configuration.problem(config, exc))
        log.error("forwarder.failed", error=fault)
        log.say(f"cannot start: {fault}", to=log.STDERR)
        return 1
    finally:
        signals.ignore_all()


async def _forward(config: Config) -> int:
    """Runs until a signal ends it; the exit code."""
    import tidegate
    from tidegate import log
    from tidegate.config import load as configuration
    from tidegate.forwarder import Forwarder
    from tidegate.process import signals
    from tidegate.tasks import Tasks

    forwarder = Forwarder(config)
    asked = signals.listen(config.events.timeout_s, _hung_up)
    tasks = Tasks()
    settings = configuration.effective(config)
    log.info("forwarder.started", version=tidegate.__version__, events=settings["events"], broker=settings["broker"])
    running = tasks.spawn(forwarder.run(), "forwarder")
    stopping = tasks.spawn(_stop(forwarder, asked), "signals")
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    await tasks.cancel_all()
    failed = not running.cancelled() and running.exception() is not None
    log.info("forwarder.stopped")
    return 1 if failed else 0


async def _stop(forwarder: Forwarder, asked: asyncio.Queue[float]) -> None:
    """Returns where it shall end at once."""
    await asked.get()
    forwarder.stop()
    await asked.get()


def _hung_up() -> None:
    from tidegate import log

    log.info("signal.ignored", signal="SIGHUP", message="settings are read at the start: restart it")
