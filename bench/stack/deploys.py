"""What clients see of a deploy: two nodes behind one edge are restarted one after the other, or the first is killed or
stopped (SIGSTOP), while messages are pushed to groups and to all.

Clients know the protocol: they move when they hear ``moving``, come back with their cursor at a random moment when they
are closed, and answer pings. Each message says when it was sent; how long the latest was under way is the longest
silence. Where the load was late itself (pushes behind their times, or a long turn of the clients), that says nothing of
the servers.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.compare.modes import RAISED, TRUNK_KEY, environ, render
from bench.load import system
from bench.load.processes import LOAD_CORE, BenchError, Program, free_ports, raise_limits, until
from bench.load.publisher import LoadError
from bench.peers import systems
from bench.report.comparison import EVERY, RELAY, TCP, edge_of
from bench.stack.crew import Crew

MODES = ("plain-tcp", "njs-tcp", "openresty-relay-tcp", "openresty-tcp")
EACH = 20  # clients in a group
RATE = 100  # messages per second to groups
QUIET_S = 2.0  # before and after, in which all is as ever
STOPPED_S = 12.0
TRIES = 50  # of a push


def add_command(commands: Any) -> None:
    parser = commands.add_parser("deploys", help="what clients see of nodes that restart, die or hang")
    parser.add_argument("--modes", default=",".join(MODES), help="several by commas (default: %(default)s)")
    parser.add_argument("--faults", default="restart", help="of restart,kill,stop; several by commas")
    parser.add_argument("--clients", type=int, default=2000, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--drain", type=float, default=6, metavar="S", help="server.drain_s (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="of each (default: %(default)s)")
    parser.add_argument("--deaf", action="store_true", help="clients don't know `moving`")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """1 where something was lost or repeated, or could not be measured."""
    raise_limits()
    os.sched_setaffinity(0, {LOAD_CORE})
    bad = False
    print("| mode | fault | closes | moves | longest silence, s | lost | repeated | received | load late, s |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for _ in range(args.rounds):
        for name in args.modes.split(","):
            for fault in args.faults.split(","):
                try:
                    bad |= _measure(name, fault, args)
                except (BenchError, LoadError, OSError) as exc:
                    print(f"| {name} | {fault} | no figures: {exc} |", flush=True)
                    bad = True
    return int(bad)


def _measure(name: str, fault: str, args: argparse.Namespace) -> bool:
    if name not in EVERY or not name.endswith(TCP):
        raise BenchError("no mode over TCP, as several nodes are reached")
    with tempfile.TemporaryDirectory(prefix="bench-deploys-") as made:
        folder = Path(made)
        folder.chmod(0o755)  # nginx' worker is another user
        with _stack(name, folder, args.drain) as stack:
            crew = Crew(stack.port, args.clients, EACH, moves=not args.deaf)
            crew.enter()
            ended, over = threading.Event(), threading.Event()
            pusher = threading.Thread(target=_push, args=(stack, args.clients // EACH, ended))
            doer = threading.Thread(target=_do, args=(stack, fault, ended, over))
            pusher.start()
            doer.start()
            crew.run(ended.is_set)
            pusher.join()
            crew.run(lambda: crew.has_all(stack.tops), most_s=10)
            found = crew.found(stack.tops)
            over.set()
            doer.join()
            if stack.problem:
                raise LoadError(stack.problem)
        codes = ", ".join(f"{count} x {code}" for code, count in sorted(found.codes.items()))
        closes = f"{sum(found.codes.values())}" + (f" ({codes})" if codes else "")
        print(
            f"| {name} | {fault} | {closes} | {found.moves} | {found.longest_s:.2f} | {found.lost} | {found.repeated} "
            f"| {found.received} | {max(stack.late_s, found.turn_s):.2f} |",
            flush=True,
        )
        return bool(found.lost or found.repeated)


@dataclass
class Node:
    folder: Path
    env: dict[str, str]
    port: int
    api_port: int
    program: Program

    @classmethod
    def start(cls, folder: Path, env: dict[str, str], port: int, api_port: int) -> Node:
        return cls(folder, env, port, api_port, _serve(folder, env))

    def again(self) -> None:
        self.program = _serve(self.folder, self.env)
        self.is_ready()

    def stop(self) -> None:
        self.program.stop()

    def is_ready(self) -> None:
        self.program.listens(self.api_port)
        until(self._says_so, "a node that is ready")

    def _says_so(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.api_port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def _serve(folder: Path, env: dict[str, str]) -> Program:
    return Program("node", [system.python, "-m", "tidegate", "serve"], folder, env=env)


@dataclass
class Stack:
    port: int
    nodes: list[Node]
    target: int = 1  # of the nodes, which is pushed to
    tops: dict[str, int] = field(default_factory=dict)  # by stream: the last offset
    problem: str = ""
    late_s: float = 0.0  # how far pushes were behind their times


@contextlib.contextmanager
def _stack(name: str, folder: Path, drain_s: float) -> Iterator[Stack]:
    ports = free_ports(9)
    run = folder / "run"
    run.mkdir()
    run.chmod(0o755)
    with contextlib.ExitStack() as stack:
        _, url = stack.enter_context(systems.redis(folder, LOAD_CORE))
        common: dict[str, Any] = {
            **RAISED,
            "EDGE__TRUNK": RELAY not in name,
            "EDGE__UPSTREAMS": [f"127.0.0.1:{port}" for port in ports[:2]],
            "EDGE__PORT": ports[6],
            "EDGE__INTERNAL": f"127.0.0.1:{ports[7]}",
            "EDGE__CALLS_PORT": ports[8],
            "EDGE__RUN_DIR": str(run),
            "EDGE__ACCESS_LOG": str(folder / "access.log"),
            "SERVER__DRAIN_S": drain_s,
            "TRUNK__KEY": TRUNK_KEY,
            "AUTH__MODE": "jwt",
            "AUTH__KEY": system.TOKEN_KEY,
            "LOG__LEVEL": "warning",
            "BROKER__KIND": "redis",
            "BROKER__URL": url,
        }
        nodes = []
        for number in range(2):
            own = folder / f"node-{number}"
            own.mkdir()
            port, api_port, trunk_port = ports[number], ports[2 + number], ports[4 + number]
            env = environ({**common, "SERVER__PORT": port, "INTERNAL__PORT": api_port, "TRUNK__PORT": trunk_port})
            nodes.append(Node.start(own, env, port, api_port))
            stack.callback(nodes[-1].stop)
        for node in nodes:
            node.is_ready()
        config = render(edge_of(name), folder / "edge", environ({**common, "SERVER__PORT": ports[0]}))
        args: list[str | Path] = [system.nginx(), "-e", "stderr", "-c", config, "-g", "daemon off;"]
        nginx = stack.enter_context(Program("nginx", args, folder))
        nginx.listens(ports[6])
        yield Stack(ports[6], nodes)


def _do(stack: Stack, fault: str, ended: threading.Event, over: threading.Event) -> None:
    """The deploy, or what happens to the first node. Returns when all is over: what a thread starts ends with it."""
    try:
        time.sleep(QUIET_S)
        for number in range(2 if fault == "restart" else 1):
            node = stack.nodes[number]
            stack.target = 1 - number
            time.sleep(0.1)  # the last push to this node is over
            pid = node.program.pid
            match fault:
                case "restart":
                    os.kill(pid, signal.SIGTERM)
                    node.program.popen.wait(60)
                    node.again()
                case "kill":
                    os.kill(pid, signal.SIGKILL)
                    time.sleep(QUIET_S)
                case "stop":
                    os.kill(pid, signal.SIGSTOP)
                    time.sleep(STOPPED_S)
                    os.kill(pid, signal.SIGCONT)
            time.sleep(QUIET_S)
    except Exception as exc:  # the measurement says so
        stack.problem = f"{fault}: {exc!r}"
    finally:
        ended.set()
        over.wait()


def _push(stack: Stack, groups: int, ended: threading.Event) -> None:
    """RATE messages per second to groups in turn, and one to all, by the node that stays."""
    kept: dict[int, http.client.HTTPConnection] = {}
    began_s, number = time.monotonic(), 0
    try:
        while not ended.is_set():
            due_s = began_s + number / RATE
            time.sleep(max(due_s - time.monotonic(), 0))
            addresses = [f"groups/g{number % groups}"] + (["all"] if number % RATE == 0 else [])
            for address in addresses:
                stack.late_s = max(stack.late_s, time.monotonic() - due_s)
                stream, offset = _pushed(stack, kept, address)
                stack.tops[stream] = max(stack.tops.get(stream, 0), offset)
            number += 1
    except Exception as exc:  # the measurement says so
        stack.problem = stack.problem or f"push: {exc!r}"


def _pushed(stack: Stack, kept: dict[int, http.client.HTTPConnection], address: str) -> tuple[str, int]:
    """The stream and offset. A node that goes just then may have taken it: then there are two messages."""
    body = json.dumps({"data": {"at": time.monotonic()}})
    for _ in range(TRIES):
        port = stack.nodes[stack.target].api_port
        if port not in kept:
            kept[port] = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            kept[port].request("POST", f"/api/{address}/push", body, {"Content-Type": "application/json"})
            answer = kept[port].getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            del kept[port]
            time.sleep(0.02)
            continue
        if answer.status != 202:
            raise LoadError(f"push: HTTP {answer.status} {text[:200]!r}")
        kind, _, name = address.partition("/")
        return (f"group:{name}" if kind == "groups" else kind), int(json.loads(text)["offset"])
    raise LoadError("no node takes a push")
