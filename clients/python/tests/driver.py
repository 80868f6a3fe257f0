"""The Python client's driver: one client, ordered about and telling by JSON lines. clients/README.md says which."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tidegate_client.client import Client, ClientError, Closed, Gap, Joined, Message, NotAllowed, Subscription

_OPTIONS = {
    "client": "client",
    "device": "device",
    "last": "last",
    "storageKey": "storage_key",
    "welcomeTimeout_s": "welcome_timeout_s",
    "answerTimeout_s": "answer_timeout_s",
    "pingInterval_s": "ping_interval_s",
    "pongTimeout_s": "pong_timeout_s",
    "backoff_s": "backoff_s",
    "stable_s": "stable_s",
    "giveUpAfter_s": "give_up_after_s",
    "queueLimit": "queue_limit",
}
_KEYS = ("data", "key", "conflate", "traceparent", "limit", "token", "method")
_COMMANDS = ("publish", "history", "presence", "call", "refresh", "ping")


def say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


class Storage:
    def __init__(self, content: Any) -> None:
        self.throws = content == "throws"
        self.items: dict[str, str] = {}
        if isinstance(content, dict):
            self.items = {key: value if isinstance(value, str) else json.dumps(value) for key, value in content.items()}

    def get_item(self, key: str) -> str | None:
        self._may_throw()
        return self.items.get(key)

    def set_item(self, key: str, value: str) -> None:
        self._may_throw()
        self.items[key] = value

    def remove_item(self, key: str) -> None:
        self._may_throw()
        self.items.pop(key, None)

    def _may_throw(self) -> None:
        if self.throws:
            raise OSError("the storage is broken")


class Driver:
    client: Client

    def __init__(self) -> None:
        self.storage: Storage | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.asked: dict[str, list[tuple[int, asyncio.Future[dict[str, Any]]]]] = {}
        self.counts: dict[str, int] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        reader = asyncio.StreamReader(limit=2**24)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        say(ready=True)
        while line := await reader.readline():
            order = json.loads(line)
            if order.get("do") in (*_COMMANDS, "close", "disconnect"):
                task = asyncio.get_running_loop().create_task(self.carry_out(order))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
                await asyncio.sleep(0)  # it has begun before the next order
            else:
                await self.carry_out(order)

    async def carry_out(self, order: dict[str, Any]) -> None:
        match order.get("do"):
            case "open":
                self.open(order["url"], order.get("options", {}))
            case "group" | "direct" | "all":
                self.subscribe(order)
            case "join":
                self.subscriptions[order["group"]].join()
            case "leave":
                self.client.leave(order["group"])
            case "connect":
                with contextlib.suppress(Closed):
                    self.client.connect()
            case "disconnect":
                await self.client.disconnect()
            case "close":
                await self.client.close()
            case "wake":
                self.client.wake()
            case "stored":
                items = self.storage.items if self.storage else {}
                say(stored={key: json.loads(value) for key, value in items.items()})
            case "positions":
                say(positions={stream: list(at) for stream, at in self.client.positions.items()})
            case None:
                self.given(order)
            case _:
                await self.command(order)

    def open(self, url: str, options: dict[str, Any]) -> None:
        given = {_OPTIONS[key]: value for key, value in options.items() if key in _OPTIONS}
        token = options.get("token")
        if isinstance(token, dict):
            given["token"] = self.token
        elif token is not None:
            given["token"] = token
        if options.get("storage") is not None:
            given["storage"] = self.storage = Storage(options["storage"])
        if (chance := options.get("chance")) is not None:
            random.uniform = lambda a, b: a + chance * (b - a)
        if "backoff_s" in given:
            given["backoff_s"] = tuple(given["backoff_s"])
        self.client = Client(url, **given)
        self.client.on("state", self.state_changed)
        self.client.on("error", lambda exc: say(heard="error", message=str(exc)))
        if options.get("autoConnect", True):
            self.client.connect()

    def state_changed(self, state: str, reason: Any) -> None:
        line = {"state": state}
        if reason is not None and state != "connected":
            line |= {key: value for key in ("word", "code") if (value := getattr(reason, key)) is not None}
        say(**line)

    async def token(self) -> str | None:
        answer = await self.ask("token")
        if "token_error" in answer:
            raise RuntimeError(answer["token_error"])
        if answer["token"] is None:
            raise NotAllowed("not allowed")
        return str(answer["token"])

    def subscribe(self, order: dict[str, Any]) -> None:
        kind, inside = order["do"], order.get("inside")
        name = order.get("group", kind)

        async def on_message(message: Message) -> None:
            nonlocal inside
            say(
                heard="message",
                stream=message.stream,
                epoch=message.epoch,
                offset=message.offset,
                data=message.data,
                missed=message.missed,
            )
            if inside is not None:
                todo, inside = inside, None
                for one in todo if isinstance(todo, list) else [todo]:
                    await self.carry_out(one)
            if "slow_ms" in order:
                await asyncio.sleep(order["slow_ms"] / 1000)
            if order.get("throws"):
                raise RuntimeError("the handler throws")

        def on_gap(gap: Gap) -> None:
            say(
                heard="gap",
                stream=gap.stream,
                epoch=gap.epoch,
                **{"from": gap.first, "to": gap.last},
                reason=gap.reason,
            )

        def on_joined(joined: Joined) -> None:
            say(heard="joined", **asdict(joined))

        async def state() -> Any:
            answer = await self.ask("state", name)
            if "state_error" in answer:
                raise RuntimeError(answer["state_error"])
            return answer["state"]

        handlers: dict[str, Any] = {"on_gap": on_gap, "on_joined": on_joined}
        if order.get("state"):
            handlers["state"] = state
        if kind == "group":
            stream = f"group:{name}"
            handlers["on_left"] = lambda reason: say(heard="left", stream=stream, reason=reason)
            self.subscriptions[name] = self.client.group(name, on_message, **handlers)
        else:
            self.subscriptions[name] = getattr(self.client, kind)(on_message, **handlers)

    async def ask(self, what: str, group: str | None = None) -> dict[str, Any]:
        key = what + (group or "")
        number = self.counts[key] = self.counts.get(key, 0) + 1
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.asked.setdefault(key, []).append((number, answer))
        say(asks=what, n=number, **({"group": group} if group else {}))
        return await answer

    def given(self, answer: dict[str, Any]) -> None:
        what = "token" if "token" in answer or "token_error" in answer else "state"
        waiting = self.asked.get(what + answer.get("group", ""), [])
        for index, (number, future) in enumerate(waiting):
            if answer.get("n", number) == number:
                del waiting[index]
                if not future.done():
                    future.set_result(answer)
                return

    async def command(self, order: dict[str, Any]) -> None:
        keys = {key: order[key] for key in _KEYS if key in order}
        client = self.client
        try:
            reply: Any
            match order["do"]:
                case "publish":
                    reply = asdict(await client.publish(order["group"], keys.pop("data", None), **keys))
                case "history":
                    at = order.get("position")
                    if isinstance(at, dict):
                        at = (at["epoch"], at["offset"])
                    reply = asdict(await client.history(order["group"], position=at, **keys))
                case "presence":
                    reply = asdict(await client.presence(order["group"]))
                case "call":
                    reply = asdict(await client.call(**keys))
                case "refresh":
                    reply = {"expires": await client.refresh(keys.get("token"))}
                case _:
                    await client.ping()
                    reply = {}
        except ClientError as exc:
            say(answer=order.get("as"), error=exc.code)
        else:
            say(answer=order.get("as"), reply=reply)


if __name__ == "__main__":
    asyncio.run(Driver().run())
