"""Answers what clients call through Tidegate: ``python -m examples.rest_app --port 9000``. See README.md."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections import Counter, OrderedDict
from socket import socket
from typing import Annotated, Any, TypeVar

import msgspec
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

BODY_BYTES = 1024 * 1024
SLOW_S = 30.0
REQUESTS_KEPT = 10_000  # recent orders, to recognise a request that is made twice
VIA = ("service", "njs", "openresty")

T = TypeVar("T")


class Delay(msgspec.Struct):
    seconds: Annotated[float, msgspec.Meta(ge=0)]


class State:
    """What the application remembers, until it ends."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.orders: OrderedDict[tuple[str | None, ...], dict[str, Any]] = OrderedDict()
        self.next_order = 1


class Handler(RequestHandler):
    state: State

    def initialize(self, state: State) -> None:
        self.state = state

    def answer(self, value: Any, status: int = 200) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(msgspec.json.encode(value))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.answer({"error": self._reason}, status_code)

    def body(self, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(self.request.body, type=kind)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise HTTPError(400, reason="the body is not what this method takes") from None


class NotFound(Handler):
    def prepare(self) -> None:
        raise HTTPError(404, reason="no such method")


class Method(Handler):
    """Something a client may call; counted by who made a request of it."""

    def prepare(self) -> None:
        if self.request.method == "POST":
            via = self.request.headers.get("X-Tidegate-Via", "")
            self.state.requests[via if via in VIA else "other"] += 1


class Echo(Method):
    """Gives back what it got, byte for byte."""

    def post(self) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish(self.request.body)


class CreateOrder(Method):
    """Makes an order, once: a request that comes again under its id gets the first answer."""

    def post(self) -> None:
        headers = self.request.headers
        request = tuple(headers.get(name) for name in ("X-Client-Id", "X-Connection-Id", "X-Request-Id"))
        order = self.state.orders.get(request)
        if order is None:
            items = self.body(msgspec.Raw)
            order = {"order": self.state.next_order, "client": headers.get("X-Client-Id"), "items": items}
            if "traceparent" in headers:  # of the span that the client's call belongs to
                order["traceparent"] = headers["traceparent"]
            self.state.next_order += 1
            if "X-Request-Id" in headers:
                self.state.orders[request] = order
            if len(self.state.orders) > REQUESTS_KEPT:
                self.state.orders.popitem(last=False)
        self.answer(order, 201)


class Slow(Method):
    """Answers after ``seconds``, to see a timeout."""

    async def post(self) -> None:
        seconds = min(self.body(Delay).seconds, SLOW_S)
        await asyncio.sleep(seconds)
        self.answer({"seconds": seconds})


class Fail(Method):
    """Fails, to see that the status and the answer come through."""

    def post(self) -> None:
        self.answer({"error": "failed as asked"}, 500)


class Health(Handler):
    def get(self) -> None:
        self.answer({"status": "ok"})


class Stats(Handler):
    """Requests since the start, by X-Tidegate-Via."""

    def get(self) -> None:
        requests = self.state.requests
        self.answer({"requests": {via: requests[via] for via in (*VIA, "other")}, "total": requests.total()})


def make_app() -> Application:
    handlers = {
        "/echo": Echo,
        "/orders.create": CreateOrder,
        "/slow": Slow,
        "/fail": Fail,
        "/healthz": Health,
        "/stats": Stats,
    }
    state = {"state": State()}
    return Application(
        [(path.replace(".", r"\."), handler, state) for path, handler in handlers.items()],
        default_handler_class=NotFound,
        default_handler_args=state,
        log_function=lambda handler: None,  # a line for each request would be most of its cost
    )


async def serve(sockets: list[socket]) -> None:
    """Serves until SIGTERM or SIGINT; prints where it listens."""
    server = HTTPServer(make_app(), max_body_size=BODY_BYTES)
    server.add_sockets(sockets)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    host, port = sockets[0].getsockname()[:2]
    print(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    await stopped.wait()
    server.stop()
    await server.close_all_connections()


def port_number(text: str) -> int:
    if not 0 <= int(text) <= 65535:
        raise ValueError
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m examples.rest_app", description="A REST application that answers calls."
    )
    parser.add_argument("--port", type=port_number, default=9000, help="port; 0 takes a free one (default: 9000)")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    args = parser.parse_args()
    try:
        sockets = bind_sockets(args.port, args.address)
    except OSError as exc:
        parser.error(f"cannot listen on {args.address}, port {args.port}: {exc}")
    asyncio.run(serve(sockets))


if __name__ == "__main__":
    main()
