"""What ``proxy_pass`` makes of a request: to whom it goes, and what arrives there (ngx_http_proxy_module)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from functools import lru_cache

import msgspec

from tidegate.config.endpoints import UNIX
from tidegate.nginx.blocks import Block
from tidegate.nginx.model import Model, canonical_host
from tidegate.nginx.request import Request
from tidegate.nginx.routes import Proxied

# What nginx sets unless it is told otherwise. An empty header is not sent.
_DEFAULTS = {
    "connection": "close",
    "upgrade": "",
    "te": "",
    "keep-alive": "",
    "expect": "",
    "content-length": "",
    "transfer-encoding": "",
}
_URL = re.compile(r"(https?)://(unix:[^:]*|\[[^\]]*\](?::[0-9]+)?|[^/?]*)(:?)(.*)", re.DOTALL | re.IGNORECASE)


class Passed(msgspec.Struct):
    """``target`` is the path with the query; None where a running nginx alone knows. So it is with a header's value.
    ``set_by`` are the directives that give headers. ``authority`` is as it is written."""

    at: Block
    by: Block
    scheme: str
    authority: str | None
    version: str
    method: str
    target: str | None
    headers: dict[str, str | None]
    set_by: dict[str, Block]


def passed(request: Request, proxied: Proxied) -> Passed:
    at, by = proxied.at, proxied.target
    text = request.value(by.arg(0))
    scheme, authority, path = _split(text)
    version, method = at.one("proxy_http_version"), at.one("proxy_method")
    headers, set_by = _headers(request, at, authority, scheme)
    return Passed(
        at=at,
        by=by,
        scheme=scheme,
        authority=authority,
        version=version.arg(0) if version else "1.0",
        method=(request.value(method.arg(0)) or "") if method else request.method,
        target=None if text is None else _target(request, at, path, has_variables="$" in by.arg(0)),
        headers=headers,
        set_by=set_by,
    )


@lru_cache(maxsize=4096)
def _split(text: str | None) -> tuple[str, str | None, str]:
    """Scheme, authority, and the URI part, which may be empty."""
    found = _URL.fullmatch(text or "")
    if found is None:
        return "http", None, ""
    return found[1].lower(), found[2], found[4]


def _target(request: Request, at: Block, path: str, *, has_variables: bool) -> str:
    query = f"?{request.args}" if request.args else ""
    if has_variables and path:
        return path if path.startswith("/") else f"/{path}"
    if not path:
        return request.target if request.is_untouched else request.uri + query
    if not request.is_at_location:  # after `rewrite … break` the URI part does not count
        return request.uri + query
    location = next((block for block in at.around() if block.name == "location"), at)
    return path + request.uri[len(location.args[-1]) if location.args else 0 :] + query


def _headers(
    request: Request, at: Block, authority: str | None, scheme: str
) -> tuple[dict[str, str | None], dict[str, Block]]:
    host = None if authority is None else "localhost" if authority.startswith(UNIX) else authority
    if host is not None:
        host = host.removesuffix(":443" if scheme == "https" else ":80")
    request.variables["proxy_host"] = host
    kept = at.one("proxy_pass_request_headers")
    headers: dict[str, str | None] = {} if kept and kept.args == ["off"] else {**request.headers}
    headers |= {"host": host, **_DEFAULTS}
    set_by: dict[str, Block] = {}
    for block in at.effective("proxy_set_header"):
        name, value = block.arg(0).lower(), request.value(block.arg(1))
        before = headers[name] if name in set_by else None
        headers[name] = f"{before}, {value}" if before and value else value
        set_by[name] = block
    return headers, set_by


# To whom


class Member(msgspec.Struct, frozen=True):
    """One address behind a ``proxy_pass``: ``host:port``, IPv6 in brackets, or ``unix:/path``."""

    address: str
    by: Block


def members(model: Model, one: Passed) -> list[Member]:
    """Those that are not marked ``down``."""
    if one.authority is None:
        return []
    return list(_members(model.upstreams, one.authority, one.by, 443 if one.scheme == "https" else 80))


def stream_members(model: Model, server: Block) -> list[Member]:
    """Where a server of stream {} may go to; a map may name several."""
    found: list[Member] = []
    for by in server.all("proxy_pass"):
        text = by.arg(0)
        chosen = model.stream_maps.get(text)
        words = [text] if chosen is None else [child.arg(0) for child in chosen.children]
        for word in words:
            if "$" not in word:
                found += _members(model.stream_upstreams, word, by, 0)
    return found


def _members(upstreams: dict[str, Block], authority: str, by: Block, default_port: int) -> Iterator[Member]:
    upstream = upstreams.get(authority.lower())
    if upstream is None:
        yield Member(canonical(authority, default_port), by)
        return
    for server in upstream.all("server"):
        if "down" not in server.args:
            yield Member(canonical(server.arg(0), 80), server)


@lru_cache(maxsize=4096)
def canonical(authority: str, default_port: int) -> str:
    """One spelling for each address."""
    if authority.startswith(UNIX):
        return authority
    found = re.fullmatch(r"(.*?)(?::([0-9]+))?", authority, re.DOTALL)
    assert found is not None
    return f"{canonical_host(found[1])}:{int(found[2]) if found[2] and len(found[2]) < 6 else default_port}"


def needs_resolver(model: Model, one: Passed) -> bool:
    """Whether its name is looked up for each request, and nobody is said who could be asked."""
    written = _URL.fullmatch(one.by.arg(0))
    if written and "$" not in written[2]:
        return False
    if one.authority is None or one.authority.startswith(UNIX) or one.at.one("resolver"):
        return False
    name = re.sub(r":[0-9]+\Z", "", one.authority).lower()
    if name in model.upstreams or one.authority.lower() in model.fixed_targets:
        return False
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return True
    return False
