"""The comparison of the modes: what it measures, what it finds wrong, and that it runs."""

from __future__ import annotations

import argparse
import json
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, TypeAlias

import pytest

from bench.compare import command as compare
from bench.compare import parts, parts_trouble
from bench.compare.modes import NGINX, SERVICE
from bench.compare.parts import QUICK, Turn, wrong_caller
from bench.compare.progress import Progress, clock
from bench.compare.stand import Stand, cell
from bench.load.loader import Loader
from bench.load.orders import percentile
from bench.load.publisher import LoadError
from bench.load.storm import accept
from bench.report import raw
from bench.report.comparison import MODES, Case, read
from tests.support import Process, eventually

NOTHING: dict[str, Any] = {"groups": {}, "others": []}
WELCOME = b'{"type":"welcome"}'


def message(offset: int) -> bytes:
    return b'{"type":"message","stream":"group:g","epoch":"e","offset":%d,"time":1,"data":"x"}' % offset


class Gateway:
    """Takes one client and one publisher. To the n-th push it sends the client ``frames(n)``, and to each message of
    the client's ``answers(text)``; ``refusal`` takes the place of 101."""

    def __init__(
        self,
        frames: Callable[[int], list[bytes]] = lambda number: [message(number)],
        answers: Callable[[bytes], list[bytes]] = lambda text: [],
        status: bytes = b"202 Accepted",
        refusal: bytes = b"",
    ) -> None:
        self._frames, self._answers, self._status, self._refusal = frames, answers, status, refusal
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._api = socket.create_server(("127.0.0.1", 0))
        self.port, self.api_port = (each.getsockname()[1] for each in (self._listener, self._api))
        self._client: socket.socket
        self._threads = [Thread(target=serve, daemon=True) for serve in (self._serve, self._take)]
        for thread in self._threads:
            thread.start()

    def _serve(self) -> None:
        with self._listener:
            client, _ = self._listener.accept()
        with client, suppress(OSError):
            head = client.recv(4096).decode()
            if self._refusal:
                client.send(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % self._refusal)
                return
            key = re.search(r"Sec-WebSocket-Key: (\S+)", head)
            assert key is not None
            client.send(b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: %b\r\n\r\n" % accept(key[1]))
            self._client = client
            self._send(WELCOME)
            client.settimeout(0.2)
            while (frame := self._heard(client)) != b"":
                for text in unmasked(frame or b""):
                    for answer in self._answers(text):
                        self._send(answer)

    def _heard(self, client: socket.socket) -> bytes | None:
        """None when it was silent for a while; then it gets a ping."""
        try:
            return client.recv(4096)
        except TimeoutError:
            client.send(b"\x89\x00")
            return None

    def _take(self) -> None:
        with self._api:
            publisher, _ = self._api.accept()
        number, data = 0, b""
        with publisher, suppress(OSError):
            while part := publisher.recv(4096):
                data += part
                while (ends := data.find(b'x"}')) >= 0:
                    data, number = data[ends + 3 :], number + 1
                    for text in self._frames(number):
                        self._send(text)
                    publisher.send(b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\n{}" % self._status)

    def _send(self, text: bytes) -> None:
        head = bytes((0x81, len(text))) if len(text) < 126 else bytes((0x81, 126)) + len(text).to_bytes(2, "big")
        self._client.send(head + text)

    def close(self) -> None:
        """After the load client, which ends its connections."""
        for port in (self.port, self.api_port):
            with suppress(OSError):  # nobody waits there any more
                socket.create_connection(("127.0.0.1", port)).close()
        for thread in self._threads:
            thread.join(10)


StartGateway: TypeAlias = Callable[..., Gateway]


def unmasked(data: bytes) -> Iterator[bytes]:
    """The text messages in it."""
    while data:
        size, at = data[1] & 127, 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        key, text = data[at : at + 4], data[at + 4 : at + 4 + size]
        if data[0] & 15 == 1:
            yield bytes(byte ^ key[i & 3] for i, byte in enumerate(text))
        data = data[at + 4 + size :]


@pytest.fixture
def start_gateway() -> Iterator[StartGateway]:
    gateways: list[Gateway] = []

    def start(**options: Any) -> Gateway:
        gateways.append(Gateway(**options))
        return gateways[0]

    yield start
    for gateway in gateways:
        gateway.close()


@pytest.fixture
def loader(tmp_path: Path, start_gateway: StartGateway) -> Iterator[Loader]:
    """Ends before the gateway does."""
    with Loader(tmp_path, "test", "bench.load.orders") as loader:
        yield loader


def push(loader: Loader, gateway: Gateway, *, count: int = 3, every_s: float = 0.01) -> dict[str, Any]:
    loader.ask("enter", name="a", port=gateway.port, count=1, group="g", watch=NOTHING)
    order = {"name": "a", "api_port": gateway.api_port, "path": "/api/groups/g/push", "size": 100}
    return loader.ask("push", **order, count=count, every_s=every_s, watch=NOTHING)


def call(loader: Loader, gateway: Gateway) -> dict[str, Any]:
    loader.ask("enter", name="a", port=gateway.port, count=1, group="", watch=NOTHING)
    return loader.ask("ask", name="a", kind="call", total=4, in_flight=2, size=100, watch=NOTHING)


def reply(text: bytes) -> bytes:
    asked = json.loads(text)
    answer = {"type": "reply", "id": asked["id"], "status": 200, "data": asked["data"]}
    return json.dumps(answer, separators=(",", ":")).encode()


# What is found wrong


def test_pushes_that_arrive_once_and_in_order_give_a_figure(loader: Loader, start_gateway: StartGateway) -> None:
    found = push(loader, start_gateway())
    assert found["count"] == 3
    assert 0 < found["p50_ms"] <= found["p99_ms"]


def test_a_lost_message_gives_no_figure(loader: Loader, start_gateway: StartGateway) -> None:
    gateway = start_gateway(frames=lambda number: [] if number == 2 else [message(number)])
    with pytest.raises(LoadError, match=r'"offset":3.* instead of 2'):
        push(loader, gateway)


@pytest.mark.slow
def test_the_last_message_lost_gives_no_figure_however_many_pings_come(
    loader: Loader, start_gateway: StartGateway
) -> None:
    gateway = start_gateway(frames=lambda number: [] if number == 3 else [message(number)])
    with pytest.raises(LoadError, match="1 of 3 were lost"):
        push(loader, gateway, every_s=0.0)


def test_a_repeated_message_gives_no_figure(loader: Loader, start_gateway: StartGateway) -> None:
    gateway = start_gateway(frames=lambda number: [message(number)] * (2 if number == 3 else 1))
    with pytest.raises(LoadError, match="wrong"):
        push(loader, gateway)


def test_a_push_that_is_refused_gives_no_figure(loader: Loader, start_gateway: StartGateway) -> None:
    with pytest.raises(LoadError, match="503"):
        push(loader, start_gateway(status=b"503 Service Unavailable"))


def test_calls_that_are_answered_give_a_figure(loader: Loader, start_gateway: StartGateway) -> None:
    assert call(loader, start_gateway(answers=lambda text: [reply(text)]))["count"] == 4


def test_the_answer_to_another_call_gives_no_figure(loader: Loader, start_gateway: StartGateway) -> None:
    gateway = start_gateway(answers=lambda text: [reply(text).replace(b'"0000000001', b'"0000000009')])
    with pytest.raises(LoadError, match="wrong"):
        call(loader, gateway)


def test_a_second_answer_to_a_call_gives_no_figure(loader: Loader, start_gateway: StartGateway) -> None:
    with pytest.raises(LoadError, match="wrong"):
        call(loader, start_gateway(answers=lambda text: [reply(text)] * 2))


def test_a_refused_handshake_gives_no_figure(loader: Loader, start_gateway: StartGateway) -> None:
    gateway = start_gateway(refusal=b"429 Too Many Requests")
    with pytest.raises(LoadError, match="429"):
        loader.ask("enter", name="a", port=gateway.port, count=1, group="", watch=NOTHING)


def test_who_made_the_calls_is_asked_of_the_application() -> None:
    assert wrong_caller({"njs": 99, "service": 1}, "njs", 100) == ""
    assert "less than 99 %" in wrong_caller({"njs": 98, "service": 2}, "njs", 100)
    assert "less than 99 %" in wrong_caller({"service": 100}, "njs", 100)
    assert "99 of 100" in wrong_caller({"njs": 99}, "njs", 100)


async def test_calls_that_another_caller_made_give_no_figure(tmp_path: Path) -> None:
    stand = Stand("direct", tmp_path / "direct", app=True)
    stand.start()
    with stand:
        work = parts.call(QUICK).works[0]
        turn = Turn(1, Case(work.name, work.title))
        right = work.measure(stand, turn)
        assert right.fault == ""
        assert right.values["app_cpu_us"] > 0
        stand.name = "njs"  # whose calls nginx has to make
        wrong = work.measure(stand, turn)
        assert "less than 99 %" in wrong.fault
        assert wrong.values == {}


# What is measured


def test_waiting_counts_in_open_loop(loader: Loader, start_gateway: StartGateway) -> None:
    def frames(number: int) -> list[bytes]:
        if number == 1:
            time.sleep(0.3)
        return [message(number)]

    found = push(loader, start_gateway(frames=frames), count=20, every_s=0.01)
    # All were due within 0.2 s and none came before 0.3 s. A client that waits for one before it sends the next would
    # see one slow push and 19 fast ones.
    assert found["p50_ms"] > 100


def test_a_percentile_is_a_value_that_was_there() -> None:
    assert percentile([1, 2, 3, 4], 50) == 2
    assert percentile([1, 2, 3, 4], 99) == 4
    assert percentile([1, 2, 3, 4], 0) == 1
    assert percentile(list(range(1, 1001)), 99.9) == 999


def test_cpu_is_told_apart_by_program_and_summed() -> None:
    answer = {"cpu_s": {"nginx": 1.0, "service": 2.0}, "wall_s": 4.0, "client_cpu_s": 1.0}
    found = cell(answer, 1000, "nginx", "service", "app")
    assert found.values["nginx_cpu_us"] == 1000
    assert found.values["service_cpu_us"] == 2000
    assert found.values["app_cpu_us"] == 0
    assert found.values["cpu_us"] == 3000
    assert (found.client_share, found.server_share) == (0.25, 0.75)


def test_rounds_are_interleaved_between_modes() -> None:
    found = list(compare.order(parts.handshake(QUICK), MODES, 2, warm_up=True))
    assert [mode for _, _, mode in found[:8]] == [*MODES, *MODES]
    assert [number for number, _, _ in found] == sorted(number for number, _, _ in found)
    assert {number for number, _, _ in found} == {0, 1, 2}  # 0 warms up


def test_a_mode_over_tcp_is_made_beside_its_twin_and_only_where_that_is_made() -> None:
    chosen = compare._modes("plain-tcp,direct,openresty,plain")
    assert chosen == ["direct", "plain", "plain-tcp", "openresty"]
    found = list(compare.order(parts_trouble.reload(QUICK), chosen, 1, warm_up=False))
    assert [mode for _, _, mode in found] == ["plain", "plain-tcp", "openresty"]
    assert compare._modes("openresty-relay,openresty") == ["openresty", "openresty-relay"]
    with pytest.raises(argparse.ArgumentTypeError, match="no mode direct-tcp"):
        compare._modes("direct-tcp")


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that workers of nginx get into, who are another user."""
    with TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.parametrize("name", ["plain", "plain-tcp"])
def test_an_edge_reaches_the_service_over_what_its_mode_says(name: str, folder: Path) -> None:
    stand = Stand(name, folder / name)
    stand.start()
    with stand:
        stand.enter("few", 3)
        sockets = Path("/proc/net/unix").read_text().count(f"{folder}/{name}/run/.service.sock")
        assert sockets == (1 + 3 if name == "plain" else 0), "the one that listens, and those that it accepted"


@pytest.mark.parametrize("name", ["openresty", "openresty-tcp", "openresty-relay"])
def test_clients_share_a_trunk_unless_the_mode_relays(name: str, folder: Path) -> None:
    stand = Stand(name, folder / name)
    stand.start()
    with stand:
        before = files_at_rest(stand)
        stand.enter("few", 20)
        more = {each: count - before[each] for each, count in stand.mode.files().items()}
        linked = name != "openresty-relay"
        assert (more[SERVICE] < 20) is linked, "a file for each client, or for all of them"
        assert 20 <= more[NGINX] < 40 if linked else more[NGINX] >= 40


def files_at_rest(stand: Stand) -> dict[str, int]:
    """What is open once nothing has begun or ended for a while: a probe's connection, the service's own files."""
    seen: list[dict[str, int]] = []
    while len(seen) < 5 or any(each != seen[-1] for each in seen[-5:]):
        time.sleep(0.1)
        seen.append(stand.mode.files())
    return seen[-1]


def test_the_time_that_is_left_follows_the_pace() -> None:
    progress = Progress(100.0)
    for _ in range(6):
        progress.say("a part", 1, 1, 10.0)
    # 50 of 100 are behind, and took no time at all.
    assert progress.left_s() < 1
    assert clock(187) == "3:07"


async def test_nginx_and_service_are_told_apart(folder: Path) -> None:
    stand = Stand("plain", folder / "plain")
    stand.start()
    with stand:
        found = parts.handshake(QUICK).works[0].measure(stand, Turn(1, Case("", "")))
        assert found.values["nginx_cpu_us"] > 0
        assert found.values["service_cpu_us"] > 0
        assert len(stand.mode.pids[NGINX]) == 2  # the master and one worker


# The command


@pytest.mark.slow
async def test_a_quick_run_measures_all_modes(tmp_path: Path, start_process: Callable[..., Process]) -> None:
    process = start_process(sys.executable, "-m", "bench", "compare", "--quick", "--out", tmp_path)
    await process.ended(400)
    found = read(tmp_path)
    assert found.problems == []
    assert found.complete, str(process)
    assert [part.name for part in found.parts] == list(compare.PLANS)
    for part in found.parts:
        for case in part.cases:
            assert all(cells and cells[0].values for cells in case.cells.values()), case
    calls = found.part("call")
    assert calls is not None
    assert {mode: list(cells[0].notes["via"]) for mode, cells in calls.cases[0].cells.items()} == {
        "direct": ["service"],
        "plain": ["service"],
        "plain-tcp": ["service"],
        "njs": ["njs"],
        "openresty": ["openresty"],
        "openresty-relay": ["openresty"],
    }
    assert (tmp_path / "report.html").exists()


@pytest.mark.slow
async def test_what_was_done_before_ctrl_c_is_kept(tmp_path: Path, start_process: Callable[..., Process]) -> None:
    options = ["--quick", "--modes", "direct,plain", "--only", "handshake", "--only", "growth"]
    process = start_process(sys.executable, "-m", "bench", "compare", *options, "--out", tmp_path)
    await eventually(lambda: (tmp_path / raw.NAME).exists(), 60)
    process.signal(signal.SIGINT)
    assert await process.ended(60) == 130
    found = read(tmp_path)
    assert not found.complete
    assert found.parts[0].cases[0].cells["plain"][0].values
    assert (tmp_path / "report.md").exists()
