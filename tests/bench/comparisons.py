"""Comparisons by hand, with figures that are known, for tests of the report."""

from __future__ import annotations

import math
from typing import Any

from bench.report.comparison import MODES, Case, Cell, Comparison, Measure, Part

ROUNDS = 5
COST = {"direct": 1.0, "plain": 1.5, "njs": 4.0, "openresty": 2.0}
CPU = {"nginx": 8.0, "service": 10.0, "app": 5.0}


def jitter(round_: int) -> float:
    """0.96, 0.98 … 1.04: the same for all modes in one round."""
    return 0.96 + 0.02 * round_


def cpu(cost: float, at: float) -> dict[str, float]:
    """What nginx, service and application use in µs; only nginx' is multiplied, and direct has none."""
    found = {f"{name}_cpu_us": value * at for name, value in CPU.items()}
    found["nginx_cpu_us"] *= cost - 1
    return {**found, "cpu_us": sum(found.values())}


def latency(cost: float, at: float) -> dict[str, list[tuple[float, float]]]:
    percentiles = (0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0)
    return {"latency": [(p, 0.2 * cost * at * (1 - math.log10(1.0001 - p / 100))) for p in percentiles]}


def call(title: str, modes: tuple[str, ...] = MODES, cost: dict[str, float] = COST, **more: Any) -> Case:
    case = Case(title, title, **more)
    for mode in modes:
        case.cells[mode] = [
            Cell(
                {**cpu(cost[mode], jitter(n)), "p50_ms": 0.3 * cost[mode] * jitter(n), "rate": 9000 / cost[mode]},
                latency(cost[mode], jitter(n)),
                0.4,
                0.97,
            )
            for n in range(ROUNDS)
        ]
    return case


def case_of(title: str, values: dict[str, dict[str, float]], notes: dict[str, dict[str, Any]] | None = None) -> Case:
    """``values``: by mode."""
    case = Case(title, title)
    for mode, found in values.items():
        case.cells[mode] = [
            Cell(
                {name: value * jitter(n) for name, value in found.items()},
                {},
                0.2,
                0.6,
                notes=(notes or {}).get(mode, {}),
            )
            for n in range(ROUNDS)
        ]
    return case


def storm() -> Case:
    case = case_of("2,000 clients", {mode: {"back_s": 1.5 * COST[mode]} for mode in MODES})
    for mode, cells in case.cells.items():
        for n, cell in enumerate(cells):
            last = 1.5 * COST[mode] * jitter(n)
            cell.curves["back"] = [(last * (0.1 + 0.9 * step / 20), step / 20) for step in range(21)]
    return case


def comparison() -> Comparison:
    """All parts and modes."""
    cpu_measures = [Measure(f"{name}_cpu_us", f"CPU of {name}", "µs") for name in CPU]
    latency_measures = [Measure("p50_ms", "round trip p50", "ms"), Measure("rate", "rate", "/s", "more")]
    measures = [*latency_measures, *cpu_measures, Measure("cpu_us", "CPU in all", "µs")]
    latency_axes = {"latency": ("percentile", "round trip, ms")}
    handshake = {mode: {**cpu(COST[mode] * 3, 1), "rate": 3000 / COST[mode]} for mode in MODES}
    idle = {mode: {"nginx_kib": 20.0 * (COST[mode] - 1), "service_kib": 6.0} for mode in MODES}
    slow = {mode: {"nginx_mib": 100.0 * (COST[mode] - 1), "service_mib": 30.0} for mode in MODES}
    cut = {mode: {"cut_percent": 0.0 if mode == "openresty" else 100.0, "p50_ms": 5.0} for mode in MODES[1:]}
    seen = {mode: {"closed": {"1001": 50} if mode == "openresty" else {"1006": 50}} for mode in MODES[1:]}
    reload = [Measure("cut_percent", "cut without a close frame", "% of clients"), latency_measures[0]]
    memory = [Measure("nginx_kib", "nginx", "KiB"), Measure("service_kib", "service", "KiB")]
    mib = [Measure("nginx_mib", "nginx", "MiB"), Measure("service_mib", "service", "MiB")]
    back = [Measure("back_s", "all are back", "s")]
    return Comparison(
        command="python -m bench compare",
        began="2026-01-02 03:04:05 +0000",
        seconds=1234.0,
        rounds=ROUNDS,
        modes=list(MODES),
        machine={"cpu": "A processor", "cores": 2, "commit": "0123456789ab", "nginx": "1.22.1"},
        conditions={"edge limits": "raised", "broker": "memory"},
        parts=[
            Part("handshake", "Handshakes", "One after the other.", measures, [case_of("50 at a time", handshake)]),
            Part(
                "storm",
                "The storm",
                "All are cut at once.",
                back,
                [storm()],
                {"back": ("s after the cut", "back and complete")},
            ),
            Part("idle", "Idle", "Connections that do nothing.", memory, [case_of("2,000 connections", idle)]),
            Part(
                "call",
                "Calls",
                "WebSocket to REST and back.",
                measures,
                [call("100 B, 1 in flight"), call("100 B, 10 in flight"), call("10 KB, 10 in flight")],
                latency_axes,
            ),
            Part(
                "push",
                "Pushes",
                "By HTTP.",
                measures,
                [call("one client, 100 B"), call("group of 1,000, 100 B, 500/s", open_loop=True)],
                {"latency": ("percentile", "push to message, ms")},
            ),
            Part("slow", "Readers that stop", "20 MB are pushed.", mib, [case_of("50 readers", slow)]),
            Part("reload", "Reload", "nginx is told to reload.", reload, [case_of("50 clients", cut, seen)]),
        ],
        complete=True,
    )
