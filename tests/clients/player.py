"""Plays the scenarios of vectors/clients.json: what a gateway does, what an application does, and what must come of it.
docs/vectors.md says how one is written."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.clients.driver import Driver, Line
from tests.clients.gateway import Connection, Gateway
from tests.support import scaled

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent.parent / "vectors" / "clients.json").read_text())

LIMITS = {"message_bytes": 131072, "data_bytes": 65536, "groups": 100}

_WITHIN_S = 4.0
_POLL_S = 0.004
_UNASKED = ("state", "joined", "positions")  # kinds of lines that no step needs to name


class Play:
    """One scenario, with a gateway and a driver of its own."""

    def __init__(self, scenario: Mapping[str, Any], gateway: Gateway, driver: Driver) -> None:
        self._scenario = scenario
        self._gateway = gateway
        self._driver = driver
        self._taken: set[int] = set()  # indexes of lines
        self._come = 0  # connections that a step has told of
        self._ended_s = 0.0  # when the gateway last ended something
        self._last_answer: dict[int, Any] = {}  # connection -> the id of the command that it heard last
        self._data: dict[int, str] = {}  # connection -> the ``data`` of the command that it heard last, as it was sent
        self._bound: dict[str, Any] = {}
        self._obeying: dict[int, asyncio.Task[None]] = {}

    async def play(self) -> None:
        """Raises AssertionError where something else happens than what is written, and where something is left over."""
        options = {"pingInterval_s": 30, "backoff_s": [0.01, 0.05], **self._scenario.get("options", {})}
        if "token" not in options:
            options.setdefault("client", "alice")
        options.setdefault("autoConnect", False)
        options = {key: value for key, value in options.items() if value is not None}
        self._ended_s = time.monotonic()
        if self._scenario.get("gateway") == "stopped":
            await self._gateway.stop()
        self._driver.order({"do": "open", "url": self._gateway.url, "options": options})
        for order in _each(self._scenario.get("before", [])):
            self._driver.order(self._filled(order))
        if not options["autoConnect"]:
            self._driver.order({"do": "connect"})
        for number, step in enumerate(_each(self._scenario["steps"]), 1):
            try:
                await self._step(next(iter(step)), self._filled(step))
            except AssertionError as exc:
                raise AssertionError(f"step {number}, {json.dumps(step)}: {exc}\n{self._story()}") from exc
        try:
            await self._nothing_is_left()
        except AssertionError as exc:
            raise AssertionError(f"at the end: {exc}\n{self._story()}") from exc
        finally:
            for task in self._obeying.values():
                task.cancel()
            await asyncio.gather(*self._obeying.values(), return_exceptions=True)

    # Steps

    async def _step(self, what: str, step: dict[str, Any]) -> None:
        value = step[what]
        if found := re.fullmatch(r"(\d+) (.+)", what):
            await self._of_connection(int(found[1]), found[2], value, step)
            return
        match what:
            case "do":
                self._driver.order(step)
            case "gives":
                self._driver.order(value)
            case "asks":
                line = await self._line(f"asks {value}")
                self._match({key: wanted for key, wanted in step.items() if key != "asks"}, line.said)
            case "told":
                await self._told(value)
            case "told message":
                for wanted in _messages(value):
                    del wanted["time"]
                    await self._told({"heard": "message", **wanted})
            case "told in order":
                before = 0.0
                for wanted in value:
                    index = await self._told(wanted)
                    assert index >= before, f"{wanted} came before what was to come first"
                    before = index
            case "states":
                for wanted in value:
                    line = await self._line("state")
                    words = [line.said.get(key) for key in ("state", "word", "code")]
                    said = " ".join(str(word) for word in words[: len(wanted.split())])
                    assert said == wanted, f"{line.said} instead of {wanted}"
            case "quiet_s":
                await self._quiet(value)
            case "pause_s":
                await asyncio.sleep(value)
            case "freezes":
                self._driver.freeze()
            case "thaws":
                self._driver.thaw()
            case "gateway":
                await (self._gateway.start() if value == "starts" else self._gateway.stop())
                self._ended_s = time.monotonic()
            case _:
                raise AssertionError("no such step")

    async def _of_connection(self, number: int, what: str, value: Any, step: dict[str, Any]) -> None:
        if what == "comes":
            await self._comes(number, value or {}, step)
            return
        assert number <= self._come, f"connection {number} has not come yet"
        it = self._gateway.connections[number - 1]
        match what:
            case "accepts":
                it.accept()
            case "welcomes":
                self._welcome(it, value or {}, step.get("with", {}))
            case "refuses":
                it.refuse(value, step.get("code", "refused"), step.get("retry_after"))
                self._ended_s = time.monotonic()
            case "says":
                it.say(value)
            case "pushes":
                for message in _messages(value):
                    it.say({"type": "message", **message})
                    if message["stream"] in it.streams:
                        it.streams[message["stream"]] = [message["epoch"], message["offset"]]
            case "says text":
                it.say_text(value)
            case "says bytes":
                it.say_bytes(value.encode())
            case "says half":
                it.say_half(value)
            case "hears":
                await self._hears(it, value)
                if "same bytes as" in step:
                    assert self._data[number] == self._data[step["same bytes as"]], "other bytes"
            case "hears, in any order":
                await self._wait(lambda: len(it.commands) >= len(value), "they were not sent")
                it.commands.sort(key=lambda said: _rank(said, value))
                for wanted in value:
                    await self._hears(it, wanted)
            case "answers":
                it.say({"type": "reply", "id": self._last_answer[number], **value})
            case "refuses it":
                it.say(
                    {"type": "error", "id": self._last_answer[number], "code": value, "message": "said by the scenario"}
                )
            case "is pinged":
                before = self._bound.get(f"pings {number}", 0)
                await self._wait(lambda: it.pings > before, "no ping came", step)
                self._bound[f"pings {number}"] = it.pings
            case "obeys":
                self._obeying[number] = asyncio.create_task(self._obey(it))  # noqa: TID251
            case "has":
                await self._wait(lambda: self._has(it, value), lambda: f"it has {it.streams}")
            case "lacks":
                groups = [order["group"] for order in _each(self._scenario.get("before", []))]
                lacking = [name for name in groups if f"group:{self._filled(name)}" not in it.streams]
                assert lacking, "it has all of them"
                self._bound[value] = f"group:{self._filled(lacking[0])}"
            case "answers no pings":
                it.answers_pings = False
            case "closes":
                it.close(value, step.get("reason", ""))
                self._ended_s = time.monotonic()
            case "ends":
                it.end()
                self._ended_s = time.monotonic()
            case "resets":
                it.reset()
                self._ended_s = time.monotonic()
            case "is left":
                await self._wait(it.gone.is_set, "it is still there", step)
                assert value is None or it.close_code == value, f"closed with {it.close_code}"
            case "stays":
                assert not it.gone.is_set(), f"closed with {it.close_code}"
            case _:
                raise AssertionError("no such step")

    async def _comes(self, number: int, wanted: dict[str, Any], step: dict[str, Any]) -> None:
        assert number == self._come + 1, "connections come in order"
        first_s, last_s = step.get("after_s", [0, _WITHIN_S])
        await self._wait(lambda: len(self._gateway.connections) >= number, "nobody came", {"within_s": last_s})
        self._come = number
        it = self._gateway.connections[number - 1]
        after_s = it.came_s - self._ended_s
        assert first_s - 0.005 <= after_s, f"after {after_s:.3f} s"
        assert len(it.target) <= 6 * 1024, f"a target of {len(it.target)} bytes"
        for key, value in wanted.items():
            match key:
                case "cursor" if value is None or isinstance(value, str):
                    assert it.query.get("cursor") == value, it.target
                case "cursor":
                    got = {stream: it.positions.get(stream) for stream in value}
                    assert got == value, f"it brings {it.positions}"
                case "groups":
                    assert sorted(it.groups) == sorted(value), f"it names {it.groups}"
                case "token":
                    assert it.tokens == ([] if value is None else [value]), f"it brings {it.tokens}"
                case _:
                    assert it.query.get(key) == value, it.target

    def _welcome(self, it: Connection, changed: dict[str, Any], extra: dict[str, Any]) -> None:
        """What a gateway would say to which nothing happened meanwhile, but for what is ``changed``."""
        if not it.accepted:
            it.accept()
        client = it.query.get("client", "alice")
        streams: dict[str, Any] = {
            stream: {"epoch": epoch, "offset": offset, "top": offset, "recovered": True, "missed": 0}
            for stream, (epoch, offset) in it.positions.items()
        }
        for stream in [f"client:{client}", "all", *(f"group:{group}" for group in it.groups)]:
            streams.setdefault(stream, {"epoch": "e", "offset": 0, "top": 0})
        for stream, state in changed.items():
            if state is None:
                streams.pop(stream, None)
            elif isinstance(state, dict):
                streams[stream] = state
            else:
                epoch, offset = state
                streams[stream] = {"epoch": epoch, "offset": offset, "top": offset}
        it.streams = {stream: [state["epoch"], state["offset"]] for stream, state in streams.items()}
        head = {"type": "welcome", "client": client, "connection": f"n1-{it.number}", "node": "n1"}
        it.say(head | {"ping_interval": 30, "ping_timeout": 60, "limits": LIMITS} | extra | {"streams": streams})

    async def _hears(self, it: Connection, wanted: dict[str, Any]) -> None:
        await self._wait(lambda: it.commands, "it was not sent")
        said = it.commands.pop(0)
        self._data[it.number] = it.raw.pop(0)
        self._last_answer[it.number] = said.get("id")
        if "id" not in wanted:
            said = {key: value for key, value in said.items() if key != "id"}
        if "key" not in wanted:
            said = {key: value for key, value in said.items() if key != "key"}
        elif wanted["key"] is None:
            wanted = {key: value for key, value in wanted.items() if key != "key"}
        assert said.keys() == wanted.keys(), f"it was sent {said}"
        self._match(wanted, said)

    # What the driver has written

    async def _told(self, wanted: dict[str, Any]) -> int:
        """The index of the line."""
        line = await self._line(_channel(wanted))
        self._match(wanted, line.said)
        return next(index for index, other in enumerate(self._driver.lines) if other is line)

    async def _line(self, channel: str) -> Line:
        """The next one of this kind; what tells of a join is passed over where something else is wanted."""

        def find() -> int | None:
            for index, line in enumerate(self._driver.lines):
                if index not in self._taken and _channel(line.said) == channel:
                    if channel == "state" and self._is_repeated(index):
                        self._taken.add(index)
                    else:
                        return index
            return None

        await self._wait(lambda: find() is not None, f"nothing of the kind {channel!r} was told")
        index = find()
        assert index is not None
        self._taken.add(index)
        return self._driver.lines[index]

    def _is_repeated(self, index: int) -> bool:
        """A state is told once, or again with another reason: that is the library's to decide."""
        before = [line.said for line in self._driver.lines[:index] if "state" in line.said]
        return bool(before) and before[-1]["state"] == self._driver.lines[index].said["state"]

    async def _quiet(self, quiet_s: float) -> None:
        """For so long nobody comes, and nothing is told but what need not be asked for."""
        lines = len(self._driver.lines)
        await asyncio.sleep(quiet_s)
        told = [line.said for line in self._driver.lines[lines:] if not self._is_unasked(line.said)]
        assert not told, f"told: {told}"
        assert len(self._gateway.connections) == self._come, "somebody came"

    async def _nothing_is_left(self) -> None:
        """Behind all that was said, and all that it led to."""
        lines = len(self._driver.lines)
        self._driver.order({"do": "positions"})
        await self._wait(
            lambda: any("positions" in line.said for line in self._driver.lines[lines:]), "the driver is mute"
        )
        left = [
            line.said
            for index, line in enumerate(self._driver.lines[: len(self._driver.lines)])
            if index not in self._taken and not self._is_unasked(line.said)
        ]
        assert not left, f"nobody asked for {left}"
        assert len(self._gateway.connections) == self._come, f"{len(self._gateway.connections)} connections came"
        for it in self._gateway.connections:
            assert not it.commands, f"connection {it.number} was sent {it.commands}"
            assert not it.texts, f"connection {it.number} was sent {it.texts}"
        assert not self._gateway.wrong, self._gateway.wrong

    @staticmethod
    def _has(it: Connection, wanted: dict[str, Any]) -> bool:
        return all(it.streams.get(stream) == position for stream, position in wanted.items())

    async def _obey(self, it: Connection) -> None:
        """Answers joins and leaves as a gateway does where nothing was missed."""
        while True:
            await self._wait(lambda: it.commands, "", {"within_s": 60})
            command = it.commands.pop(0)
            it.raw.pop(0)
            assert command["type"] in ("join", "leave"), command
            stream = f"group:{command['group']}"
            answer: dict[str, Any] = {"type": "reply", "id": command["id"], "stream": stream}
            if command["type"] == "leave":
                it.streams.pop(stream, None)
            else:
                if "epoch" in command:
                    it.streams[stream] = [command["epoch"], command["offset"]]
                epoch, offset = it.streams.setdefault(stream, ["e", 0])
                answer |= {"epoch": epoch, "offset": offset, "top": offset}
                if "epoch" in command:
                    answer |= {"recovered": True, "missed": 0}
            it.say(answer)

    def _is_unasked(self, said: Mapping[str, Any]) -> bool:
        return _channel(said).split()[0] in (*_UNASKED, *self._scenario.get("may", []))

    async def _wait(
        self, condition: Callable[[], Any], complaint: str | Callable[[], str], step: Mapping[str, Any] | None = None
    ) -> None:
        end_s = time.monotonic() + scaled((step or {}).get("within_s", _WITHIN_S))
        while not condition():
            assert time.monotonic() < end_s, complaint if isinstance(complaint, str) else complaint()
            assert not self._gateway.wrong, self._gateway.wrong
            await asyncio.sleep(_POLL_S)

    def _story(self) -> str:
        lines = [json.dumps(line.said) for line in self._driver.lines]
        came = [
            f"{it.number}: {it.target}, then {it.commands}, closed {it.close_code}" for it in self._gateway.connections
        ]
        return "\n".join(["the driver wrote", *lines[-30:], "connections", *came])

    # Values

    def _filled(self, value: Any) -> Any:
        """With what names that begin with ``$`` stand for; ``$x*70000`` is a text of that length, ``<long>`` one of a
        hundred letters."""
        match value:
            case str() if value.startswith("$x*"):
                return "x" * int(value[3:])
            case str():
                return self._bound.get(value, value.replace("<long>", "g" * 100))
            case list():
                return [self._filled(item) for item in value]
            case dict():
                return {self._filled(key): self._filled(item) for key, item in value.items()}
        return value

    def _match(self, wanted: Any, got: Any) -> None:
        """Each key that is wanted, null where it may be missing; more may be there. ``$_`` stands for anything."""
        if isinstance(wanted, str) and wanted.startswith("$"):
            if wanted != "$_":
                self._bound[wanted] = got
        elif isinstance(wanted, dict) and isinstance(got, dict):
            for key, item in wanted.items():
                assert key in got or item is None, f"no {key} in {got}"
                self._match(item, got.get(key))
        else:
            assert wanted == got, f"{got!r} instead of {wanted!r}"


