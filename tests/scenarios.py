"""Plays the scenarios of vectors/protocol.json: commands, and the answers that they must get. docs/vectors.md
says how one is written."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.peer import Peer, Refusal
from tidegate.app import App
from tidegate.core.model import Position, Publication, encode_cursor

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "protocol.json").read_text())


def settings(tree: dict[str, Any]) -> dict[str, Any]:
    """Settings as config.yaml has them, in the form that ``running`` takes."""
    flat = {
        f"{section}__{name}".upper(): value
        for section, values in tree.items()
        if section != "groups"
        for name, value in values.items()
    }
    return flat | ({"GROUPS": tree["groups"]} if "groups" in tree else {})


class Application:
    """What an application does through the HTTP API."""

    def __init__(self, app: App) -> None:
        self._gateway = app.gateway
        self.does: dict[str, Callable[..., Awaitable[None]]] = {
            "push": self._push,
            "member": self._member,
            "no member": self._no_member,
            "disconnect": self._disconnect,
        }

    async def _push(self, stream: str, data: Any) -> None:
        (result,) = await self._gateway.push([Publication(stream, json.dumps(data).encode())])
        assert isinstance(result, Position)

    async def _member(self, group: str, client: str) -> None:
        await self._gateway.add_member(group, client)

    async def _no_member(self, group: str, client: str) -> None:
        await self._gateway.remove_member(group, client)

    async def _disconnect(self, client: str) -> None:
        await self._gateway.disconnect(client, None)


class Play:
    """One scenario on one public port. ``peers`` are those that are connected, by their names in the scenario; ``key``
    signs their tokens."""

    def __init__(self, port: int, application: Application, key: str = "") -> None:
        self.peers: dict[str, Peer] = {}
        self._port = port
        self._application = application
        self._key = key
        self._bound: dict[str, Any] = {}

    async def steps(self, steps: list[dict[str, Any]]) -> None:
        """Raises AssertionError where something else comes than what is written, and where something is left over."""
        try:
            for number, step in enumerate(steps, 1):
                ((what, value),) = step.items()
                try:
                    await self._step(what, self._filled(value))
                except AssertionError as exc:
                    raise AssertionError(f"step {number}, {what}: {exc}") from exc
            for peer in self.peers.values():
                peer.send(type="ping", id="the end")
                event = await peer.event()
                assert event.get("id") == "the end", f"left over: {event}"
        finally:
            for peer in self.peers.values():
                await peer.cut()

    async def _step(self, what: str, value: Any) -> None:
        if what in self._application.does:
            await self._application.does[what](**value)
            return
        who, _, does = what.partition(" ")
        match does:
            case "opens":
                self.peers[who] = self._peer(who, value)
                await self.peers[who].connect()
            case "is refused":
                with pytest.raises(Refusal) as refused:
                    await self._peer(who, value["query"]).connect()
                assert (refused.value.status, refused.value.code) == (value["status"], value["code"])
            case "sends":
                self.peers[who].send(**self._with_token(value))
            case "sends text":
                self.peers[who].send_text(value)
            case "gets":
                self._match(value, await self.peers[who].event())
            case "gets text":
                assert (await self.peers[who].raw()).decode() == value
            case "gets, in any order":
                events = {event["type"]: event for event in await self.peers[who].events(len(value))}
                for wanted in value:
                    self._match(self._filled(wanted), events[wanted["type"]])
            case "is closed":
                peer = self.peers.pop(who)
                assert await peer.ended() == value
                await peer.cut()
            case "goes":
                await self.peers.pop(who).cut()
            case _:
                raise AssertionError("no such step")

    def _peer(self, who: str, query: dict[str, Any]) -> Peer:
        """``query`` may name another client, and has a cursor as text or as positions. Where there are tokens it has
        one, or none."""
        query = self._with_token(query) if self._key else {"client": who, **query}
        if isinstance(query.get("cursor"), dict):
            positions = {stream: Position(*position) for stream, position in query["cursor"].items()}
            query["cursor"] = encode_cursor(positions)
        return Peer(self._port, **query)

    def _with_token(self, fields: dict[str, Any]) -> dict[str, Any]:
        """A token that is an object becomes one; its ``exp`` counts from now."""
        claims = fields.get("token")
        if not isinstance(claims, dict):
            return fields
        claims = {**claims, "exp": math.ceil(time.time()) + claims["exp"]}
        return {**fields, "token": jwt.encode(claims, self._key, "HS256")}

    def _filled(self, value: Any) -> Any:
        """With what the names that begin with ``$`` stand for, where they stand for something already."""
        match value:
            case str():
                return self._bound.get(value, value)
            case list():
                return [self._filled(item) for item in value]
            case dict():
                return {key: self._filled(item) for key, item in value.items()}
        return value

    def _match(self, wanted: Any, got: Any) -> None:
        """``$_`` stands for anything, another ``$name`` for the same each time, and the key ``$rest`` for other
        keys."""
        if isinstance(wanted, str) and wanted.startswith("$"):
            if wanted != "$_":
                self._bound[wanted] = got
        elif isinstance(wanted, dict) and isinstance(got, dict):
            keys = [key for key in got if key in wanted] if wanted.pop("$rest", None) else list(got)
            assert list(wanted) == keys, f"other keys, or in another order: {got}"
            for key, item in wanted.items():
                self._match(self._filled(item), got[key])
        elif isinstance(wanted, list) and isinstance(got, list):
            assert len(wanted) == len(got), f"{len(got)} instead of {len(wanted)}: {got}"
            for item, one in zip(wanted, got, strict=True):
                self._match(self._filled(item), one)
        else:
            assert type(wanted) is type(got), f"{got!r} instead of {wanted!r}"
            assert wanted == got, f"{got!r} instead of {wanted!r}"
