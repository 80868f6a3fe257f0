"""``tidegate serve``: one node, until a signal ends it."""

from __future__ import annotations

import argparse

from tidegate.cli.command import LoadConfig

DESCRIPTION = (
    "Run the gateway until it is told to end: SIGTERM or SIGINT drains it, a second one ends it at once. SIGHUP has it "
    "read keys and group policies again."
)
EXAMPLES = ("tidegate serve", "tidegate --config /etc/tidegate/config.yaml serve")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None: all is in the configuration."""


def run(args: argparse.Namespace, load_config: LoadConfig) -> int:
    import uvloop

    from tidegate import app, log
    from tidegate import node as process
    from tidegate.config import load as configuration
    from tidegate.core.errors import BrokerDown, Unusable
    from tidegate.process import signals

    config = load_config()
    signals.ignore()
    node = app.node_id(config.server.node)
    log.setup(config.log.level, node)
    try:
        return uvloop.run(process.serve(config, node, load_config))
    except (Unusable, BrokerDown) as exc:
        unusable = (
            exc
            if isinstance(exc, Unusable)
            else Unusable("broker.url", f"{exc}; see that it runs and lets this node in, or set another")
        )
        fault = str(configuration.problem(config, unusable))
        log.error("service.failed", error=fault)
        log.say(f"cannot start: {fault}", to=log.STDERR)
        return 1
    except (OSError, ValueError) as exc:
        log.error("service.failed", error=f"{type(exc).__name__}: {exc}")
        log.say(f"cannot start: {exc}", to=log.STDERR)
        return 1
    finally:
        signals.ignore_all()
