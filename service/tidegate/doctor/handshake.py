"""The handshake: whether a client gets in, and whether what lies in between leaves it as it is."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

from tidegate.core.protocol import SUBPROTOCOL
from tidegate.doctor.link import Answer, Link, NoAnswer, ask
from tidegate.doctor.report import Finding, number, ok, unknown, weak, wrong
from tidegate.doctor.target import Target

STRANGER = "doctor.invalid"  # a name that nobody can have (RFC 6761)
LINE_BYTES = 8000  # docs/protocol.md, Limits: a request line of 8 KiB passes

UPGRADE = "nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"
HOST = "nginx: proxy_set_header Host $http_host;"

# What to do about a refusal in the gateway's words.
_CURES = {
    "upgrade_required": f"something in between drops the Upgrade headers, or speaks HTTP/1.0; {UPGRADE}",
    "host_not_allowed": f"add the name by which clients come to server.hosts; if it is there, Host is changed: {HOST}",
    "origin_not_allowed": "add the page's origin to origins",
    "unauthorized": "give a token: TIDEGATE_TOKEN or --token-file, and `tidegate token --sub doctor` makes one; or the "
    "cookie of a session: --header-file",
    "not_found": "the path is not server.path, or something in between changes it",
    "bad_request": "the words say which part; --client or --token-file, or a header that is changed in between",
    "too_many_connections": "wait; or raise edge.connections_per_address, edge.handshakes_per_second, "
    "limits.connections_per_client; behind a proxy of yours: edge.trusted_proxies",
    "full": "raise limits.connections or add a node",
    "busy": "many come at once: wait, raise limits.handshakes_per_second or add a node",
    "draining": "the only node is stopping: start another",
    "unavailable": "no node answers the edge: see that they run, and that edge.upstreams is where they listen",
    "broker_down": "see that Redis runs and is reached: /readyz of a node says why not",
    "auth_unavailable": "the application at auth.callback_url does not answer",
}

_NO_ROOM = ("too_many_connections", "full", "busy", "draining", "unavailable", "broker_down", "auth_unavailable")


class Greeting(NamedTuple):
    """``link`` is None where no client gets in; what else is measured through the edge is unknown then."""

    findings: list[Finding]
    link: Link | None


async def greet(target: Target) -> Greeting:
    """A handshake as a browser makes it."""
    # A browser offers compression, and takes answers that are compressed.
    offered = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits", "Accept-Encoding": "gzip"}
    try:
        answer = await ask(target, offered)
    except NoAnswer as exc:
        do = "see that the edge runs, and that name, port and ws or wss are right"
        return Greeting([wrong("handshake", f"{target.url}: {exc}", do)], None)
    if isinstance(answer, Answer):
        return Greeting([_refused(target, answer)], None)
    took = number(answer.answer.took_ms, "ms")
    headers = answer.answer.headers
    findings = [
        ok("handshake", f"101 after {took}"),
        _subprotocol(headers.get("sec-websocket-protocol")),
        _extensions(headers.get("sec-websocket-extensions")),
        _ours(headers),
    ]
    return Greeting(findings, answer)


def _refused(target: Target, answer: Answer) -> Finding:
    location = answer.headers.get("location", "")
    if 300 <= answer.status < 400:
        return wrong(
            "redirect",
            f"the handshake is answered by {answer.status} to {location[:200]}",
            "browsers do not follow it: give clients the address that it names (with ws:// for http://, wss:// for "
            "https://), or take the path of the WebSocket out of the redirect",
        )
    if answer.status == 101:
        return wrong(
            "handshake",
            "101 with a Sec-WebSocket-Accept that is no answer to this key",
            "something in between answers in the gateway's name, as a cache would: take the path out of it",
        )
    if answer.error is None:
        return wrong("handshake", answer.words, _foreign(target, answer))
    if answer.error[0] == "bad_request" and target.client is not None and "token" in answer.error[1]:
        return wrong("handshake", "clients need a token here, and there is none", _CURES["unauthorized"])
    return wrong("handshake", answer.words, _CURES.get(answer.error[0], "docs/protocol.md, Errors, says what it means"))


def _foreign(target: Target, answer: Answer) -> str:
    match answer.status:
        case 200 | 404 | 405:
            return f"another server answers at {target.path}: name or path are not the gateway's"
        case 401 | 407:
            return "something in between wants a login of its own: browsers cannot give it to a WebSocket"
        case 400 if not target.secure:
            return "if this port speaks TLS: wss://"
        case 400 | 426:
            return f"something in between understands no WebSocket; {UPGRADE}"
        case 502 | 503 | 504:
            return "the proxy reaches nobody: see that the edge and the nodes run, and where it passes requests to"
        case _:
            return "something in between refuses it: its log says why"


def _subprotocol(chosen: str | None) -> Finding:
    if chosen == SUBPROTOCOL:
        return ok("subprotocol", f"{chosen} is chosen")
    how = (
        "it is not chosen where it is offered" if chosen is None else f"{chosen[:60]} is chosen, which was not offered"
    )
    return wrong(
        "subprotocol",
        how,
        "browsers end such a connection: let Sec-WebSocket-Protocol pass in both directions",
    )


def _extensions(chosen: str | None) -> Finding:
    if not chosen:
        return ok("compression", "none is negotiated in between")
    return wrong(
        "compression",
        f"{chosen[:80]} is negotiated, and the gateway does not offer it",
        "something in between does: switch it off there, or take Sec-WebSocket-Extensions out of requests and answers",
    )


def _ours(headers: Iterable[str]) -> Finding:
    missing = sorted({"tidegate-client", "tidegate-connection"} - set(headers))
    if not missing:
        return ok("headers", "those of the answer come through")
    return weak(
        "headers",
        f"the answer lacks {', '.join(missing)}",
        "edges know clients by them: let them pass, or this is another server's 101",
    )


# What is refused, and what is not


async def rules(target: Target, origins: Iterable[str] = ()) -> list[Finding]:
    """Origin, Host, a long line, and a refusal's words. ``origins``: of pages that must get in."""
    findings: list[Finding] = []
    own = [("own pages", partial(_own_origin, target, origin)) for origin in (target.origin, *origins)]
    for what, rule in (
        ("origin rule", partial(_foreign_origin, target)),
        *own,
        ("host rule", partial(_foreign_host, target)),
        ("request line", partial(_long_line, target)),
        ("refusals", partial(_refusal, target)),
    ):
        try:
            findings.append(await rule())
        except _TurnedAway as exc:
            findings.append(unknown(what, exc.answer.words, _CURES[exc.code]))
    return findings


