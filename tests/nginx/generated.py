"""Configurations that nobody would write, made at random of what nginx takes: they hold the order of its phases, of
locations and of what is inherited. Words in capitals are filled in by ``test_verdict.Case``."""

from __future__ import annotations

import random

PATH = "/ws-notifications/"
_EXPRESSIONS = ["^/ws", "notif", "/$", "^/[a-z-]+/$", "\\.php$", "^/WS-", "^/(ws|a|live)", "^/a/", "(.*)ions/$"]
_PREFIXES = ["/", "/", PATH, PATH, "/ws", "/ws-notifications", "/live/", "/a/", "/ws-", "/other/"]
_NAMES = ["push.example.com", "localhost", "blog.example.com", "*.example.com", "_", "", ".example.com"]
_NAMES += ["push.example.com localhost", "~^(.+)\\.example\\.com$"]
_CONDITIONS = ["$http_upgrade", "$http_upgrade = websocket", "$http_upgrade = WebSocket", "$http_upgrade ~* ^web"]
_CONDITIONS += ["$request_method = GET", "$request_method != GET", "$uri ~ ^/ws-(.*)/$", "$uri !~ notif", "$arg_client"]
_CONDITIONS += ["$host = push.example.com", "$host !~* example", "!-f $request_filename", "-f $request_filename"]
_CONDITIONS += ["$arg_none", "$seen", '$seen = ""', '$by_map = "upgrade"']
_CONSEQUENCES = ["return 418;", "return 403;", "set $seen 1;", "set $seen 2; break;", "break;", "proxy"]
_CONSEQUENCES += [f"rewrite ^ {PATH} break;", "rewrite ^/(.*)$ /a/$1 last;", "proxy", "proxy"]
_PATTERNS = ["^/live(/.*)$", "^/(.*)$", "^/ws-(.*)/$", "^/a/(.*)$", "^(/ws-notifications)/$", "^/nothing"]
_REPLACEMENTS = ["$1", "/$1", PATH, "/a/$1", "/live/ws-$1/", "/$1?", "/a$1", "/ws-$1/"]
_FLAGS = ["break", "break", "break", "last", "last", "", "permanent"]
_URIS = ["", "", "", "", "", "", "/", PATH, PATH[:-1], "$uri", "$request_uri", "$uri$is_args$args", "/x/", "$1"]
_HOSTS = ["127.0.0.1:GATEWAY"] * 6 + ["gateway"] * 3 + ["localhost:GATEWAY", "unix:SOCKET", "two", "127.0.0.1:OTHER"]
_INNER = ["unix:FOLDER/inner.sock", "inner"]  # which does not pass on to itself


