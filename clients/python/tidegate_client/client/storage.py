"""Where done positions outlive the process. A storage has ``get_item``, ``set_item`` and ``remove_item``, which may be
coroutine functions and may fail: then the client goes on without it, and says so once."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tidegate_client.client.calling import carried_out
from tidegate_client.client.cursor import valid
from tidegate_client.client.model import Position

_READ_S = 2.0
_EVERY_S = 0.25
_VERSION = 1


class Storage(Protocol):
    """A ``dict`` does not have these; ``FileStorage`` does."""

    def get_item(self, key: str) -> Any: ...

    def set_item(self, key: str, value: str) -> Any: ...

    def remove_item(self, key: str) -> Any: ...


class FileStorage:
    """One file for each key, ``{folder}/{key}.json``, replaced as a whole. One process may use it at a time."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)

    def get_item(self, key: str) -> str | None:
        try:
            return self._path(key).read_text()
        except FileNotFoundError:
            return None

    def set_item(self, key: str, value: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(key)
        new = path.with_suffix(".new")
        new.write_text(value)
        new.replace(path)

    def remove_item(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


class Keeper:
    """Reads once, and writes what ``content`` gives, at most every 250 ms. ``failed`` is told of the first failure."""

    def __init__(
        self,
        storage: Storage | None,
        key: str,
        content: Callable[[], tuple[str | None, Mapping[str, Position]]],
        failed: Callable[[Exception], None],
        spawn: Callable[[Any], asyncio.Task[None]],
    ) -> None:
        self._storage, self._key = storage, key
        self._content, self._failed, self._spawn = content, failed, spawn
        self._told = False
        self._was_read = False
        self._dirty = False
        self._ended = False
        self._written: str | None = None
        self._writing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def read(self) -> tuple[str | None, dict[str, Position]] | None:
        """The client and its positions, the first time; None if there are none."""
        if self._storage is None or self._was_read:
            return None
        try:
            async with asyncio.timeout(_READ_S):
                text = await carried_out(self._storage.get_item, self._key)
        except Exception as exc:
            self._was_read = True
            self._fail(exc)
            return None
        self._was_read = True
        try:
            found = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or found.get("v") != _VERSION or not isinstance(found.get("positions"), dict):
            return None
        client = found.get("client")
        return client if isinstance(client, str) else None, valid(found["positions"])

    def changed(self) -> None:
        self._dirty = True
        writes = self._writing is not None and not self._writing.done()
        if self._storage is None or self._ended or not self._was_read or self._timer is not None or writes:
            return
        self._timer = asyncio.get_running_loop().call_later(_EVERY_S, self._begin)

    async def end(self) -> None:
        """Writes for the last time."""
        await self.flush()
        self._ended = True

    async def flush(self) -> None:
        """Writes what is not written yet."""
        self._stop_timer()
        if (writing := self._writing) is not None:
            await asyncio.wait([writing])
        if self._storage is not None and self._was_read and self._dirty:
            await self._write()
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self) -> None:
        self._timer = None
        self._writing = self._spawn(self._write())

    async def _write(self) -> None:
        assert self._storage is not None
        self._dirty = False
        client, positions = self._content()
        plain = {stream: [at.epoch, at.offset] for stream, at in positions.items()}
        text = json.dumps({"v": _VERSION, "client": client, "positions": plain}, separators=(",", ":"))
        try:
            if text != self._written:
                async with asyncio.timeout(_READ_S):
                    await carried_out(self._storage.set_item, self._key, text)
                self._written = text
        except Exception as exc:
            self._fail(exc)
        self._writing = None
        if self._dirty:
            self.changed()

    def _fail(self, exc: Exception) -> None:
        if not self._told:
            self._told = True
            self._failed(exc)
