"""The epoch of all streams that have no message: a stream that was only asked for needs no memory.

A stream's first push takes the current one over. It changes before anything of a stream that took it over can be
forgotten, so that offset 0 of it never comes to stand before other messages than it stood before. The one before it is
remembered for as long as a stream that took that over would be: until then a stream of which nothing is known has had
no message since, and offset 0 of either is the same place. Source: docs/decisions/0013.
"""

from __future__ import annotations


class CommonEpoch:
    """``lasts_s``: for how long a stream is remembered at least after its first push. Time is an argument (monotonic
    seconds). Each name is used once."""

    def __init__(self, name: str, lasts_s: float, now_s: float) -> None:
        self.current = name
        self.previous = ""  # where it is as good as the current one
        self._name = name
        self._number = 0
        self._lasts_s = lasts_s
        self._began_s = now_s
        self._previous_until_s = now_s

    def look(self, now_s: float) -> None:
        """Changes what is due; call it before anything is read."""
        if now_s - self._began_s >= self._lasts_s / 2:
            self._previous_until_s = self._began_s + self._lasts_s
            self._change(self.current, now_s)
        if self.previous and now_s >= self._previous_until_s:
            self.previous = ""

    def forgotten(self, epoch: str, now_s: float) -> None:
        """A stream of ``epoch`` was forgotten, maybe early: offset 0 of it proves nothing any more."""
        if epoch == self.current:
            self._change("", now_s)
        elif epoch == self.previous:
            self.previous = ""

    def _change(self, previous: str, now_s: float) -> None:
        self._number += 1
        self.current, self.previous, self._began_s = f"{self._name}.{self._number}", previous, now_s
