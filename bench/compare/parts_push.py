"""Pushes, to one client and to a group: as fast as they arrive, and at fixed rates."""

from __future__ import annotations

from bench.compare.parts import LATENCY, P50, P99, P999, Measured, Plan, Size, Turn, Work, cpu, rate
from bench.compare.stand import Stand, cell
from bench.load.publisher import LoadError
from bench.report.comparison import Cell
from bench.report.figures import number

SINGLES = 50  # clients who are pushed to in turn: one alone would use up its njs budget
SIZES = {"100": (100, "100 B"), "1k": (1024, "1 KB"), "16k": (16_384, "16 KB")}
LEAST = 5  # pushes to a group in open loop, however slow


class Pushes:
    """The part. Fixed rates are a share of what the slowest mode did in closed loop, in the round to warm up."""

    def __init__(self, size: Size) -> None:
        self._size = size
        self._per_s: dict[str, float] = {}  # of the slowest mode so far; fixed when it was used
        self._fixed: dict[str, float] = {}

    def plan(self) -> Plan:
        size = self._size
        works = []
        for key, (bytes_, title) in SIZES.items():
            to_one, to_group = f"{title} to one client", f"{title} to a group of {size.members}"
            scale = {"100": 1.0, "1k": 0.8, "16k": 0.4}[key]
            works += [
                Work(f"one-{key}", to_one, self._closed(f"one-{key}", bytes_, round(20 * size.closed * scale)), 0.7),
                Work(f"group-{key}", to_group, self._closed(f"group-{key}", bytes_, round(size.closed * scale)), 1.2),
            ]
        shares = {"one-100": (4, 2), "group-100": (4, 2), "one-16k": (2,), "group-1k": (2,), "group-16k": (2,)}
        for of, parts in shares.items():
            for part in parts:
                name = f"{of}-{'half' if part == 2 else 'quarter'}"
                seconds = size.open_s if of.startswith("group") else size.open_s * 2 / 3
                works.append(Work(name, name, self._open(of, part, seconds), seconds + 0.3, open_loop=True))
        return Plan(
            "push",
            "Pushes",
            f"By HTTP, one request for each, to one of {SINGLES} clients in turn, or to a group that all its members "
            "get. Closed loop: the next when all have the one before. Fixed rates are a half or a quarter of what the "
            "slowest mode did in closed loop; their latencies count from when a push was due, so waiting is in them.",
            [P50, P99, P999, rate("deliveries"), *cpu("delivery", "nginx", "service")],
            works,
            LATENCY,
            self._begin,
        )

    def _begin(self, stand: Stand, number: int) -> None:
        stand.enter(f"single{number}", SINGLES)
        stand.enter("group", self._size.members, f"group{number}")

    def _push(self, stand: Stand, number: int, of: str, bytes_: int, count: int, every_s: float = 0.0) -> Cell:
        if of.startswith("one"):
            count -= count % SINGLES
            name, path = f"single{number}", "/api/clients/{}/push"
        else:
            name, path = "group", f"/api/groups/group{number}/push"
        order = {"name": name, "path": path, "size": bytes_, "count": count, "every_s": every_s}
        answer = stand.measure("push", api_port=stand.mode.api_port, **order)
        return cell(answer, answer["count"], "nginx", "service", pushes=count)

    def _closed(self, of: str, bytes_: int, count: int) -> Measured:
        def push(stand: Stand, turn: Turn) -> Cell:
            found = self._push(stand, turn.number, of, bytes_, count)
            deliveries = 1 if of.startswith("one") else self._size.members
            self._per_s[of] = min(self._per_s.get(of, float("inf")), found.values["rate"] / deliveries)
            return found

        return push

    def _open(self, of: str, part: int, seconds: float) -> Measured:
        bytes_, title = SIZES[of.split("-")[1]]
        audience = "one client" if of.startswith("one") else f"a group of {self._size.members}"

        def push(stand: Stand, turn: Turn) -> Cell:
            if of not in self._per_s:
                raise LoadError("no mode has shown what it can do in closed loop")
            per_s = self._fixed.setdefault(turn.case.name, self._per_s[of] / part)
            turn.case.title = f"{title} to {audience}, {number(per_s)} pushes/s"
            least = SINGLES if of.startswith("one") else LEAST
            count = max(least, round(per_s * seconds))
            if of.startswith("one"):
                count = round(count / SINGLES) * SINGLES
            found = self._push(stand, turn.number, of, bytes_, count, 1 / per_s)
            found.notes["pushes_per_s"] = per_s
            return found

        return push
