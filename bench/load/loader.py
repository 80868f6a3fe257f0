"""The handle of one load client (load.py)."""

from __future__ import annotations

import json
import select
import sys
from pathlib import Path
from typing import Any

from bench.load.processes import LOAD_CORE, Program
from bench.load.publisher import LoadError
from bench.load.system import System
from bench.report.stats import Sample

ANSWER_S = 600.0


class Loader(Program):
    """A load client on its own core; use it as a context. ``orders``: the module that has them."""

    def __init__(self, folder: Path, name: str, orders: str = "bench.load.client") -> None:
        args = [sys.executable, "-m", orders]
        super().__init__(f"load-{name}".replace(" ", "-"), args, folder, core=LOAD_CORE, piped=True)

    def __enter__(self) -> Loader:
        return self

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        """The answer. Raises LoadError."""
        stdin, stdout = self.popen.stdin, self.popen.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps({"do": do, **order}).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise LoadError(f"the load client ended: {self.words()}") from None
        if not select.select([stdout], [], [], ANSWER_S)[0]:
            raise LoadError(f"the load client did not answer {do} within {ANSWER_S:g} s")
        line = stdout.readline()
        if not line:
            raise LoadError(f"the load client ended: {self.words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise LoadError(answer["error"])
        return answer

    def sample(self, system: System, do: str, per: str, **order: Any) -> Sample:
        """One round of an order that measures: CPU µs of the server for each of what ``per`` counts."""
        try:
            answer = self.ask(do, pids=system.pids, **order)
        except LoadError as exc:
            return Sample(None, fault=f"{system.name}: {exc}")
        wall_s = answer["wall_s"]
        count = answer.get(per) or order[per]
        return Sample(
            answer["server_cpu_s"] * 1e6 / count,
            client_share=answer["client_cpu_s"] / wall_s,
            server_share=answer["server_cpu_s"] / wall_s,
            more=answer,
        )
