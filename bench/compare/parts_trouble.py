"""Storms, idle connections, readers that stop, reloads, growth: what an operator worries about."""

from __future__ import annotations

from bench.compare.modes import NGINX, SERVICE, SHUTDOWN_S
from bench.compare.parts import BACK, P50, P99, Measured, Plan, Size, Turn, Work, cpu
from bench.compare.stand import Stand, cell
from bench.report.comparison import Cell, Measure

BEHIND_EDGES = ("plain", "njs", "openresty")
MISSED = 10
SLOW_READERS = 50
SLOW_BYTES = 16_384
SLOW_STEPS = 8
RELOADED = 100
PING_S = 1.0
MIB = 1 << 20
# Journals are in the service's memory, and not what is asked for here.
SHORT_JOURNAL = {"HISTORY__MESSAGES": 10}


def storm(size: Size) -> Plan:
    def begin(stand: Stand, number: int) -> None:
        stand.enter("storm", size.storm, f"storm{number}")

    def measure(stand: Stand, turn: Turn) -> Cell:
        ports = {"port": stand.mode.port, "api_port": stand.mode.api_port}
        answer = stand.measure("storm", name="storm", group=f"storm{turn.number}", missed=MISSED, **ports)
        found = cell(answer, size.storm, NGINX, SERVICE)
        del found.values["rate"]
        return found

    return Plan(
        "storm",
        "A storm of clients that come back",
        f"{size.storm} clients are cut at once, {MISSED} messages are pushed to their group, and all connect at once "
        "with their cursor. A client is back when it has its welcome and what it missed, each once and in order.",
        [Measure("back_s", "until all are back", "s"), *cpu("client", "nginx", "service")],
        [Work("storm", f"{size.storm} clients", measure, 2.2)],
        BACK,
        begin,
    )


def idle(size: Size) -> Plan:
    def measure(stand: Stand, turn: Turn) -> Cell:
        count, mode = size.idle, stand.mode
        stand.measure("rest", seconds=0.2)
        before_kib, before_files = mode.pss_kib(), mode.files()
        stand.enter("idle", count, "idle")
        stand.measure("rest", seconds=0.2)
        after_kib, after_files = mode.pss_kib(), mode.files()
        answer = stand.measure("rest", seconds=size.window_s)
        values = {}
        for name in (NGINX, SERVICE):
            values[f"{name}_kib"] = (after_kib.get(name, 0) - before_kib.get(name, 0)) / count
            values[f"fds_{name}"] = (after_files.get(name, 0) - before_files.get(name, 0)) / count
            values[f"cpu_percent_{name}"] = 100 * answer["cpu_s"].get(name, 0.0) / answer["wall_s"]
        shares = cell(answer, count)
        return Cell(values, client_share=shares.client_share, server_share=shares.server_share)

    return Plan(
        "idle",
        "Idle connections",
        f"{size.idle} clients in one group, on processes that were just started. Memory is PSS, before and after. CPU "
        f"is that of control pings every {PING_S:g} s (30 s as shipped), over {size.window_s:g} s.",
        [
            Measure("nginx_kib", "memory of nginx", "KiB per connection"),
            Measure("service_kib", "memory of the service", "KiB per connection"),
            Measure("cpu_percent_nginx", "CPU of nginx", "% of a core"),
            Measure("cpu_percent_service", "CPU of the service", "% of a core"),
            Measure("fds_nginx", "files of nginx", "per client"),
            Measure("fds_service", "files of the service", "per client"),
        ],
        [Work("idle", f"{size.idle} connections", measure, 3.5 + size.window_s)],
        fresh={"HEARTBEAT__WEBSOCKET_PING_INTERVAL": PING_S, "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": 30.0},
    )


