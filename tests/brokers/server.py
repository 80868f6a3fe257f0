"""Real Redis servers for tests: Debian's redis-server on a free port, killed, paused, restarted, replicated, watched by
Sentinels."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support import free_port, scaled


def client(port: int, password: str | None = None, **options: Any) -> redis.Redis:
    """A client for the test itself; it repeats nothing."""
    return redis.Redis(
        host="127.0.0.1",
        port=port,
        password=password,
        **options,
        protocol=2,
        decode_responses=True,
        encoding_errors="replace",
        socket_timeout=scaled(5),
        retry=Retry(NoBackoff(), 0),
    )


class RedisServer:
    """``with RedisServer(appendonly="yes") as server``; options are those of redis.conf, with ``_`` for ``-``.
    Nothing is kept over a restart unless an option says so. ``environ`` is added to its environment."""

    def __init__(self, *, port: int | None = None, environ: Mapping[str, str] | None = None, **options: str) -> None:
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="tidegate-redis-"))
        self._environ = environ or {}
        self.options = {"save": "", "appendonly": "no", "repl-diskless-sync-delay": "0"} | {
            k.replace("_", "-"): v for k, v in options.items()
        }
        self.client = client(self.port, options.get("requirepass"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> RedisServer:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def start(self) -> None:
        """Returns when it answers."""
        self.launch()
        _answers(self.client)

    def launch(self) -> None:
        """It may end before it answers."""
        args = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        for name, value in self.options.items():
            args += [f"--{name}", *(value.split(" ") if value else [""])]
        self._process = _start(args, self.folder, self._environ)

    @property
    def ended(self) -> bool:
        """By itself."""
        return self._process is not None and self._process.poll() is not None

    def kill(self) -> None:
        """SIGKILL: what was not written is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """SIGTERM: what its options let it keep is kept."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def copy(self) -> None:
        """Of what it has on its disk now."""
        shutil.copytree(self.folder, self._copy, dirs_exist_ok=True)

    def restore(self) -> None:
        """What was copied takes the place of what it has. It must not run."""
        shutil.rmtree(self.folder)
        shutil.copytree(self._copy, self.folder)

    @property
    def _copy(self) -> Path:
        return self.folder.with_suffix(".copy")

    def restart(self) -> None:
        self.kill()
        self.start()

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def command(self, *args: Any) -> Any:
        return self.client.execute_command(*args)

    def close(self) -> None:
        self.kill()
        self.client.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self._copy, ignore_errors=True)


class SentinelServer:
    """``with SentinelServer(master, "requirepass x", password="x") as sentinel``: watches the master on that port as
    ``tide``; further lines are those of sentinel.conf, ``options`` those of the test's client."""

    def __init__(self, master: int, *lines: str, port: int = 0, quorum: int = 2, **options: Any) -> None:
        self.port = port or free_port()
        self.client = client(self.port, **options)
        self._folder = Path(tempfile.mkdtemp(prefix="tidegate-sentinel-"))
        self._config = self._folder / "sentinel.conf"
        listens = [] if any(line.startswith("port ") for line in lines) else [f"port {self.port}"]
        self._config.write_text(
            "\n".join(
                [
                    *listens,
                    f"bind 127.0.0.1\ndir {self._folder}\nsentinel monitor tide 127.0.0.1 {master} {quorum}",
                    "sentinel down-after-milliseconds tide 1000\nsentinel failover-timeout tide 5000",
                    *lines,
                    "",
                ]
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> SentinelServer:
        self._process = _start(["redis-server", str(self._config), "--sentinel"], self._folder)
        try:
            _answers(self.client)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
        self.client.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)


class Trio:
    """A master, two replicas and three Sentinels; ``url`` is what a broker is given."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.servers: list[RedisServer] = []
        self.sentinels: list[SentinelServer] = []

    def __enter__(self) -> Trio:
        with self._stack:
            master = self._stack.enter_context(RedisServer())
            self.servers = [master]
            for _ in range(2):
                replica = RedisServer(replicaof=f"127.0.0.1 {master.port}")
                self.servers.append(self._stack.enter_context(replica))
            for server in self.servers[1:]:
                until(lambda server=server: server.client.info("replication")["master_link_status"] == "up")
            for _ in range(3):
                self.sentinels.append(self._stack.enter_context(SentinelServer(master.port)))
            for sentinel in self.sentinels:
                until(lambda sentinel=sentinel: self._sees_all(sentinel))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return sentinel_url(*(sentinel.port for sentinel in self.sentinels))

    @property
    def master(self) -> RedisServer:
        """The one that the last Sentinel names."""
        _, port = self.sentinels[-1].client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "tide")
        return next(server for server in self.servers if server.port == int(port))

    @staticmethod
    def _sees_all(sentinel: SentinelServer) -> bool:
        state = sentinel.client.execute_command("SENTINEL", "MASTER", "tide")
        fields = state if isinstance(state, dict) else dict(zip(state[::2], state[1::2], strict=True))
        return int(fields["num-slaves"]) == 2 and int(fields["num-other-sentinels"]) == 2


def sentinel_url(*ports: int, options: str = "") -> str:
    return "redis+sentinel://" + ",".join(f"127.0.0.1:{port}" for port in ports) + f"/tide{options}"


def _start(args: list[str], folder: Path, environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    env = {**os.environ, **(environ or {})}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=env)


def _answers(asked: redis.Redis) -> None:
    def ping() -> bool:
        try:
            return bool(asked.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    until(ping)


def until(condition: Any, timeout_s: float = 20) -> None:
    """Waits, also where no loop runs. Raises AssertionError."""
    deadline = time.monotonic() + scaled(timeout_s)
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)
