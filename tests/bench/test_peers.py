"""The benchmark's own judgement: what it concludes, what it refuses, and what it finds wrong."""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest

from bench import guard
from bench.load.loader import Loader
from bench.load.processes import BenchError, cpu_s, kernel_s
from bench.load.publisher import message
from bench.load.storm import accept
from bench.load.system import System
from bench.operations import OPERATIONS
from bench.report import raw
from bench.report.run import Part, Run
from bench.report.stats import Sample, Target, judge, ratios, summary
from tests.support import Process, eventually

RATIO = Target("fan-out", "fan-out", "tidegate", "floor", 1.2)
PLAIN = Target("memory", "memory", "tidegate", None, 7, unit="KiB")


def samples(*values: float, client_share: float = 0.5, server_share: float = 0.5) -> list[Sample]:
    return [Sample(value, client_share, server_share) for value in values]


# What is concluded


def test_a_summary_has_the_median_and_its_bounds() -> None:
    found = summary([5.0, 1.0, 2.0])
    assert found is not None
    assert (found.middle, found.least, found.most, found.count) == (2.0, 1.0, 5.0, 3)
    assert summary([]) is None


def test_ratios_are_made_pair_by_pair_not_of_medians() -> None:
    # The machine was slow in the second round: both suffered, their ratio did not.
    assert ratios(samples(10, 30, 10), samples(10, 30, 10)) == [1.0, 1.0, 1.0]


def test_a_round_without_a_figure_on_one_side_is_in_no_ratio() -> None:
    assert ratios([Sample(None), *samples(20)], samples(10, 10)) == [2.0]


def test_a_target_is_met_by_the_median_of_five_rounds() -> None:
    verdict = judge(RATIO, samples(11, 11, 11, 11, 11), samples(10, 10, 10, 10, 10))
    assert verdict.result == "met"
    assert verdict.reason == ""


def test_a_target_is_not_met_where_the_median_is_above_it() -> None:
    verdict = judge(RATIO, samples(11, 13, 13, 13, 11), samples(10, 10, 10, 10, 10))
    assert verdict.result == "not met"
    assert verdict.reason == "2 of 5 rounds say otherwise"


def test_below_means_less_than_the_reference() -> None:
    target = Target("fan-out", "fan-out", "tidegate", "gorilla", 1, below=True)
    same = samples(10, 10, 10, 10, 10)
    assert judge(target, same, same).result == "not met"


def test_a_target_without_a_reference_is_judged_by_the_figure_itself() -> None:
    assert judge(PLAIN, samples(6, 6, 6, 6, 6), []).result == "met"
    assert judge(PLAIN, samples(8, 8, 8, 8, 8), []).result == "not met"


# What is refused


def test_nothing_is_concluded_from_four_rounds() -> None:
    verdict = judge(PLAIN, samples(6, 6, 6, 6), [])
    assert verdict.result == "no conclusion"
    assert verdict.reason == "4 rounds, 5 are needed"


def test_nothing_is_concluded_where_the_load_client_was_the_limit() -> None:
    limited = samples(11, 11, 11, 11, 11, client_share=0.97, server_share=0.5)
    verdict = judge(RATIO, limited, samples(10, 10, 10, 10, 10))
    assert verdict.result == "no conclusion"
    assert "97%" in verdict.reason


def test_a_busy_client_is_not_the_limit_where_the_server_was_as_busy() -> None:
    busy = samples(11, 11, 11, 11, 11, client_share=0.97, server_share=0.98)
    assert judge(RATIO, busy, samples(10, 10, 10, 10, 10)).result == "met"


def test_a_limited_reference_concludes_nothing_either() -> None:
    limited = samples(10, 10, 10, 10, 10, client_share=0.95, server_share=0.2)
    assert judge(RATIO, samples(11, 11, 11, 11, 11), limited).result == "no conclusion"


