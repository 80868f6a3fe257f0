"""What the service needs of aiohttp's client and aiohttp does not offer: every private name of it is here.

aiohttp takes an idle kept connection if it is connected, whatever has been received on it meanwhile: the second answer
of an application that answers twice, or a 408 to nobody, then answers the next request (seen with aiohttp 3.14.5).
"""

from __future__ import annotations

import select
from functools import partial
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler

_PROBE = b"HTTP/1.1 204 No Content\r\n\r\n"


def connector(*, limit: int, keepalive_s: float) -> aiohttp.TCPConnector:
    """Keeps connections, but uses none again on which something unasked has arrived."""
    made = aiohttp.TCPConnector(limit=limit, keepalive_timeout=keepalive_s)
    made._factory = cast(Any, partial(_Kept, made._loop))
    return made


class _Kept(ResponseHandler):
    def is_connected(self) -> bool:
        """The connector asks this of idle connections alone."""
        return super().is_connected() and not self._has_more()

    def _has_more(self) -> bool:
        """Whether anything followed the last answer. What arrives between this look and the request's first byte, some
        microseconds later, cannot be told from an answer: HTTP/1.1 has nothing to tell it by."""
        if self.should_close:  # it holds a whole answer, or the beginning of its body
            return True
        if self._parser is not None:
            # A part of a head is held where nobody can see it, but it spoils what is parsed next.
            try:
                messages, _, _ = self._parser.feed_data(_PROBE)
            except Exception:
                return True
            if [message.code for message, _ in messages] != [204]:
                return True
        assert self.transport is not None
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))  # what the loop has not read yet, or an end of file
