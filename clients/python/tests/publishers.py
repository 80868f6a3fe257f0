"""What tests of publishers share: one facade for the blocking and the awaiting one, and servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

from tidegate_client.publisher import AsyncPublisher, Publisher
from tidegate_client.publisher.fake import AsyncFakePublisher, FakePublisher

Kind: TypeAlias = Literal["sync", "async"]
KINDS: Sequence[Kind] = ("sync", "async")


class Awaited:
    """An AsyncPublisher whose calls are awaited here, on a loop of its own."""

    def __init__(self, publisher: AsyncPublisher) -> None:
        self._publisher = publisher
        self._runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._publisher, name)
        if not asyncio.iscoroutinefunction(found):
            return found
        return lambda *args, **kwargs: self._runner.run(found(*args, **kwargs))

    def close(self) -> None:
        self._runner.run(self._publisher.close())
        self._runner.close()


@contextlib.contextmanager
def publisher(kind: Kind, url: str, **options: Any) -> Iterator[Any]:
    made: Any = Publisher(url, **options) if kind == "sync" else Awaited(AsyncPublisher(url, **options))
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def fake_publisher(kind: Kind, fake: Any, **options: Any) -> Iterator[Any]:
    """A fake one, with the gateway of ``fake``."""
    made: Any = FakePublisher(fake.gateway, **options)
    if kind != "sync":
        made = Awaited(AsyncFakePublisher(fake.gateway, **options))
    try:
        yield made
    finally:
        made.close()


class Between:
    """``with Between(port) as between``: passes requests on to a real server, whole, one after the other, and treats
    each as the next of ``plan`` says, then as ``pass``:

    - ``pass``: passes it on, and the answer back;
    - ``lose``: passes it on, and cuts the connection instead of answering;
    - ``drop``: cuts the connection before it is passed on;
    - ``hang``: passes it on, and says nothing until the other side goes;
    - bytes: answers with them, and passes nothing on.

    The plan is for requests that have ``only`` in them; others pass. ``end`` says how long a whole message is.
    ``seen``: those requests, as bytes."""

    def __init__(
        self, port: int, *plan: str | bytes, end: Callable[[bytes], int] | None = None, only: bytes = b""
    ) -> None:
        self._port = port
        self._plan = list(plan)
        self._end = end or http_end
        self._only = only
        self.seen: list[bytes] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def __enter__(self) -> Between:
        self._spawn(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _spawn(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._spawn(lambda accepted=accepted: self._serve(accepted))  # type: ignore[misc]

    def _serve(self, ours: socket.socket) -> None:
        with ours, socket.create_connection(("127.0.0.1", self._port)) as theirs:
            self._open |= {ours, theirs}
            try:
                while request := self._whole(ours):
                    how: str | bytes = "pass"
                    if self._only in request:
                        self.seen.append(request)
                        how = self._plan.pop(0) if self._plan else "pass"
                    if not self._treat(how, request, ours, theirs):
                        return
            except OSError:
                return
            finally:
                self._open -= {ours, theirs}

    def _treat(self, how: str | bytes, request: bytes, ours: socket.socket, theirs: socket.socket) -> bool:
        if isinstance(how, bytes):
            ours.sendall(how)
            return True
        if how == "drop":
            return False
        theirs.sendall(request)
        answer = self._whole(theirs)
        if how == "pass":
            ours.sendall(answer)
        if how == "hang":
            ours.recv(1)
        return how == "pass"

    def _whole(self, sock: socket.socket) -> bytes:
        data = b""
        while not data or self._end(data) > len(data):
            if not (more := sock.recv(65536)):
                return b""
            data += more
        return data


def http_end(data: bytes) -> int:
    """How long the HTTP message that begins so is; more than it has while nobody can tell."""
    head, found, _ = data.partition(b"\r\n\r\n")
    if not found:
        return len(data) + 1
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return len(head) + 4 + (int(lengths[0].split(b":")[1]) if lengths else 0)


def answer(status: int, body: str = "", *headers: str) -> bytes:
    """An HTTP answer."""
    lines = [f"HTTP/1.1 {status} Whatever", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()
