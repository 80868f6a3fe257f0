"""One mode with its load client, and what one round of a case in it gives."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.compare.modes import Mode, running
from bench.load.loader import Loader
from bench.report.comparison import Cell

_ORDERS = "bench.load.orders"


_live: list[Stand] = []  # a measurement begins when all of them have come to rest, not only its own


class Stand:
    """``start`` and ``stop`` it, or use it as a context once it was started."""

    def __init__(
        self, name: str, folder: Path, settings: Mapping[str, Any] | None = None, *, app: bool = False
    ) -> None:
        """``settings`` and ``app``: see ``modes.running``."""
        self.name = name
        self._folder = folder
        self._settings = settings
        self._app = app
        self._stack = ExitStack()
        self.mode: Mode
        self._loader: Loader

    def start(self) -> None:
        """Raises BenchError."""
        with ExitStack() as stack:
            self._folder.mkdir(parents=True)
            self._loader = stack.enter_context(Loader(self._folder, self.name, _ORDERS))
            self.mode = stack.enter_context(running(self.name, self._folder, self._settings, app=self._app))
            _live.append(self)
            stack.callback(_live.remove, self)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        self._stack.close()

    def __enter__(self) -> Stand:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        """The load client's answer. Raises LoadError."""
        return self._loader.ask(do, **order)

    def measure(self, do: str, **order: Any) -> dict[str, Any]:
        """The same of an order that reads the clocks."""
        others = [pid for stand in _live for pids in stand.mode.pids.values() for pid in pids]
        return self.ask(do, watch={"groups": self.mode.pids, "others": others}, **order)

    def enter(self, name: str, count: int, group: str = "", at_once: int = 50) -> dict[str, Any]:
        """``count`` clients connect and stay, as the set ``name``."""
        return self.measure("enter", name=name, port=self.mode.port, count=count, group=group, at_once=at_once)


def cell(answer: Mapping[str, Any], count: int, *programs: str, **notes: Any) -> Cell:
    """What the load client measured, for each of ``count``. ``programs``: whose CPU is shown; one that is not there
    used none."""
    wall_s, used_s = answer["wall_s"], answer["cpu_s"]
    values = {f"{name}_cpu_us": used_s.get(name, 0.0) * 1e6 / count for name in programs}
    values["cpu_us"] = sum(used_s.values()) * 1e6 / count
    values["rate"] = count / wall_s
    values |= {name: answer[name] for name in ("p50_ms", "p99_ms", "p999_ms", "back_s") if name in answer}
    return Cell(
        values=values,
        curves={name: [(x, y) for x, y in answer[name]] for name in ("latency", "back") if name in answer},
        client_share=answer["client_cpu_s"] / wall_s,
        server_share=sum(used_s.values()) / wall_s,
        notes=notes,
    )
