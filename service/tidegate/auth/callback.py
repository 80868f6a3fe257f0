"""Who a client is, as the application says (``auth.mode: callback``). Source: docs/protocol.md, Cookies.

The application is asked with what the client's own request has: its cookie, its Authorization, its query. It lets in
(200) or refuses (401, 403); whatever else it does, it has not said who the client is, which is never taken for a bad
login.

Nothing is remembered: each handshake, each connection that comes from another node and each look at a live one is a
question of its own, so that what was revoked is revoked for the next question.

An application that hangs holds up nobody but those who are asked for. Its connections are none of the calls', a quarter
of them is for the looks at live connections, and of the others who comes from one address has half at most (``slots``),
as of the places of those who wait for one.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import msgspec

from tidegate import log
from tidegate.auth.grants import Grant, Patterns, SharedPatterns
from tidegate.config.auth import ANSWER_S, AuthSettings
from tidegate.core.errors import AuthUnavailable, CallBadAnswer, CallUnavailable, NotAllowed, Refused, Unauthorized
from tidegate.core.model import is_id
from tidegate.core.patterns import is_pattern
from tidegate.http_client import HttpAnswer, HttpClient
from tidegate.slots import Slots

# At a move: thousands move at once when a node dies, and the edge holds them for edge.hold_s, 256 of each worker asking
# at a time. So none waits longer for the application; it is asked again at once, beside the others' traffic.
MOVE_S = 0.2
ANSWER_BYTES = 65536
WAITING = 1000  # handshakes that wait for a connection; each has an open socket. Of an address as many as are free
FAILED_S = 10.0  # between two lines of the log that say that it does not answer

Why: TypeAlias = Literal["handshake", "move", "recheck"]
Observe: TypeAlias = Callable[[str, str, float], None]  # (why, "allowed" or an error's code, seconds)

PASSED_ON = ("cookie", "authorization", "origin", "user-agent")  # of the client's headers


class _Question(msgspec.Struct, frozen=True):
    headers: Mapping[str, str]
    query: Mapping[str, str]
    address: str


class _Answer(msgspec.Struct, frozen=True):
    client: str
    groups: Patterns | None = None
    publish: Patterns | None = None
    expires: float | None = None


_read = msgspec.json.Decoder(_Answer).decode
_read_grant = msgspec.json.Decoder(Grant).decode


def question(headers: Mapping[str, str], query: Mapping[str, str], address: str) -> bytes:
    """What the application is asked. A browser sends its cookie with any page's WebSocket: who says no Origin, which
    the caller has found to be allowed, is asked for without a cookie."""
    passed = {name: headers[name] for name in PASSED_ON if name in headers}
    if "origin" not in passed:
        passed.pop("cookie", None)
    return msgspec.json.encode(_Question(passed, query, address))


class Login(msgspec.Struct, eq=False):
    """What the application said of a client, and when it is to be asked again (``due_s``, monotonic seconds)."""

    grant: Grant
    question: bytes
    due_s: float

    @property
    def client(self) -> str:
        return self.grant.client

    @property
    def expires(self) -> float | None:
        return self.grant.expires

    def may_join(self, group: str) -> bool:
        return self.grant.may_join(group)

    def may_publish(self, group: str) -> bool:
        return self.grant.may_publish(group)

    @property
    def ticket(self) -> str:
        """For the edge that holds the client's socket: what the next node goes by while the application is silent."""
        return msgspec.json.encode(self.grant).decode()


