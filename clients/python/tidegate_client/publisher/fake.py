"""Publishers for tests, with a gateway made of lists behind them: no network, no process, the rules of the real one.

What is pushed goes all the way to the request that would be sent, so that a test fails where the real publisher would.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from tidegate_client.publisher.errors import PublisherError
from tidegate_client.publisher.over_http import Answer, HttpPushes, Request
from tidegate_client.publisher.publisher import AsyncPublisher, Publisher
from tidegate_client.publisher.wires import Wire

EPOCH = "fake"


class Pushed(NamedTuple):
    """A push that was accepted. ``stream``: ``client:alice``, ``group:news`` or ``all``; ``data`` as JSON gives it
    back."""

    stream: str
    data: Any
    key: str | None
    offset: int
    conflate: str | None = None
    traceparent: str | None = None


class FakeGateway:
    """What was asked of it: ``pushed`` in order, ``members`` (group, client), ``disconnected`` clients. Tests may set
    ``present`` (group to clients), and ``error``, which every call raises from then on."""

    def __init__(self) -> None:
        self.pushed: list[Pushed] = []
        self.members: set[tuple[str, str]] = set()
        self.disconnected: list[str] = []
        self.present: dict[str, list[str]] = {}
        self.error: PublisherError | None = None
        self._keys: dict[tuple[str, str], Pushed] = {}
        self._tops: defaultdict[str, int] = defaultdict(int)

    def to(self, stream: str) -> list[Any]:
        """The data that was pushed to one stream, in order."""
        return [push.data for push in self.pushed if push.stream == stream]

    def clear(self) -> None:
        """As new."""
        self.__init__()  # type: ignore[misc]

    def answer(self, request: Request) -> Answer:
        if self.error is not None:
            raise self.error
        parts = urlsplit(request.path)
        match request.method, parts.path.split("/")[2:]:
            case "POST", ["push"]:
                results = [self._push(_stream(item), item) for item in json.loads(request.body or b"")["pushes"]]
                return _answer(200, {"results": results})
            case "POST", [*place, "push"]:
                item = json.loads(request.body or b"")
                if key := request.headers.get("Idempotency-Key"):
                    item["key"] = key.decode()
                if span := request.headers.get("traceparent"):
                    item["traceparent"] = span.decode()
                result = self._push(_named(place), item)
                return _answer(409 if "error" in result else 202, result)
            case "PUT", ["groups", group, "members", client]:
                changed = (group, client) not in self.members
                self.members.add((group, client))
                return _answer(200, {"changed": changed})
            case "DELETE", ["groups", group, "members", client]:
                changed = (group, client) in self.members
                self.members.discard((group, client))
                return _answer(200, {"changed": changed})
            case "DELETE", ["clients", client]:
                self.disconnected.append(client)
                return _answer(202, {"connections": []})
            case "GET", ["groups", group]:
                clients = self.present.get(group, [])
                return _answer(200, {"group": group, "clients": clients, "connections": len(clients)})
            case "GET", [*place, "history"]:
                return _answer(200, self._history(_named(place), parse_qs(parts.query)))
        return _answer(404, {"error": {"code": "not_found", "message": "there is no such path"}})

    def _push(self, stream: str, item: Mapping[str, Any]) -> dict[str, Any]:
        key = item.get("key")
        known = self._keys.get((stream, key)) if key is not None else None
        if known is not None and known.data != item["data"]:
            return {"error": {"code": "key_reused", "message": "the key was used for other data"}}
        if known is None:
            self._tops[stream] += 1
            words = item.get("conflate"), item.get("traceparent")
            known = Pushed(stream, item["data"], key, self._tops[stream], *words)
            self.pushed.append(known)
            if key is not None:
                self._keys[stream, key] = known
        return {"stream": stream, "epoch": EPOCH, "offset": known.offset}

    def _history(self, stream: str, asked: Mapping[str, list[str]]) -> dict[str, Any]:
        top, limit = self._tops[stream], int(asked["limit"][0])
        start = int(asked["offset"][0]) if "offset" in asked else max(0, top - limit)
        found = [push for push in self.pushed if push.stream == stream and push.offset > start][:limit]
        messages = [{"offset": push.offset, "time": 0, "data": push.data} for push in found]
        more = start + len(messages) < top
        return {"stream": stream, "epoch": EPOCH, "offset": start, "top": top, "messages": messages, "more": more}


class FakePublisher(Publisher):
    """``Publisher`` with a FakeGateway, ``gateway``; takes its options but the URL."""

    def __init__(self, gateway: FakeGateway | None = None, **options: Any) -> None:
        self.gateway = gateway or FakeGateway()
        super().__init__("http://fake", **options)

    def _use(self, wire: Wire) -> None:
        super()._use(_wire(self.gateway, HttpPushes(self.rules.limits)))


class AsyncFakePublisher(AsyncPublisher):
    """``AsyncPublisher`` with a FakeGateway, ``gateway``, which may be that of a FakePublisher."""

    def __init__(self, gateway: FakeGateway | None = None, **options: Any) -> None:
        self.gateway = gateway or FakeGateway()
        super().__init__("http://fake", **options)

    def _use(self, wire: Wire) -> None:
        super()._use(_wire(self.gateway, HttpPushes(self.rules.limits)))


class _Sender:
    def __init__(self, gateway: FakeGateway) -> None:
        self._gateway = gateway

    def send(self, request: Request, timeout_s: float) -> Answer:
        return self._gateway.answer(request)

    def close(self) -> None:
        """There is nothing to close."""


class _AsyncSender(_Sender):
    async def send(self, request: Request, timeout_s: float) -> Answer:  # type: ignore[override]
        return self._gateway.answer(request)

    async def close(self) -> None:  # type: ignore[override]
        """There is nothing to close."""


def _wire(gateway: FakeGateway, pushes: HttpPushes) -> Wire:
    return Wire(pushes, True, lambda: _Sender(gateway), lambda: _AsyncSender(gateway))


def _stream(item: Mapping[str, Any]) -> str:
    return "all" if item.get("all") else next(f"{kind}:{item[kind]}" for kind in ("client", "group") if kind in item)


def _named(place: list[str]) -> str:
    """``["clients", "alice"]`` is the stream ``client:alice``."""
    return ":".join([place[0].removesuffix("s"), *place[1:]])


def _answer(status: int, found: Mapping[str, Any]) -> Answer:
    return Answer(status, json.dumps(found).encode())
