"""A program: clients that send as fast as they can, and take whatever comes back.

``python -m tests.edges.flood PORT KIND COUNT`` writes "flooding" once all of them are in, and goes on until it
is ended.
"""

from __future__ import annotations

import selectors
import socket
import sys

from tests.handshakes import handshake
from tests.peer import PING, PONG, TEXT, frame

CONTINUATION = 0
CHUNK_BYTES = 64 * 1024

_COMMAND = b'{"type":"ping","id":1}'
_DEEP = b'{"type":"call","id":1,"method":"echo","data":[%b[]]}' % (b"[],[]," * 10_000)


def _fragments(text: bytes) -> bytes:
    last = len(text) - 1
    return b"".join(frame(CONTINUATION if at else TEXT, text[at : at + 1], fin=at == last) for at in range(len(text)))


KINDS = {
    "heartbeat": frame(TEXT, b"ping"),
    "command": frame(TEXT, _COMMAND),
    "ping": frame(PING, b"x"),
    "pong": frame(PONG, b"x"),
    "fragments": _fragments(_COMMAND),
    "call": frame(TEXT, b'{"type":"call","id":1,"method":"echo","data":1}'),  # over 32 under way, refused at once
    "large": frame(TEXT, _DEEP),
}


class Flooder:
    def __init__(self, port: int, number: int, chunk: bytes) -> None:
        self._chunk = memoryview(chunk)
        self._at = 0
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.sendall(handshake(target=f"/ws-notifications/?client=flooder{number}"))
        answer = self.sock.recv(65536)
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        self.sock.setblocking(False)

    def send(self) -> None:
        self._at += self.sock.send(self._chunk[self._at :])
        if self._at == len(self._chunk):
            self._at = 0

    def take(self) -> None:
        assert self.sock.recv(1024 * 1024), "ended"


def main() -> None:
    port, kind, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    unit = KINDS[kind]
    chunk = unit * max(1, CHUNK_BYTES // len(unit))
    selector = selectors.DefaultSelector()
    for number in range(count):
        flooder = Flooder(port, number, chunk)
        selector.register(flooder.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, flooder)
    print("flooding", flush=True)
    while True:
        for key, events in selector.select():
            if events & selectors.EVENT_READ:
                key.data.take()
            if events & selectors.EVENT_WRITE:
                key.data.send()


if __name__ == "__main__":
    main()