class Callback:
    """Asks the application, over connections that it keeps. ``observe`` hears of each question."""

    def __init__(self, auth: AuthSettings, observe: Observe) -> None:
        assert auth.callback_url is not None
        self._url = auth.callback_url
        self._auth = auth
        self._observe = observe
        self.rechecks = auth.callback_connections // 4  # at once
        self.slots = Slots(auth.callback_connections - self.rechecks, methods=1)
        self._http = HttpClient(connections=auth.callback_connections, answer_bytes=ANSWER_BYTES)
        self._patterns = SharedPatterns()
        self._failed = 0  # questions without an answer, since that was said
        self._line = log.Seldom(FAILED_S)

    async def start(self) -> None:
        await self._http.start()

    async def stop(self) -> None:
        await self._http.stop()

    async def login(self, question: bytes, *, address: str) -> Login:
        """For a handshake. Raises Unauthorized, NotAllowed or AuthUnavailable."""
        waiting = self.slots.waiting
        if self.slots.waiting_of(address) >= WAITING - waiting:
            raise self._unavailable("handshake", f"{waiting} handshakes wait for its answers")
        return Login(await self._ask(question, "handshake", address, ANSWER_S), question, self.next_s())

    async def move(self, question: bytes, ticket: str, *, address: str) -> Login:
        """For a connection that was another node's, which had given ``ticket``. Where the application is slow it stays
        what it was, and is due at once. Raises Unauthorized or NotAllowed, and AuthUnavailable where there is nothing
        to go by."""
        try:
            before = _read_grant(ticket)
        except msgspec.MsgspecError:
            before = None
        try:
            grant = await self._ask(question, "move", address, MOVE_S)
        except AuthUnavailable:
            if before is None:
                raise
            return Login(before, question, 0.0)
        if before is not None and grant.client != before.client:
            raise Unauthorized("the application says that this is another client")
        return Login(grant, question, self.next_s())

    async def recheck(self, login: Login) -> Grant:
        """For a live connection; ``rechecks`` at once at most. Raises as ``login`` does."""
        grant = await self._ask(login.question, "recheck", "", ANSWER_S)
        if grant.client != login.client:
            raise Unauthorized("the application says that this is another client")
        return grant

    def next_s(self) -> float:
        """When to ask again: within ``auth.recheck_s``, and not for all at once who came at once."""
        if not self._auth.recheck_s:
            return math.inf
        return time.monotonic() + self._auth.recheck_s * random.uniform(0.5, 1)

    async def _ask(self, question: bytes, why: Why, address: str, within_s: float) -> Grant:
        begun_s = time.monotonic()
        try:
            async with asyncio.timeout(within_s):
                if why == "recheck":
                    answer = await self._post(question)
                else:
                    async with self.slots.of(address, ""):
                        answer = await self._post(question)
            grant = self._judge(answer)
        except TimeoutError:
            self._observe(why, AuthUnavailable.code, time.monotonic() - begun_s)
            raise self._unavailable(why, f"no answer within {within_s:g} s") from None
        except (CallUnavailable, CallBadAnswer) as exc:
            self._observe(why, AuthUnavailable.code, time.monotonic() - begun_s)
            raise self._unavailable(why, exc.message) from None
        except Refused as exc:
            self._observe(why, exc.code, time.monotonic() - begun_s)
            raise
        self._observe(why, "allowed", time.monotonic() - begun_s)
        return grant

    async def _post(self, question: bytes) -> HttpAnswer:
        return await self._http.post(self._url, {"Content-Type": "application/json"}, question)

    def _judge(self, answer: HttpAnswer) -> Grant:
        """Raises Unauthorized or NotAllowed, and CallBadAnswer for what is neither."""
        match answer.status:
            case 200:
                return self._grant(answer.body)
            case 401:
                raise Unauthorized("the application knows no such login")
            case 403:
                raise NotAllowed("the application does not let this client in")
        raise CallBadAnswer(f"it answered with status {answer.status}")

    def _grant(self, body: bytes) -> Grant:
        try:
            body.decode()  # msgspec does not look at the UTF-8 of what it passes over
            said = _read(body)
        except (
            msgspec.MsgspecError,
            UnicodeError,
            RecursionError,
        ) as exc:  # which say what is wrong, and quote nothing
            raise CallBadAnswer(f"its answer: {exc}") from None
        if not is_id(said.client):
            raise CallBadAnswer("its answer: client is no client id")
        groups, publish = said.groups or (), said.publish or ()
        for name, patterns in (("groups", groups), ("publish", publish)):
            if not all(map(is_pattern, patterns)):
                raise CallBadAnswer(f"its answer: {name} holds something that is no pattern of group names")
        if said.expires is not None and time.time() >= said.expires + self._auth.leeway_s:
            raise Unauthorized("the login has ended")
        return Grant(said.client, self._patterns.share(groups), self._patterns.share(publish), said.expires)

    def _unavailable(self, why: Why, error: str) -> AuthUnavailable:
        """What is to be raised; the log hears of it, but not of each. At a move the patience is no measure."""
        if why != "move":
            self._failed += 1
            if self._line.is_due(time.monotonic()):
                log.warning("auth.callback_failed", why=why, error=error, count=self._failed)
                self._failed = 0
        return AuthUnavailable("the application does not say who you are; try again")