def test_one_wrong_run_takes_all_figures_away() -> None:
    wrong = [*samples(11, 11, 11, 11), Sample(None, fault="tidegate: 3 messages were lost")]
    verdict = judge(RATIO, wrong, samples(10, 10, 10, 10, 10))
    assert verdict.result == "no conclusion"
    assert verdict.figure is None
    assert "3 messages were lost" in verdict.reason


def test_the_report_shows_no_figures_of_a_wrong_run(tmp_path: Path) -> None:
    series = {"floor": samples(10), "tidegate": [Sample(123.0), Sample(None, fault="tidegate: offset 7 instead of 6")]}
    run = Run("python -m bench peers", {}, [RATIO], 1, [Part("fan-out", "Fan-out", "µs", "to all", "floor", series)])
    run.write(tmp_path)
    report = (tmp_path / "report.md").read_text()
    assert "no figures: tidegate: offset 7 instead of 6" in report
    assert "123" not in report
    assert "Broken off" in report  # nobody said that it was complete
    assert raw.read(tmp_path)["verdicts"][0]["result"] == "no conclusion"


def test_the_report_tells_the_kernels_part_where_the_rounds_are_long_enough(tmp_path: Path) -> None:
    def sample(value: float, cpu_s: float, kernel_s: float) -> Sample:
        return Sample(value, more={"server_cpu_s": cpu_s, "server_kernel_s": kernel_s})

    series = {
        "floor": [sample(5.0, 0.6, 0.5), sample(6.0, 0.6, 0.7)],
        "tidegate": [sample(8.0, 0.5, 0.38), sample(8.0, 0.5, 0.37), sample(9.0, 0.5, 0.375)],
        "short": [sample(2.0, 0.1, 0.1)],
    }
    run = Run("python -m bench peers", {}, [RATIO], 1, [Part("fan-out", "Fan-out", "µs", "to all", "floor", series)])
    run.write(tmp_path)
    rows = (line.split(" | ") for line in (tmp_path / "report.md").read_text().splitlines())
    assert {row[0][2:]: row[3:5] for row in rows if row[0][2:] in series} == {
        "floor": ["5.5", "0"],
        "tidegate": ["6", "2"],
        "short": ["", ""],
    }


# What is found wrong


@pytest.fixture
def loader(tmp_path: Path) -> Iterator[Loader]:
    with Loader(tmp_path, "test") as loader:
        yield loader


class Liar:
    """A WebSocket server for one client which answers a message on the control port with ``frames``."""

    def __init__(self, frames: Callable[[bytes], list[bytes]]) -> None:
        self._frames = frames
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._control = socket.create_server(("127.0.0.1", 0))
        port, control_port = (each.getsockname()[1] for each in (self._listener, self._control))
        publish = {"kind": "control", "ports": [control_port]}
        self.system = System("liar", [], [f"ws://127.0.0.1:{port}/"], publish)
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        head = client.recv(4096).decode()
        key = next(line for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key:"))
        client.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept(key.partition(":")[2].strip())
        )
        control, _ = self._control.accept()
        while length := control.recv(4):
            for text in self._frames(control.recv(int.from_bytes(length, "big"))):
                client.send(bytes((0x81, len(text))) + text)
        client.close()
        control.close()

    def close(self) -> None:
        self._thread.join(10)
        self._listener.close()
        self._control.close()


def fault(loader: Loader, frames: Callable[[bytes], list[bytes]], messages: int = 3) -> str:
    """What a fan-out by a server that sends ``frames`` for each message is found to be."""
    liar = Liar(frames)
    try:
        loader.ask("gather", **liar.system.connect(1))
        order = {"publish": liar.system.publish, "messages": messages, "batch": 1}
        return loader.sample(liar.system, "fan_out", "deliveries", **order).fault
    finally:
        loader.stop()
        liar.close()


def test_a_server_that_delivers_each_message_once_is_right(loader: Loader) -> None:
    assert fault(loader, lambda text: [text]) == ""


