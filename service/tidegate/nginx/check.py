"""Reads an nginx configuration and says what breaks, and what would make it harder, for the gateway's settings.

It may be anybody's configuration, not only ours: a file with its includes, a part of one, or what ``nginx -T`` printed
of a live server.
"""

from __future__ import annotations

from tidegate.config.settings import Config
from tidegate.nginx import files as nginx_files
from tidegate.nginx import hardening, verdict
from tidegate.nginx.arrival import Gateway
from tidegate.nginx.blocks import Block
from tidegate.nginx.finding import Finding, harden
from tidegate.nginx.model import Model
from tidegate.nginx.syntax import NginxError

# What a file has at its top that is included into http {}, into a server or into a location.
_IN_SERVER = ("location", "listen", "server_name")


def check_file(path: str, config: Config) -> list[Finding]:
    """What is to be said of the configuration whose top is ``path``, the heaviest first. Raises NginxError."""
    return check(nginx_files.read(path), config)


def check_dump(text: str, config: Config) -> list[Finding]:
    """The same for what ``nginx -T`` printed. Raises NginxError."""
    return check(nginx_files.read_dump(text), config)


def check(top: Block, config: Config) -> list[Finding]:
    part = _part(top)
    model, gateway = Model(top), Gateway(config)
    try:
        found = verdict.judge(model, gateway)
    except RecursionError:
        raise NginxError(f"{top.file}: blocks are nested too deeply") from None
    findings = [*part, *found.findings, *hardening.findings(model, gateway, found.ways)]
    return sorted(set(findings), key=lambda finding: finding.order)


def _part(top: Block) -> list[Finding]:
    """What is to be said where it is no whole configuration. Its directives are then put where they would stand."""
    if top.all("http") or top.all("stream") or top.all("events"):
        return []
    if not top.all("server") and not any(top.all(name) for name in _IN_SERVER):
        raise NginxError(
            f"{top.file}: is a part of a configuration, without a server or a location; check the file that includes "
            "it, or what `nginx -T` prints"
        )
    if not top.all("server"):
        server = Block("server", [], top.file, 1, top)
        server.adopt(top.children)
        top.adopt([server])
    text = (
        "is a part of a configuration: what stands around it is not known here, and nginx's defaults are taken for it; "
    )
    return [harden("part", top, f"{text}better check the file that includes it, or what `nginx -T` prints", 10)]
