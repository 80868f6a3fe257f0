"""Real Redis servers for tests: Debian's redis-server on a free port, killed, paused, restarted, replicated, watched by
Sentinels."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support import free_port, scaled


def client(port: int, password: str | None = None) -> redis.Redis:
    """A client for the test itself; it repeats nothing."""
    return redis.Redis(
        host="127.0.0.1",
        port=port,
        password=password,
        protocol=2,
        decode_responses=True,
        encoding_errors="replace",
        socket_timeout=scaled(5),
        retry=Retry(NoBackoff(), 0),
    )


class RedisServer:
    """``with RedisServer(appendonly="yes") as server``; options are those of redis.conf, with ``_`` for ``-``.
    Nothing is kept over a restart unless an option says so."""

    def __init__(self, *, port: int | None = None, **options: str) -> None:
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="tidegate-redis-"))
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
        args = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        for name, value in self.options.items():
            args += [f"--{name}", *(value.split(" ") if value else [""])]
        self._process = _start(args, self.folder)
        _answers(self.client)

    def kill(self) -> None:
        """SIGKILL: what was not written is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

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


class Trio:
    """A master, two replicas and three Sentinels; ``url`` is what a broker is given."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.servers: list[RedisServer] = []
        self.sentinels: list[int] = []

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
                self.sentinels.append(self._stack.enter_context(_sentinel(master.port)))
            for port in self.sentinels:
                until(lambda port=port: self._sees_all(port))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return "redis+sentinel://" + ",".join(f"127.0.0.1:{port}" for port in self.sentinels) + "/tide"

    @property
    def master(self) -> RedisServer:
        """The one that Sentinel names."""
        with contextlib.closing(client(self.sentinels[0])) as asked:
            _, port = asked.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "tide")
        return next(server for server in self.servers if server.port == int(port))

    def _sees_all(self, port: int) -> bool:
        with contextlib.closing(client(port)) as asked:
            state = asked.execute_command("SENTINEL", "MASTER", "tide")
        fields = state if isinstance(state, dict) else dict(zip(state[::2], state[1::2], strict=True))
        return int(fields["num-slaves"]) == 2 and int(fields["num-other-sentinels"]) == 2


@contextlib.contextmanager
def _sentinel(master: int) -> Iterator[int]:
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="tidegate-sentinel-"))
    config = folder / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor tide 127.0.0.1 {master} 2\n"
        "sentinel down-after-milliseconds tide 1000\nsentinel failover-timeout tide 5000\n"
    )
    process = _start(["redis-server", str(config), "--sentinel"], folder)
    asked = client(port)
    try:
        _answers(asked)
        yield port
    finally:
        asked.close()
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _start(args: list[str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


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