def _channel(said: Mapping[str, Any]) -> str:
    """Lines of one kind come in order; between two kinds there is none."""
    match said:
        case {"state": str()}:
            return "state"
        case {"heard": "error"}:
            return "error"
        case {"heard": "joined"}:
            return f"joined {said.get('stream')}"
        case {"heard": _}:
            return f"heard {said.get('stream')}"
        case {"answer": name}:
            return f"answer {name}"
        case {"asks": "state"}:
            return "asks state"
        case {"asks": what}:
            return f"asks {what}"
    return next(iter(said), "nothing")


def _each(steps: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """``{"each": [1, 40], "step": {…}}`` stands for 40 of them, with the number for ``<n>``."""
    for step in steps:
        if "each" not in step:
            yield step
            continue
        first, last = step["each"]
        for number in range(first, last + 1):
            yield json.loads(json.dumps(step["step"]).replace("<n>", str(number)))


def _messages(value: list[Any]) -> list[dict[str, Any]]:
    """``["group:news", "e", 42]``, with ``data`` behind it or without, and a range ``[42, 60]`` for many."""
    stream, epoch, at, *data = value
    first, last = at if isinstance(at, list) else (at, at)
    return [
        {
            "stream": stream,
            "epoch": epoch,
            "offset": offset,
            "time": 1792612345678,
            "data": data[0] if data else {"n": offset},
        }
        for offset in range(first, last + 1)
    ]


def _rank(said: Mapping[str, Any], wanted: list[dict[str, Any]]) -> int:
    """Which of those that are wanted it may be."""
    for index, one in enumerate(wanted):
        if all(said.get(key) == value for key, value in one.items()):
            return index
    return len(wanted)
