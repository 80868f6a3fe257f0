"""Bare Tornado on uvloop: ``write_message`` to each client, an echo, and a JSON POST that does nothing."""

from __future__ import annotations

import json
import sys

import uvloop
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

from bench.peers.control import serve_control

_clients: set[Client] = set()


class Client(WebSocketHandler):
    def open(self, *args: str, **kwargs: str) -> None:
        _clients.add(self)

    def on_message(self, message: str | bytes) -> None:
        self.write_message(message)

    def on_close(self) -> None:
        _clients.discard(self)


class Post(RequestHandler):
    def post(self) -> None:
        json.loads(self.request.body)
        self.set_status(202)
        self.set_header("Content-Type", "application/json")
        self.finish(b"{}")


def _fan_out(text: str) -> None:
    for client in _clients:
        client.write_message(text)


async def _serve(port: int, control_port: int) -> None:
    application = Application([("/post", Post), (".*", Client)], log_function=lambda handler: None)
    server = HTTPServer(application)
    server.add_sockets(bind_sockets(port, "127.0.0.1", backlog=4096))
    await serve_control(control_port, _fan_out)


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