def slow(size: Size) -> Plan:
    def measure(pushes: int) -> Measured:
        def push(stand: Stand, turn: Turn) -> Cell:
            mode = stand.mode
            stand.enter("slow", SLOW_READERS, "slow")
            stand.measure("rest", seconds=0.1)
            before_kib = mode.pss_kib()
            stand.ask("mute", name="slow")
            most_kib = dict(before_kib)
            step = max(1, pushes // SLOW_STEPS)
            order = {"name": "slow", "path": "/api/groups/slow/push", "size": SLOW_BYTES, "heard": False}
            for _ in range(SLOW_STEPS):
                stand.measure("push", api_port=mode.api_port, count=step, **order)
                most_kib = {name: max(most_kib[name], kib) for name, kib in mode.pss_kib().items()}
            answer = stand.ask("hear", name="slow", messages=step * SLOW_STEPS)
            grown = {name: (most_kib.get(name, 0) - before_kib.get(name, 0)) / 1024 for name in (NGINX, SERVICE)}
            return Cell({f"{name}_mib": mib for name, mib in grown.items()}, notes={"closed": answer["codes"]})

        return push

    each = 1_000_000 * size.slow_mb // SLOW_BYTES
    return Plan(
        "slow",
        "Readers that stop",
        f"{SLOW_READERS} readers stop, and {SLOW_BYTES // 1024} KB messages are pushed to their group; the most that "
        "memory (PSS) grew meanwhile, without what the kernel holds. Then they read on: each gets all messages, in "
        "order, or the first of them and a close.",
        [Measure("nginx_mib", "growth of nginx", "MiB"), Measure("service_mib", "growth of the service", "MiB")],
        [
            Work("in-all", f"{size.slow_mb} MB for all of them together", measure(each // SLOW_READERS), 3.5),
            Work("to-each", f"{size.slow_mb} MB for each of them", measure(each), 5.0),
        ],
        fresh=SHORT_JOURNAL,
    )


def reload(size: Size) -> Plan:
    def begin(stand: Stand, number: int) -> None:
        stand.enter("reload", RELOADED, f"reload{number}")

    def measure(stand: Stand, turn: Turn) -> Cell:
        mode = stand.mode
        ports = {"port": mode.port, "api_port": mode.api_port, "pid": mode.programs[NGINX].pid}
        order = {"name": "reload", "group": f"reload{turn.number}", "within_s": SHUTDOWN_S + 8}
        answer = stand.ask("reload", **ports, **order)
        values = {name: answer[name] for name in ("back_s", "p50_ms", "p99_ms")}
        cut = int(answer["codes"].get("1006", 0))
        values["cut_percent"] = 100 * cut / RELOADED
        return Cell(values, {"back": [(x, y) for x, y in answer["back"]]}, notes={"closed": answer["codes"]})

    return Plan(
        "reload",
        "Reload of nginx",
        f"`nginx -s reload` with {RELOADED} clients, who come back with their cursor when they are closed, and miss "
        f"nothing. Old workers are told to end after {SHUTDOWN_S} s (30 s as shipped).",
        [
            Measure("back_s", "from the order until all are back", "s"),
            P50,
            P99,
            Measure("cut_percent", "cut without a close frame (1006)", "% of clients"),
        ],
        [Work("reload", f"{RELOADED} clients; p50 and p99: how long one is away", measure, 3.0, BEHIND_EDGES)],
        BACK,
        begin,
    )


def growth(size: Size) -> Plan:
    count = size.growth

    def measure(pushes: bool) -> Measured:
        def grow(stand: Stand, turn: Turn) -> Cell:
            stand.enter("growth", 1, "growth")
            stand.measure("rest", seconds=0.2)
            before_kib = stand.mode.pss_kib()
            if pushes:
                order = {"path": "/api/groups/growth/push", "size": 100, "batch": 100, "count": count // 100}
                stand.measure("push", name="growth", api_port=stand.mode.api_port, **order)
            else:
                stand.measure("ask", name="growth", kind="ping", total=count, in_flight=10)
            stand.measure("rest", seconds=0.1)
            after_kib = stand.mode.pss_kib()
            grown = {name: (after_kib.get(name, 0) - before_kib.get(name, 0)) / 1024 for name in (NGINX, SERVICE)}
            return Cell({f"{name}_mib": mib for name, mib in grown.items()})

        return grow

    return Plan(
        "growth",
        "Growth over one connection's life",
        f"Memory (PSS) before and after {count} messages on one connection, of processes that were just started.",
        [Measure("nginx_mib", "growth of nginx", "MiB"), Measure("service_mib", "growth of the service", "MiB")],
        [
            Work("pushes", f"{count} pushes of 100 B", measure(True), 2.5),
            Work("pings", f"{count} JSON pings", measure(False), 4.5),
        ],
        fresh=SHORT_JOURNAL,
    )
