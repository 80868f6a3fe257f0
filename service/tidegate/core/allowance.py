"""How often each of many names may do something: at a rate, and so much at once after a quiet time.

A name costs memory only while it has something to work off: until then there is a time when it will have.
"""

from __future__ import annotations

SPARE = 1000  # names whose time is over, before they are looked for


class Allowance:
    """Time is an argument (monotonic seconds)."""

    def __init__(self, *, per_second: float, at_once: float) -> None:
        self._each_s = 1 / per_second
        self._most_s = at_once / per_second
        self._until_s: dict[str, float] = {}  # when a name will have worked off what it did
        self._look_at = SPARE

    def __len__(self) -> int:
        """How many names are remembered."""
        return len(self._until_s)

    def wait_s(self, name: str, now_s: float) -> float:
        """Seconds until it may do it once; 0.0 for now."""
        until_s = self._until_s.get(name, now_s) + self._each_s
        return max(0.0, until_s - now_s - self._most_s)

    def use(self, name: str, now_s: float) -> None:
        """It has done it once, whether it had to wait or not."""
        self._until_s[name] = max(self._until_s.get(name, now_s), now_s) + self._each_s
        if len(self._until_s) > self._look_at:
            self._until_s = {name: until_s for name, until_s in self._until_s.items() if until_s > now_s}
            self._look_at = 2 * len(self._until_s) + SPARE