class Writer:
    """Writes configurations, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._asks = True
        self._hosts = _HOSTS

    def configuration(self) -> str:
        kept = self._one("keep-alive", "upgrade")
        servers = "".join(self._server("PORT") for _ in range(self._one(1, 1, 2, 2, 3)))
        servers += self._server("unix:FOLDER/inner.sock")
        return (
            "events {}\nhttp {\n"
            "map $http_upgrade $by_map { default upgrade; '' close; }\n"
            f"map $http_connection $kept {{ default {kept}; ~*upgrade $http_connection; }}\n"
            "upstream gateway { server 127.0.0.1:GATEWAY; }\n"
            f"upstream two {{ server 127.0.0.1:NOWHERE{self._one('', ' down')}; server 127.0.0.1:GATEWAY; }}\n"
            "upstream inner { server unix:FOLDER/inner.sock; }\n"
            f"{self._headers(0.6)}{servers}}}\n"
        )

    def _one(self, *choices):
        return self._random.choice(choices)

    def _if(self, chance: float, text: str) -> str:
        return text if self._random.random() < chance else ""

    def _headers(self, chance: float) -> str:
        """All of what an upgrade needs, or all but something."""
        connection = self._one("upgrade", '"Upgrade"', "$http_connection", "$by_map", "$kept")
        host = self._one("$http_host", "$http_host", "$http_host", "$host", "localhost", "$server_name")
        lines = self._if(0.95, "proxy_http_version 1.1;\n")
        lines += self._if(0.95, f"proxy_set_header Upgrade {self._one('$http_upgrade', 'websocket')};\n")
        lines += self._if(0.95, f"proxy_set_header Connection {connection};\n")
        lines += self._if(0.93, f"proxy_set_header Host {host};\n")
        return self._if(chance, lines)

    def _server(self, listen: str) -> str:
        self._hosts = _HOSTS + (_INNER if listen == "PORT" else [])
        name = self._one(*_NAMES)
        lines = f"server {{\nlisten {listen};\n" + (f"server_name {name};\n" if name else "")
        lines += "root FOLDER;\nset $seen '';\nlog_not_found off;\n"
        script = self._if(0.25, self._script(within="server"))
        self._asks = not script  # it would change what a subrequest asks for, too
        lines += self._headers(0.5) + script
        lines += self._if(0.15, f"error_page 404 {self._one('=', '')} @named;\n")
        lines += self._if(0.06, "try_files $uri @named;\n") + self._if(0.1, "recursive_error_pages on;\n")
        seen: set[str] = set()
        lines += "".join(self._location(seen, "", 0) for _ in range(self._one(1, 2, 2, 3, 4)))
        lines += f"location @named {{\n{self._if(0.5, self._script())}{self._headers(0.5)}"
        lines += f"proxy_pass {self._target('')};\n}}\n"
        return lines + "location = /yes { internal; return 204; }\nlocation = /no { internal; return 403; }\n}\n"

    def _location(self, seen: set[str], within: str, depth: int) -> str:
        """``within``: the prefix of the location around it, which its own must begin with."""
        modifier = self._one("", "", "", "^~", "=", "~", "~*", "~")
        is_expression = modifier.startswith("~")
        text = self._one(*(_EXPRESSIONS if is_expression else _PREFIXES))
        if not is_expression and not text.startswith(within):
            text = within
        if (key := f"{modifier.replace('^~', '')}{text}") in seen:
            return ""
        seen.add(key)
        lines = f"location {modifier} {text} {{\n" + "".join(self._script() for _ in range(self._one(0, 0, 0, 1, 1, 2)))
        lines += self._if(
            0.25, f"error_page {self._one('418', '404', '403 404')} {self._one('=', '=200', '')} @named;\n"
        )
        lines += self._if(0.06, "internal;\n") + self._if(0.05, "deny all;\n")
        lines += self._if(0.05, f"limit_except {self._one('POST', 'GET')} {{ deny all; }}\n")
        lines += self._if(0.05 * self._asks, f"auth_request {self._one('/yes', '/no')};\n")
        lines += self._headers(0.4) + self._content(is_expression)
        if depth < 2 and modifier in ("", "^~"):
            inner: set[str] = set()
            lines += self._if(0.3, self._location(inner, text, depth + 1) + self._location(inner, text, depth + 1))
        elif depth < 2 and is_expression:
            lines += self._if(0.3, "location ~ ^/ws {\nproxy_pass http://127.0.0.1:GATEWAY;\n}\n")
        return lines + "}\n"

    def _content(self, is_expression: bool) -> str:
        tried = self._one("@named", "@named", "=404", "/a$uri", "/live$uri?$args", "/index.html")
        uri = "" if is_expression else self._one(*_URIS)
        return self._one(
            *[f"proxy_pass {self._target(uri)};\n"] * 7,
            f"try_files $uri {tried};\n",
            f"return {self._one('404', '418', '200 x', '301 /x')};\n",
            "",
        )

    def _target(self, uri: str) -> str:
        host = self._one(*self._hosts)
        if host.startswith("unix:"):
            return f"http://{host}" + (f":{uri}" if uri.startswith("/") else "")
        return f"http://{host}{uri}"

    def _script(self, within: str = "location") -> str:
        consequence = self._one(*_CONSEQUENCES)
        if consequence == "proxy":
            consequence = f"proxy_pass {self._target('')};" if within == "location" else "set $seen 3;"
        blank = self._one("", "", " ")
        pattern, replacement = self._one(*_PATTERNS), self._one(*_REPLACEMENTS)
        return self._one(
            f"rewrite {pattern} {replacement} {self._one(*_FLAGS)};\n",
            f"if ({blank}{self._one(*_CONDITIONS)}{blank}) {{ {consequence} }}\n",
            f"set $seen {self._one('1', '$1', '$uri')};\n",
            "break;\n",
        )
