"""The site of ``examples/django_login`` as a process, and somebody who logs in there."""

from __future__ import annotations

import asyncio
import http.client
import re
import sys
from collections.abc import Callable
from urllib.parse import urlencode

from tests.support import Process, free_port


class DjangoSite:
    def __init__(self, start: Callable[..., Process], gateway: str = "") -> None:
        self.port = free_port()
        self.origin = f"http://127.0.0.1:{self.port}"
        self._start = start
        self.gateway = gateway
        self.process: Process

    @property
    def settings(self) -> dict[str, object]:
        return {"AUTH__MODE": "callback", "AUTH__CALLBACK_URL": f"{self.origin}/who/", "ORIGINS": [self.origin]}

    async def start(self) -> None:
        arguments = ("-m", "examples.django_login", "--port", str(self.port), "--user", "alice:wonderland")
        gateway = ("--gateway", self.gateway) if self.gateway else ()
        self.process = self._start(sys.executable, *arguments, *gateway)
        await self.process.port(self.port)

    async def log_in(self) -> str:
        """The cookies of a new session."""
        return await asyncio.to_thread(self._log_in)

    async def log_out(self, cookie: str) -> None:
        await asyncio.to_thread(self._post, "/logout/", cookie, {})

    def _log_in(self) -> str:
        return self._post("/login/", "", {"username": "alice", "password": "wonderland"})

    def _post(self, path: str, cookie: str, fields: dict[str, str]) -> str:
        token, csrf = self._form(cookie)
        body = urlencode({**fields, "csrfmiddlewaretoken": token})
        link = http.client.HTTPConnection("127.0.0.1", self.port)
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Cookie": "; ".join(filter(None, (cookie, csrf))),
        }
        link.request("POST", path, body, headers)
        answer = link.getresponse()
        assert answer.status == 302, answer.read()
        cookies = re.findall(r"(sessionid=[^;]*)", str(answer.headers))
        link.close()
        return cookies[0] if cookies else ""

    def _form(self, cookie: str) -> tuple[str, str]:
        """A token against forgery, and its cookie."""
        link = http.client.HTTPConnection("127.0.0.1", self.port)
        link.request("GET", "/login/", headers={"Cookie": cookie} if cookie else {})
        answer = link.getresponse()
        text = answer.read().decode()
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', text)
        csrf = re.search(r"csrftoken=\w+", str(answer.headers))
        link.close()
        assert found is not None
        assert csrf is not None
        return found[1], csrf[0]
