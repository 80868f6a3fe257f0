"""A real Prometheus with the rules of deploy/monitoring, in a hurry: each duration in them is shorter by the same
factor."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import yaml

from tests.monitoring.queries import FOLDER
from tests.support import Process, eventually, free_port

UNITS_S = {"s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(?<=for: )(\d+)([smh])$|(?<=\[)(\d+)([smh])(?=\])", re.MULTILINE)
LOOK = "500ms"  # between two looks at the targets, and at the rules
WAIT_S = 150  # an alert that waits for half an hour needs 90


def faster(rules: str, times: float) -> str:
    def shorter(match: re.Match[str]) -> str:
        number, unit = (part for part in match.groups() if part)
        return f"{int(int(number) * UNITS_S[unit] * 1000 / times)}ms"

    return _DURATION.sub(shorter, rules)


class Prometheus:
    """``jobs``: the targets of each, which may change: ``aim``."""

    def __init__(self, folder: Path, jobs: Mapping[str, Sequence[str]], *, times: float = 20) -> None:
        folder.mkdir()
        self._folder = folder
        self.port = free_port()
        config = yaml.safe_load((FOLDER / "prometheus/hosts.yml").read_text())
        config["global"] = {"scrape_interval": LOOK, "evaluation_interval": LOOK}
        for job in config["scrape_configs"]:
            del job["static_configs"]
            job["file_sd_configs"] = [{"files": [f"{job['job_name']}.yml"]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        rules = (FOLDER / "prometheus/tidegate.rules.yml").read_text()
        (folder / "tidegate.rules.yml").write_text(faster(rules, times))
        self.aim(jobs)
        (folder / "run").mkdir()

    async def start(self) -> None:
        """Returns when all targets are up."""
        folder = self._folder
        self.process = Process(
            "prometheus",
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
            folder=folder / "run",
        )
        await self.process.port(self.port)
        await eventually(self._ready, WAIT_S)
        await self.all_up()

    async def _ready(self) -> bool:
        status, _ = await self._ask("/-/ready")
        return status == 200

    async def _ask(self, path: str) -> tuple[int, bytes]:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}{path}") as answer:
            return answer.status, await answer.read()

    def stop(self) -> None:
        if hasattr(self, "process"):
            self.process.kill()

    def aim(self, jobs: Mapping[str, Sequence[str]]) -> None:
        for name, targets in jobs.items():
            file = self._folder / f"{name}.yml"
            fresh = file.with_suffix(".new")
            fresh.write_text(yaml.safe_dump([{"targets": list(targets)}]))
            fresh.rename(file)

    async def get(self, path: str) -> Any:
        status, body = await self._ask(f"/api/v1/{path}")
        assert status == 200, body
        return json.loads(body)["data"]

    async def value(self, query: str) -> float | None:
        """The first that it finds."""
        found = (await self.get(f"query?query={quote(query)}"))["result"]
        return float(found[0]["value"][1]) if found else None

    async def targets(self) -> dict[str, str]:
        """Whether each is up, down or unknown; by job and address."""
        active = (await self.get("targets?state=active"))["activeTargets"]
        return {f"{one['labels']['job']} {one['labels']['instance']}": one["health"] for one in active}

    async def firing(self) -> dict[str, dict[str, Any]]:
        """An alert of each name that fires."""
        alerts = (await self.get("alerts"))["alerts"]
        return {alert["labels"]["alertname"]: alert for alert in alerts if alert["state"] == "firing"}

    async def all_up(self) -> dict[str, str]:
        async def found() -> dict[str, str]:
            targets = await self.targets()
            return targets if targets and set(targets.values()) == {"up"} else {}

        return dict(await eventually(found, WAIT_S))

    async def sees(self, port: int) -> None:
        """Returns when this target is up, a few seconds after it was aimed at."""

        async def found() -> bool:
            return any(name.endswith(f":{port}") and it == "up" for name, it in (await self.targets()).items())

        await eventually(found, WAIT_S)

    async def fires(self, name: str) -> dict[str, Any]:
        async def found() -> dict[str, Any] | None:
            return (await self.firing()).get(name)

        return dict(await eventually(found, WAIT_S))

    async def ends(self, name: str) -> None:
        async def found() -> bool:
            return name not in await self.firing()

        await eventually(found, 2 * WAIT_S)
