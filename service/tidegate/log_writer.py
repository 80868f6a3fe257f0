"""Lines to a standard stream, written by a thread of their own.

A pipe whose reader stands still, a full disk and a stopped terminal make ``write`` wait or fail. The loop must not: it
puts a line into a buffer. What cannot be written waits there and is tried again; what finds the buffer full is dropped
and counted, and a line says so as soon as lines can be written again. A stream is not made non-blocking, because others
write to the same terminal or pipe.
"""

from __future__ import annotations

import atexit
import os
import select
import threading
import time
from collections.abc import Callable

BUFFER_BYTES = 1024 * 1024
WRITE_BYTES = 64 * 1024
GATHER_S = 0.01  # lines of so long are one write: each wake-up of the thread takes the interpreter from the loop
RETRY_S = 0.25  # after a write that failed
FLUSH_S = 1.0  # at exit


class LineWriter:
    """Writes to the open file ``file`` (a number), whose owner it is not. ``report(count)`` is the line that says how
    many were dropped. The thread starts with the first line, and what waits at exit is written for ``FLUSH_S``."""

    def __init__(self, file: int, report: Callable[[int], bytes] = lambda count: b"") -> None:
        self.report = report
        self.dropped = 0
        self._file = file
        self._told = 0  # of those that were dropped
        self._lines: list[bytes] = []
        self._size = 0  # of what waits and what is being written
        self._failing = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, line: bytes) -> None:
        """``line`` with its end. Never waits and never raises."""
        with self._changed:
            if self._size + len(line) > BUFFER_BYTES:
                self.dropped += 1
                return
            self._lines.append(line)
            self._size += len(line)
            if self._thread is None:
                # A daemon: a write that waits for ever must not keep the process.
                self._thread = threading.Thread(target=self._run, name=f"writer of {self._file}", daemon=True)
                self._thread.start()
                atexit.register(self.flush, FLUSH_S)
            elif len(self._lines) == 1:
                self._changed.notify_all()

    def flush(self, timeout_s: float) -> None:
        """Returns when all is written, or cannot be, or after ``timeout_s``."""
        with self._changed:
            self._changed.wait_for(lambda: not self._size or self._failing, timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
            time.sleep(GATHER_S)
            with self._changed:
                lines, self._lines = self._lines, []
            data = b"".join(lines)
            self._write(data)
            if self.dropped > self._told:
                news, self._told = self.dropped - self._told, self.dropped
                self._write(self.report(news))
            with self._changed:
                self._size -= len(data)
                self._changed.notify_all()

    def _write(self, data: bytes) -> None:
        """Returns when all is written, however long that takes."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._file, rest[:WRITE_BYTES]) :]
                self._failing = False
            except BlockingIOError:  # another process has made it non-blocking
                poll = select.poll()
                poll.register(self._file, select.POLLOUT)
                poll.poll(RETRY_S * 1000)
            except OSError:  # nobody reads, the disk is full: that may pass
                with self._changed:
                    self._failing = True
                    self._changed.notify_all()
                time.sleep(RETRY_S)