def test_a_message_that_comes_twice_is_wrong(loader: Loader) -> None:
    assert "wrong" in fault(loader, lambda text: [text, text])


def test_a_repeat_of_the_last_message_is_wrong(loader: Loader) -> None:
    last = message(3)
    assert "wrong" in fault(loader, lambda text: [text, text] if text == last else [text])


def test_another_offset_is_wrong(loader: Loader) -> None:
    found = fault(loader, lambda text: [message(9) if text == message(2) else text])
    assert '"offset":9' in found
    assert "instead of 2" in found


# What is measured


async def test_cpu_time_is_that_of_the_process(start_process: Callable[..., Process]) -> None:
    code = "import time\nwhile time.process_time() < 0.2: pass\nprint('done', flush=True)\ntime.sleep(60)"
    process = start_process(sys.executable, "-c", code)
    await eventually(lambda: "done" in process.stdout, 20)
    assert 0.2 <= cpu_s([process.pid]) < 0.4


@pytest.mark.parametrize(("work", "least", "most"), [("sum(range(10**6))", 0, 0.1), ("os.urandom(1 << 20)", 0.2, 0.9)])
async def test_the_kernels_part_is_told_apart(
    start_process: Callable[..., Process], work: str, least: float, most: float
) -> None:
    code = f"import os, time\nwhile time.process_time() < 0.3: {work}\nprint('done', flush=True)\ntime.sleep(60)"
    process = start_process(sys.executable, "-c", code)
    await eventually(lambda: "done" in process.stdout, 20)
    assert least <= kernel_s([process.pid]) <= most


@pytest.mark.slow
async def test_a_quick_run_measures_the_service(tmp_path: Path, start_process: Callable[..., Process]) -> None:
    only = ["--only", "push", "--only", "round-trip"]
    process = start_process(sys.executable, "-m", "bench", "peers", "--quick", *only, "--out", tmp_path / "results")
    await process.ended(120)
    found = raw.read(tmp_path / "results")
    assert found["complete"], str(process)
    parts = {part["name"]: part["series"] for part in found["parts"]}
    assert parts["push"]["tidegate"][0]["value"] > 0
    assert not any(sample["fault"] for part in parts.values() for each in part.values() for sample in each)


@pytest.mark.slow
async def test_what_was_done_before_ctrl_c_is_kept(tmp_path: Path, start_process: Callable[..., Process]) -> None:
    results = tmp_path / "results"
    only = ["--only", "push", "--rounds", "1000"]
    process = start_process(sys.executable, "-m", "bench", "peers", "--quick", *only, "--out", results)
    await eventually(lambda: (results / "report.md").exists(), 60)
    process.signal(signal.SIGINT)
    assert await process.ended(30) == 130
    found = raw.read(results)
    assert not found["complete"]
    assert found["parts"][0]["series"]["tidegate"]


# The guard


def test_the_guard_names_what_became_slower_by_more_than_a_tenth() -> None:
    before = {"a": 1000, "b": 1000, "c": 1000}
    assert guard.compare(before, {"a": 1101, "b": 1100, "c": 500, "new": 7}) == ["a"]


def test_the_guard_names_what_is_no_longer_counted() -> None:
    assert guard.compare({"gone": 1000}, {}) == ["gone"]


def test_the_guard_reads_what_callgrind_counted_for_one_operation(tmp_path: Path) -> None:
    profile = tmp_path / "callgrind.out.1"
    profile.write_text("desc: Trigger: Client Request: a delivery=50\nevents: Ir\nsummary: 0\n\ntotals: 5000\n")
    assert guard.read(profile) == ("a delivery", 100)
    profile.write_text("desc: Trigger: Program termination\ntotals: 0\n")
    with pytest.raises(BenchError, match="no name"):
        guard.read(profile)


def test_the_guard_has_a_figure_for_every_operation() -> None:
    assert json.loads(guard.FIGURES.read_text())["instructions"].keys() == OPERATIONS.keys()
