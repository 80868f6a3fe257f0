"""Which location really answers a request, by nginx's own order, and what becomes of the request on the way.

Of each phase what decides: the server by ``listen`` and ``server_name``, its rewrites, the location (exact, longest
prefix, ``^~``, expressions in their order, nested ones), the location's rewrites with ``if``, who may enter,
``try_files`` and ``error_page``, and what makes the content. Sources: ngx_http_core_module.c, ngx_http_script.c,
ngx_http_rewrite_module.c, ngx_http_try_files_module.c of nginx 1.22. No file is looked at: none has a WebSocket's path.

What is not known here (an address, a cookie, a file) is a *fork*: a walk takes the way that lets the request on, and
``walks`` goes the other ways where that one ends in a refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from tidegate.nginx.blocks import Block
from tidegate.nginx.model import kind_of
from tidegate.nginx.request import Request
from tidegate.nginx.values import number

_CYCLES = 10  # nginx's own limits
_WALKS = 16  # of one request
_PASSES = ("fastcgi_pass", "uwsgi_pass", "scgi_pass", "grpc_pass", "memcached_pass")
_CONTENT = ("proxy_pass", "js_content", "stub_status", "empty_gif", "perl", "flv", "mp4", *_PASSES)


class Proxied(msgspec.Struct, frozen=True):
    """``proxy_pass`` takes it, with what holds in ``at``: a location, or an ``if`` in one."""

    at: Block
    target: Block


class Scripted(msgspec.Struct, frozen=True):
    """Code answers it, which only a running nginx knows."""

    at: Block


class Answered(msgspec.Struct, frozen=True):
    """nginx itself answers, with ``status`` and no upgrade. ``why`` follows "nginx"."""

    status: int
    at: Block
    why: str


Outcome: TypeAlias = Proxied | Scripted | Answered


def walk(make: Callable[[], Request], dead: Block | None = None) -> tuple[Request, Outcome]:
    """Where a request ends; of several possible ends the one that is not a refusal, if there is one. ``dead``: a
    ``proxy_pass`` that ends in 502."""
    choices: list[bool] = []
    first: tuple[Request, Outcome] | None = None
    for _ in range(_WALKS):
        route = _Route(make(), choices, dead)
        outcome = route.run()
        first = first or (route.request, outcome)
        if not isinstance(outcome, Answered):
            return route.request, outcome
        choices = route.taken
        while choices and choices[-1]:
            choices = choices[:-1]
        if not choices:
            break
        choices = [*choices[:-1], True]
    assert first is not None
    return first


_Phase: TypeAlias = Literal["server", "location", "within"]


class _Route:
    """One walk. ``choices`` are what conditions that are not known shall be; further ones are false."""

    def __init__(self, request: Request, choices: list[bool], dead: Block | None = None) -> None:
        self.request = request
        self.taken: list[bool] = []
        self._choices = choices
        self._dead = dead
        self._content: Block | None = None
        self._cycles = 0
        self._is_changed = False  # the path, so that a location is to be found again
        self._is_ended = False  # the script that runs

    def run(self) -> Outcome:
        phase: _Phase = "server"
        while True:
            if phase == "server":
                result = self._server()
            elif phase == "location":
                result = self._location()
            else:
                result = self._within()
            if isinstance(result, Answered):
                result = self._special(result)
            if not isinstance(result, str):
                return result
            phase = result

    # Phases

    def _server(self) -> Outcome | _Phase:
        self.request.at = self.request.server
        self.request.is_at_location = True
        return self._script(self.request.at) or "location"

    def _location(self) -> Outcome | _Phase:
        if self._is_too_often():
            return Answered(500, self.request.at, "rewrites its path in a circle")
        request = self.request
        location, _ = self._find(request.server)
        self._enter(location or request.server)
        if location is not None and location.effective("internal") and not request.internal:
            return Answered(404, location, f"keeps `{location.words}` to itself (internal)")
        return "within"

    def _is_too_often(self) -> bool:
        self._cycles += 1
        return self._cycles > _CYCLES

    def _enter(self, location: Block) -> None:
        self.request.at = location
        for block in location.all("limit_except"):  # in which no rewrites run
            if "GET" not in {word.upper() for word in block.args}:
                self.request.at = block
        handlers = [child for child in location.children if _is_content(child.name)]
        self._content = handlers[-1] if handlers else None

    def _within(self) -> Outcome | _Phase:
        self._is_changed = False
        if self.request.at.name != "server" and (answer := self._script(self.request.at)):
            return answer
        if self._is_changed:
            return "location"
        return self._access() or self._try_files() or self._made()

    def _made(self) -> Outcome:
        """What makes the content."""
        content = self._content
        if content is None:
            return Answered(404, self.request.at, f"serves files {_place(self.request.at)}, and finds none")
        if content is self._dead:
            return Answered(502, content, "reaches nobody (502)")
        if content.name == "proxy_pass":
            return Proxied(self.request.at, content)
        if content.name.startswith("content_by_lua") or content.name in ("js_content", "perl"):
            return Scripted(self.request.at)
        if content.name in _PASSES:
            return Answered(502, content, f"passes it on by {content.name}, which knows no WebSocket")
        return Answered(200, content, f"answers it by {content.name}")

    # Locations

    def _find(self, within: Block) -> tuple[Block | None, bool]:
        """The location in ``within``, and whether it is final: an exact one, or one by an expression."""
        uri = self.request.uri
        locations = self.request.model.locations(within)
        if (exact := locations.exact.get(uri)) is not None:
            return exact, True
        found = locations.longest_prefix(uri)
        if found is not None:
            nested, is_final = self._find(found)
            if is_final or kind_of(found)[0] == "^~":
                return nested or found, is_final
            found = nested or found
        for location, pattern, ignore_case in locations.expressions:
            is_match = self.request.matches(pattern, uri, ignore_case=ignore_case)
            if is_match or (is_match is None and self._fork()):
                nested, _ = self._find(location)
                return nested or location, True
        return found, False

    # Rewrites

    def _script(self, block: Block) -> Answered | None:
        self._is_ended = False
        return self._run(block)

    def _run(self, block: Block) -> Answered | None:
        for child in block.children:
            answer = self._step(child)
            if answer is not None or self._is_ended:
                return answer
        return None

    def _step(self, child: Block) -> Answered | None:
        request = self.request
        if child.name == "set":
            request.variables[child.arg(0).removeprefix("$").lower()] = request.value(child.arg(1))
        elif child.name == "break":
            self._stop()
        elif child.name == "return":
            return self._return(child)
        elif child.name == "rewrite":
            return self._rewrite(child)
        elif child.name == "if" and self._is_true(child):
            if self.request.at.name != "server":
                handlers = [inner for inner in child.children if _is_content(inner.name)]
                self._content = handlers[-1] if handlers else self._content
                self.request.at = child
            return self._run(child)
        return None

    def _stop(self) -> None:
        self._is_ended = True
        if self._is_changed:
            self._is_changed = False
            self.request.is_at_location = False

    def _return(self, block: Block) -> Answered:
        status = number(block.arg(0))
        if status is None:
            status = 302
        text = "closes the connection" if status == 444 else f"answers {status}"
        return Answered(status, block, text)

    def _rewrite(self, block: Block) -> Answered | None:
        request = self.request
        pattern, replacement, flag = block.arg(0), block.arg(1), block.arg(2)
        is_match = request.matches(pattern, request.uri)
        if is_match is None:
            is_match = self._fork()
        if not is_match:
            return None
        path, _, args = replacement.partition("?")
        value, new_args = request.value(path), request.value(args)
        if flag in ("redirect", "permanent") or replacement.startswith(("http://", "https://", "$scheme")):
            status = 301 if flag == "permanent" else 302
            return Answered(status, block, f"redirects it ({status}), and a WebSocket follows no redirect")
        if value is None or new_args is None:
            return Answered(404, block, "rewrites its path to what is known to a running nginx only")
        if not replacement.endswith("?"):
            new_args = "&".join(part for part in (new_args, request.args) if part)
        request.uri, request.args = value, new_args
        request.is_untouched, request.internal = False, True
        if flag == "break":
            request.is_at_location = False
            self._is_changed, self._is_ended = False, True
        else:
            self._is_changed, self._is_ended = True, flag == "last"
        return None

    def _is_true(self, block: Block) -> bool:
        request = self.request
        words = _condition(block)
        if not words:
            return False
        if words[0] in ("-f", "-d", "-e", "-x", "!-f", "!-d", "!-e", "!-x"):
            return words[0].startswith("!")
        value = request.value(words[0])
        if len(words) == 1:
            return self._fork() if value is None else value not in ("", "0")
        operator, other = words[1], words[2] if len(words) > 2 else ""
        if operator in ("=", "!="):
            right = request.value(other)
            if value is None or right is None:
                return self._fork()
            return (value == right) == (operator == "=")
        if value is None or operator.lstrip("!") not in ("~", "~*"):
            return self._fork()
        is_match = request.matches(other, value, ignore_case=operator.endswith("*"))
        if is_match is None:
            return self._fork()
        return is_match != operator.startswith("!")

    def _fork(self) -> bool:
        index = len(self.taken)
        choice = self._choices[index] if index < len(self._choices) else False
        self.taken.append(choice)
        return choice

    # Who may enter

    def _access(self) -> Answered | None:
        if self.request.is_inner:  # nginx asks this of the main request alone
            return None
        denial = _denial(self.request.at)
        if denial and "any" not in [block.arg(0) for block in self.request.at.effective("satisfy")]:
            is_get = denial.parent is not None and denial.parent.name == "limit_except"
            return Answered(403, denial, "lets no GET in, as a handshake is" if is_get else "lets nobody in (deny all)")
        asked = self.request.at.one("auth_request")
        if asked is None or asked.arg(0) == "off" or (target := self.request.value(asked.arg(0))) is None:
            return None
        outcome = _Route(self.request.within(target), []).run()
        if isinstance(outcome, Answered) and outcome.status >= 300:
            status = outcome.status if outcome.status in (401, 403) else 500
            return Answered(status, asked, f"asks {target}, which says {outcome.status}")
        return None

    # Files and pages of errors

    def _try_files(self) -> Answered | _Phase | None:
        found = self.request.at.all("try_files")
        if not found:
            return None
        last = found[-1].arg(len(found[-1].args) - 1)
        if last.startswith("="):
            status = number(last[1:]) or 404
            return Answered(status, found[-1], f"looks for files (try_files), finds none, and answers {status}")
        return self._redirect(last, found[-1])

    def _redirect(self, target: str, by: Block) -> Answered | _Phase:
        """An internal one: to a named location, or to a URI, which goes through the server's rewrites again."""
        request = self.request
        if self._is_too_often():
            return Answered(500, by, "sends it round in a circle")
        request.internal = True
        if target.startswith("@"):
            named = next((block for block in request.server.all("location") if block.arg(0) == target), None)
            if named is None:
                return Answered(500, by, f"has no location {target}")
            self._enter(named)
            return "within"
        value = request.value(target)
        if value is None:
            return Answered(404, by, "sends it to what is known to a running nginx only")
        request.uri, _, request.args = value.partition("?")
        request.is_untouched = False
        return "server"

    def _special(self, answer: Answered) -> Answered | _Phase:
        """What ``error_page`` makes of an answer."""
        request, status, by = self.request, answer.status, answer.at
        is_said = by.name == "return" and len(by.args) > 1
        if status < 300 or (status < 400 and by.name in ("return", "rewrite")) or is_said or by.name in _PASSES:
            return answer
        is_recursive = self.request.at.one("recursive_error_pages")
        if request.error_pages and not (is_recursive and is_recursive.args == ["on"]):
            return answer
        for page in self.request.at.effective("error_page"):
            *codes, target = page.args or [""]
            if str(status) not in codes:
                continue
            if not target.startswith(("/", "@")):
                return Answered(302, page, "redirects it, and a WebSocket follows no redirect")
            changed = next((code for code in codes if code.startswith("=")), None)
            request.error_pages += 1
            request.error_status = status if changed is None else number(changed[1:])
            request.error_page = page
            phase = self._redirect(target, page)
            return answer if isinstance(phase, Answered) else phase
        return answer


def _condition(block: Block) -> list[str]:
    """The words between the brackets of an ``if``, which may stand by themselves."""
    words = [*block.args]
    if words and words[0].startswith("("):
        words[:1] = [words[0][1:]] if words[0] != "(" else []
    if words and words[-1].endswith(")"):
        words[-1:] = [words[-1][:-1]] if words[-1] != ")" else []
    return words


def _is_content(name: str) -> bool:
    return name in _CONTENT or name.startswith("content_by_lua")


def _place(block: Block) -> str:
    return f"in `{block.words}`" if block.name != "server" else "outside of any location"


def _denial(block: Block) -> Block | None:
    """The ``deny`` that holds at ``block`` and lets nobody in at all."""
    for around in block.around():
        denied, allowed = around.all("deny"), around.all("allow")
        if denied or allowed:
            return denied[0] if denied and not allowed and denied[0].args == ["all"] else None
    return None
