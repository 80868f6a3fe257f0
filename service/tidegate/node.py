"""A node as a process: it runs until a signal ends it, and says in its log where it is and what is unsafe."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import shlex
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import tidegate
from tidegate import log
from tidegate.app import BACKLOG, App
from tidegate.auth import keys as auth_keys
from tidegate.auth.api_keys import ApiKeys
from tidegate.config import load as configuration
from tidegate.config.settings import Config
from tidegate.core.errors import Refused, Unusable
from tidegate.process import memory, open_files, signals
from tidegate.process.addresses import backlog_limit, url_host
from tidegate.process.manager import Manager


def warn_of_few(files: open_files.FileShares, config: Config) -> None:
    wanted = config.limits.connections
    if files.connections < wanted:
        log.warning(
            "connections.limited",
            message=f"this process may open {files.limit} files, which is enough for {files.connections} connections "
            f"and not for limits.connections, {wanted}: raise the hard limit to {files.needed} (LimitNOFILE, ulimits, "
            "ulimit -Hn), or lower limits.connections",
            connections=files.connections,
            open_files_limit=files.limit,
            open_files_needed=files.needed,
        )


def warn_of_backlog() -> None:
    limit = backlog_limit()
    if limit is not None and limit < BACKLOG:
        log.warning(
            "backlog.limited",
            message=f"the kernel lets {limit} connections wait to be accepted, where {BACKLOG} should: when all come "
            "back at once, those beyond wait a second on TCP and are refused on a Unix socket; raise "
            f"net.core.somaxconn to {BACKLOG}",
            backlog=limit,
        )


async def serve(config: Config, node: str, load_config: Callable[[], Config]) -> int:
    """Runs until a signal ends it (signals.py); the exit code. ``load_config`` reads the settings again."""
    hung_up = asyncio.Event()
    asked = signals.listen(config.server.drain_s, hung_up.set)
    open_files.raise_limit()
    memory.keep_large_blocks_out_of_the_heap()
    app = App(config, node)
    app.tasks.spawn(_follow(app, hung_up, load_config), "settings")
    warn_of_few(app.files, config)
    warn_of_backlog()
    for text in configuration.warnings(config):
        log.warning("config.unsafe", message=text)
    if await _unless_asked(app.start(), asked) is None:
        _say_where(app)
        gc.collect()
        gc.freeze()  # what exists now lives as long as the process: the collector need not look at it
        manager = Manager()
        app.tasks.spawn(manager.follow(partial(_is_known, app)), "manager")
        drain_s = await asked.get()
        manager.stopping()
        await _unless_asked(app.drain(drain_s), asked)
        await app.stop()
    log.info("service.stopped", duration_ms=int(time.time() * 1000) - app.started_ms)
    return 0


async def _is_known(app: App) -> bool:
    """Whether it takes clients, and nodes that stop now would tell theirs to come here."""
    with contextlib.suppress(Refused):
        return any(info.node == app.node and info.lag_ms is not None for info in await app.broker.nodes())
    return False


async def reread(app: App, new: Config) -> tuple[list[str], list[str]]:
    """The node takes the keys and group policies of ``new``. What has changed by that, in words without secrets; and
    which other settings differ, that only a restart takes. Raises ConfigError or Unusable, and then nothing has
    changed."""
    mixed = configuration.take(app.config, new)
    api_keys = ApiKeys(mixed.internal.api_keys)
    if app.api_keys.required and not api_keys.required:  # an emptied file opens nothing
        raise Unusable("internal.api_keys", "are no more; only a restart opens the API to everybody")
    keys = None if app.verifier is None else auth_keys.load(mixed.auth)
    changed = app.api_keys.take(api_keys)
    if app.verifier is not None and keys is not None:
        changed += app.verifier.take(mixed.auth, keys)
    changed += await app.policies.take(mixed.groups)
    if changed:
        for text in configuration.warnings(mixed):
            log.warning("config.unsafe", message=text)
    return changed, configuration.waiting(app.config, new)


async def _follow(app: App, hung_up: asyncio.Event, load_config: Callable[[], Config]) -> None:
    """Has the node take what its settings say anew, each time when it is told to look."""
    while True:
        await hung_up.wait()
        hung_up.clear()
        try:
            changed, waiting = await reread(app, await asyncio.to_thread(load_config))
        except (configuration.ConfigError, Unusable) as exc:
            log.warning("settings.refused", message="nothing has changed", error=str(exc))
        else:
            log.info("settings.read", changed=changed, need_restart=waiting)


async def _unless_asked(work: Coroutine[Any, Any, None], asked: asyncio.Queue[float]) -> float | None:
    """None when ``work`` is done. Should somebody ask for the end first, it is cancelled; over how many seconds."""
    working = asyncio.ensure_future(work)  # noqa: TID251 - held here, awaited below
    asking = asyncio.ensure_future(asked.get())  # noqa: TID251
    await asyncio.wait({working, asking}, return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        working.cancel()
        await asyncio.wait({working})
        return asking.result()
    asking.cancel()
    await working
    return None


def _say_where(app: App) -> None:
    config = app.config
    websocket = f"{url_host(config.server.hosts, config.server.address)}:{app.public_port}"
    console = f"http://{url_host(config.internal.hosts, config.internal.address)}:{app.internal_port}/"
    log.info(
        "service.started",
        version=tidegate.__version__,
        websocket=f"ws://{websocket}{config.server.path}",
        socket=config.server.socket,
        console=console,
        settings=configuration.effective(config),
    )
    log.say(f"Tidegate {tidegate.__version__} runs. Open {console} and push:")
    key = " -H 'Authorization: Bearer <key>'" if app.api_keys.required else ""
    data = """-H 'Content-Type: application/json' -d '{"data": {"n": 1}}'"""
    url = shlex.quote(f"{console}api/clients/alice/push")  # shells take [::1] for a pattern
    log.say(f"  curl {url}{key} {data}")
