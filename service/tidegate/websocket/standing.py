"""What an edge may think of this node: that it is still dead.

nginx passes a node over that did not answer. Then it lets one request through, at most every other second, and forgives
the node when that one ends. A probe ends, a WebSocket does not, and which of them is let through is chance: a handshake
goes by the time of its own choice, and its probe may have gone to another node a moment before. Then this node gets one
connection, and is passed over for two seconds more, and again.

So where no probe has come since this node started, or stood still, the first handshake is told to go to another node
(0023). It ends by that, and the node is forgiven.
"""

from __future__ import annotations

OLD_S = 0.5  # after it stood still: probes of before, which nobody waits for any more, have been read by then


class Standing:
    """``doubtful``: an edge may pass this node over, and no probe has come since that could have told it better. Times
    are monotonic seconds."""

    __slots__ = ("_since_s", "doubtful")

    def __init__(self) -> None:
        self.doubtful = True
        self._since_s = 0.0

    def stood_still(self, now_s: float) -> None:
        """It has been held up, long enough for an edge's patience, until now."""
        self.doubtful = True
        self._since_s = now_s + OLD_S

    def probed(self, now_s: float) -> None:
        if now_s >= self._since_s:
            self.doubtful = False

    def passes_on(self) -> bool:
        """Whether the handshake that has come is to go to another node. The next one is not."""
        doubtful, self.doubtful = self.doubtful, False
        return doubtful