class _TurnedAway(Exception):
    """Not for what a handshake was, but because there is no room now."""

    def __init__(self, answer: Answer, code: str) -> None:
        self.answer = answer
        self.code = code
        super().__init__(answer.words)


async def _foreign_origin(target: Target) -> Finding:
    found = await _try(target, {"Origin": f"https://{STRANGER}"})
    if isinstance(found, str):
        return unknown("origin rule", found)
    if found.status == 101:
        return wrong(
            "origin rule",
            f"a page of https://{STRANGER} is let in",
            "any page may connect with its visitor's cookies: let Origin pass in between as it is, and list no more "
            "than your own pages in origins",
        )
    if found.error is not None and found.error[0] == "origin_not_allowed":
        return ok("origin rule", "pages of others are refused")
    return unknown("origin rule", found.words, "not refused for its origin")


async def _own_origin(target: Target, origin: str) -> Finding:
    found = await _try(target, {"Origin": origin})
    if isinstance(found, str):
        return unknown("own pages", found)
    if found.status == 101:
        return ok("own pages", f"those of {origin} are let in")
    return wrong(
        "own pages",
        f"a page of {origin} gets {found.words}",
        f"add it to origins; if it is of this very host, what lies in between changes Host: {HOST}",
    )


async def _foreign_host(target: Target) -> Finding:
    found = await _try(target, {"Host": STRANGER})
    if not isinstance(found, str) and found.status == 101:
        return wrong(
            "host rule",
            f"a handshake for {STRANGER} is let in",
            f"a page whose name is made to point here gets in (DNS rebinding): {HOST} and your names in server.hosts",
        )
    return ok("host rule", "handshakes for names that are not ours are refused")


async def _long_line(target: Target) -> Finding:
    pad = "x" * (LINE_BYTES - len(target.target(pad="")) - len("GET  HTTP/1.1"))
    found = await _try(target, {}, pad=pad)
    if not isinstance(found, str) and found.status == 101:
        return ok("request line", f"one of {LINE_BYTES} bytes passes")
    return wrong(
        "request line",
        f"one of {LINE_BYTES} bytes is refused ({found if isinstance(found, str) else found.words})",
        "clients with a long cursor or token stay out: nginx: large_client_header_buffers 4 12k;",
    )


async def _refusal(target: Target) -> Finding:
    found = await _try(target, {"Upgrade": None, "Connection": "close", "Accept-Encoding": "gzip"})
    if isinstance(found, str):
        return unknown("refusals", found)
    if found.headers.get("content-encoding"):
        return weak(
            "refusals",
            f"their bodies are compressed ({found.headers['content-encoding'][:20]}) in between",
            "take the path of the WebSocket out of it (nginx: gzip off;)",
        )
    if found.error is not None:
        return ok("refusals", "they come through in the gateway's words")
    return wrong(
        "refusals",
        f"a request that is no handshake gets {found.words}",
        "clients cannot tell one refusal from another: nginx: proxy_intercept_errors off;, no sub_filter, no pages of "
        "a proxy for statuses",
    )


async def _try(target: Target, headers: dict[str, str | None], **query: str) -> Answer | str:
    """The answer to a handshake that is not kept; or why there is none. Raises _TurnedAway."""
    try:
        found = await ask(target, headers, **query)
    except NoAnswer as exc:
        return str(exc)
    if isinstance(found, Link):
        found.cut()
        return found.answer
    if found.error is not None and found.error[0] in _NO_ROOM:
        raise _TurnedAway(found, found.error[0])
    return found
