"""The scripts around an edge: ``make edge``, and the certificate for trying."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.edges.edge import environ, stand
from tests.peer import Peer
from tests.support import ROOT, Process, free_port
from tidegate.config.load import load
from tidegate.config.settings import Config
from tools import local_socket


@pytest.mark.parametrize(("variant", "code"), [("plain", None), ("njs", None), ("openresty", 1001)])
async def test_make_edge_runs_an_edge_until_it_is_told_to_stop(
    start_process: Callable[..., Process], tmp_path: Path, variant: str, code: int | None
) -> None:
    port, tls_port = free_port(), free_port()
    async with stand("direct") as s:
        env = environ(
            {
                "EDGE__INTERNAL": f"127.0.0.1:{free_port()}",
                "EDGE__CALLS_PORT": free_port(),
                "EDGE__TLS_DIR": _certificate(tmp_path / "tls"),
                "EDGE__SHUTDOWN_TIMEOUT_S": 1,
                "EDGE__NOFILE": 4096,
                "EDGE__WORKER_CONNECTIONS": 1024,
            }
        )
        env |= {"EDGE_PORT": str(port), "EDGE_TLS_PORT": str(tls_port), "TMPDIR": "/tmp"}
        env["UPSTREAMS"] = f"127.0.0.1:{s.node.public},127.0.0.1:{free_port()}"
        edge = start_process(ROOT / "tools/edge.sh", variant, env=env)
        try:
            await edge.port(port)
            nodes = env["UPSTREAMS"].split(",")
            assert edge.stdout.splitlines()[:4] == [
                f"edge: {variant} on ws://127.0.0.1:{port}/ws-notifications/",
                f"edge: {variant} on wss://127.0.0.1:{tls_port}/ws-notifications/",
                *(f"edge: in front of {node}" for node in nodes),
            ]
            folder = _folder(edge)
            async with (
                Peer(port, client="a") as one,
                Peer(port, client="b") as other,
            ):  # one of the upstreams is not there
                await one.event()
                await other.event()
                os.killpg(edge.pid, signal.SIGINT)  # as a terminal does it for Ctrl-C: nginx itself would cut at once
                assert [await one.ended(), await other.ended()] == [code, code]
        finally:
            edge.signal(signal.SIGTERM)
            await edge.ended()
        assert not folder.exists()


@pytest.fixture
def folder() -> Iterator[str]:
    """One that nginx's workers get into."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield made


async def test_make_edge_goes_to_the_unix_socket_of_make_run(
    start_process: Callable[..., Process], tmp_path: Path, folder: str
) -> None:
    port, tls_port, public = free_port(), free_port(), free_port()
    env = environ(
        {
            "SERVER__PORT": public,
            "INTERNAL__PORT": free_port(),
            "EDGE__INTERNAL": f"127.0.0.1:{free_port()}",
            "EDGE__CALLS_PORT": free_port(),
            "EDGE__TLS_DIR": _certificate(tmp_path / "tls"),
            "EDGE__NOFILE": 4096,
            "EDGE__WORKER_CONNECTIONS": 1024,
        }
    )
    env |= {"SOCKET_DIR": folder, "EDGE_PORT": str(port), "EDGE_TLS_PORT": str(tls_port), "TMPDIR": "/tmp"}
    service = start_process(ROOT / "tools/run.sh", env=env)
    await service.line("service.started")
    edge = start_process(ROOT / "tools/edge.sh", "plain", env=env)
    await edge.port(port)
    assert edge.stdout.splitlines()[2] == f"edge: in front of unix:{folder}/{public}.sock"
    async with Peer(port, client="alice") as alice:
        assert (await alice.event())["type"] == "welcome"
    for process in (edge, service):
        process.signal(signal.SIGTERM)
        await process.ended()
    assert local_socket.for_edge(_config(env)) == [], "nobody listens there any more"


def _config(env: dict[str, str]) -> Config:
    return load(None, {name: value for name, value in env.items() if name.startswith("TIDEGATE_")})


def test_what_the_settings_say_goes_before_the_socket_of_make_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOCKET_DIR", str(tmp_path / "s"))
    path = f"{tmp_path}/s/8000.sock"
    assert local_socket.for_service(Config())[0] == f"TIDEGATE_SERVER__SOCKET={path}"
    assert local_socket.for_service(load(None, environ({"SERVER__SOCKET": "/run/a.sock"}))) == []
    assert local_socket.for_service(load(None, environ({"SERVER__PORT": 0}))) == []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        assert local_socket.for_edge(Config()) == []
        listening.listen()
        assert local_socket.for_edge(Config()) == [f'TIDEGATE_EDGE__UPSTREAMS=["unix:{path}"]']
        assert local_socket.for_edge(load(None, environ({"EDGE__UPSTREAMS": ["a:1"]}))) == []
    monkeypatch.setenv("SOCKET_DIR", str(tmp_path / ("x" * 107)))
    assert local_socket.for_service(Config()) == [], "too long a path"
    (tmp_path / "link").symlink_to(tmp_path / "s")
    monkeypatch.setenv("SOCKET_DIR", str(tmp_path / "link"))
    assert local_socket.for_service(Config()) == [], "a folder of whoever made the link"


def _folder(edge: Process) -> Path:
    """What it has written for nginx."""
    children = Path(f"/proc/{edge.pid}/task/{edge.pid}/children").read_text().split()
    command = Path(f"/proc/{children[0]}/cmdline").read_bytes().decode()
    return Path(command[command.index("/tmp/") :].partition("/conf.d/")[0])


def test_make_edge_knows_its_variants() -> None:
    said = subprocess.run([ROOT / "tools/edge.sh", "other"], capture_output=True, text=True)
    assert said.returncode == 2
    assert "there is no variant other; there are: " in said.stderr
    assert "plain" in said.stderr


def _certificate(folder: Path) -> str:
    subprocess.run([ROOT / "tools/certificate.sh", folder], check=True, capture_output=True)
    return str(folder)


def test_a_certificate_is_made_once_and_its_key_is_nobody_elses(tmp_path: Path) -> None:
    folder = Path(_certificate(tmp_path))
    certificate = (folder / "fullchain.pem").read_text()
    assert stat.S_IMODE(os.stat(folder / "privkey.pem").st_mode) == 0o600
    context = ssl.create_default_context(cafile=str(folder / "fullchain.pem"))
    context.load_cert_chain(folder / "fullchain.pem", folder / "privkey.pem")
    _certificate(tmp_path)
    assert (folder / "fullchain.pem").read_text() == certificate
    (folder / "privkey.pem").unlink()
    said = subprocess.run([ROOT / "tools/certificate.sh", folder], capture_output=True, text=True)
    assert said.returncode == 1
    assert "needs both" in said.stderr
