"""What ``serve``, ``render``, ``forward-events`` and nginx would refuse of a configuration that ``config.load`` took:
it is built as they build it, and thrown away. Nothing is connected to, looked up or written.

What depends on the machine (a file, a folder, a taken port) is a warning: a configuration may be checked elsewhere.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from tidegate import app
from tidegate.auth.api_keys import ApiKeys
from tidegate.auth.hosts import Hosts, Networks
from tidegate.auth.origins import Origins
from tidegate.brokers import registry
from tidegate.calls import Caller
from tidegate.config import load as config
from tidegate.config.edge import EdgeSettings
from tidegate.config.endpoints import UNIX, bracketed, is_ipv4, is_ipv6
from tidegate.config.load import Problem
from tidegate.config.settings import Config
from tidegate.core.errors import Unusable
from tidegate.forwarder import Forwarder
from tidegate.metrics import Metrics
from tidegate.nginx import render
from tidegate.process.addresses import names
from tidegate.process.socket_file import group_number, obstacle


def check(settings: Config, *, edge: bool = True) -> tuple[list[Problem], list[str]]:
    """Why it is refused, and what to be warned of. ``edge``: whether what is missing here for ours is of interest."""
    problems: list[Problem] = []
    warnings = config.warnings(settings)
    for build in _BUILDERS:
        try:
            warnings += build(settings) or ()
        except Unusable as exc:
            problem = config.problem(settings, exc)
            if exc.local:
                warnings.append(f"on this machine {problem}")
            else:
                problems.append(problem)
    warnings += _unreached(settings)
    missing = [*_taken(settings), *(_missing(settings.edge) if edge else ())]
    return problems, warnings + [f"on this machine {text}" for text in missing]


# What is built: gives warnings, and raises Unusable


def _tokens(settings: Config) -> list[str]:
    verifier = app.make_verifier(settings)
    return [f"auth.jwks_file: {text}" for text in verifier.left_out] if verifier else []


def _callback(settings: Config) -> None:
    app.make_callback(settings, Metrics())


def _applications(settings: Config) -> None:
    ApiKeys(settings.internal.api_keys)


def _broker(settings: Config) -> None:
    registry.make(settings, app.node_id(settings.server.node), Metrics())


def _doors(settings: Config) -> None:
    for section in (settings.server, settings.internal):
        Hosts(names(section.hosts, section.address))
    Origins(settings.origins, settings.internal.cors_origins)
    Networks(settings.server.edges)


def _calls(settings: Config) -> None:
    Caller(settings.calls, lambda outcome, seconds: None)


def _events(settings: Config) -> None:
    if settings.events.url is not None:
        Forwarder(settings)


def _edge(settings: Config) -> None:
    render.includes(settings)


_BUILDERS: tuple[Callable[[Config], list[str] | None], ...] = (
    _tokens,
    _callback,
    _applications,
    _broker,
    _doors,
    _calls,
    _events,
    _edge,
)


def _unreached(settings: Config) -> Iterator[str]:
    sockets = [upstream.removeprefix(UNIX) for upstream in settings.edge.upstreams if upstream.startswith(UNIX)]
    if sockets and settings.server.socket not in sockets:
        yield (
            f"edge.upstreams: none of its sockets ({', '.join(sockets)}) is this node's: server.socket is "
            f"{settings.server.socket or 'not set'}"
        )


# What is not there


def _taken(settings: Config) -> Iterator[str]:
    for section, name in ((settings.server, "server"), (settings.internal, "internal"), (settings.trunk, "trunk")):
        if fault := _listening(section.address, section.port):
            yield f"{name}.port = {section.port}: {bracketed(section.address)} {fault}"
    server = settings.server
    if server.socket is None:
        return
    if why := obstacle(server.socket):
        yield f"server.socket = {server.socket}: {why}"
    if server.socket_group is not None:
        try:
            group_number(server.socket_group)
        except OSError as exc:
            yield f"server.socket_group = {server.socket_group}: {exc.strerror}"


def _listening(address: str, port: int) -> str:
    """Why nobody can listen there; empty where one can, or where that is not known without looking up a name."""
    if not (is_ipv4(address) or is_ipv6(address)):
        return ""
    try:
        with socket.socket(socket.AF_INET6 if is_ipv6(address) else socket.AF_INET) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
    except OSError as exc:
        return (
            "is taken, perhaps by a running gateway" if exc.errno == errno.EADDRINUSE else f"cannot be: {exc.strerror}"
        )
    return ""


def _missing(edge: EdgeSettings) -> Iterator[str]:
    folders = {"edge.run_dir": edge.run_dir, "edge.access_log": str(Path(edge.access_log).parent)}
    for key, folder in folders.items():
        if not Path(folder).is_dir():
            yield f"{key}: there is no folder {folder}, which nginx would need"
    tls = Path(edge.tls_dir)
    if edge.tls_port and tls.is_absolute():  # else it is relative to where `render` writes
        for file in (tls / "fullchain.pem", tls / "privkey.pem"):
            if not file.is_file():
                yield f"edge.tls_dir: there is no file {file}, which nginx would need"
