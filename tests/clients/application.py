"""An application that uses a library, and the record of what its handlers were told."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.clients.driver import Driver, Line
from tests.faults.ledger import Ledger, Push, Reader, Told
from tests.support import eventually

BEATS = {"pingInterval_s": 1, "pongTimeout_s": 2, "welcomeTimeout_s": 4, "backoff_s": [0.1, 1], "stable_s": 2}


class Record(Reader):
    """What is told to handlers: no welcomes, and of a join the offset alone. The epoch is that of what comes first."""

    def take(self, event: dict[str, Any]) -> None:
        stream = event["stream"]
        if event["heard"] == "joined":
            if stream not in self.told:
                self.told[stream] = Told("", event["offset"], self._ledger.now_s())
            return
        told = self.told.get(stream)
        if told is None:
            self._complain(stream, f"{event} before it was joined")
            return
        if not told.epoch:
            told.epoch = event["epoch"]
        match event["heard"]:
            case "message":
                self._message(event)
            case "gap" if event["reason"] in ("expired", "reset"):
                self._gap(event)
            case _:
                self._complain(stream, f"{event} is none that this gateway could be the reason of")


class Application:
    """``await begin(driver, url)``: it subscribes to ``groups``. ``look`` now and then, and all below is kept."""

    driver: Driver

    def __init__(self, name: str, groups: list[str], ledger: Ledger) -> None:
        self.name = name
        self.groups = groups
        self.record = Record(name, ledger)
        self.states: list[tuple[float, str]] = []
        self.heard_s: dict[int, float] = {}  # message -> when, by the monotonic clock
        self.answers: dict[str, dict[str, Any]] = {}
        self.wrong: list[str] = []
        self._ledger = ledger
        self._read = 0

    def begin(self, driver: Driver, url: str, **options: Any) -> None:
        self.driver = driver
        options = {"client": self.name, "autoConnect": False, **BEATS, **options}
        driver.order({"do": "open", "url": url, "options": options})
        for group in self.groups:
            driver.order({"do": "group", "group": group})
        driver.order({"do": "connect"})

    def is_joined(self) -> bool:
        return all(f"group:{group}" in self.record.told for group in self.groups)

    def look(self) -> None:
        """Takes what it has written since."""
        lines = self.driver.lines
        while self._read < len(lines):
            self._take(lines[self._read])
            self._read += 1

    def _take(self, line: Line) -> None:
        said = line.said
        if "state" in said:
            self.states.append((line.at_s, " ".join(str(said[key]) for key in ("state", "word") if said.get(key))))
        elif said.get("heard") in ("message", "gap", "joined"):
            if said["heard"] == "message":
                self.heard_s[said["data"]["id"]] = line.at_s
            self.record.take(said)
        elif "answer" in said:
            self.answers[said["answer"]] = said
        elif "positions" not in said:
            self.wrong.append(f"{self.name} wrote {said}")

    async def publish(self, push: Push) -> str | None:
        """None once it was accepted, else the error's code."""
        name = f"p{push.id}"
        self._ledger.asked(push)
        self.driver.order({"do": "publish", "as": name, "group": push.group, "data": push.data})
        await eventually(lambda: name in self.answers, 400)  # it may not run for minutes
        said = self.answers.pop(name)
        if "error" in said:
            self._ledger.refused(push, said["error"])
            return str(said["error"])
        self._ledger.accepted(push, (said["reply"]["epoch"], said["reply"]["offset"]))
        return None

    async def sleep(self, seconds: float) -> None:
        """It does not run for so long."""
        self.driver.freeze()
        try:
            await asyncio.sleep(seconds)
        finally:
            self.driver.thaw()
