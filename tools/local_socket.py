"""The Unix sockets between `make run` and `make edge`, one for handshakes and one for trunks, where the settings name
none.

usage: local_socket.py service | edge    prints what is to be set for it, one NAME=VALUE a line; nothing where the
settings say something else, where there is no safe folder for it, or, for the edge, where no service listens there.
SOCKET_DIR names another folder than /run/tidegate (root), $XDG_RUNTIME_DIR/tidegate, or one in $TMPDIR.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path

from tidegate.config import load
from tidegate.config.endpoints import UNIX_BYTES
from tidegate.config.settings import Config

CONFIG = "config.yaml"  # as the command `tidegate` finds it


def main(whose: str) -> list[str]:
    try:
        config = load.load(os.environ.get("TIDEGATE_CONFIG") or (CONFIG if Path(CONFIG).exists() else None), os.environ)
    except load.ConfigError:
        return []  # who is started says it
    return for_service(config) if whose == "service" else for_edge(config)


def for_service(config: Config) -> list[str]:
    if config.server.socket is not None or not config.server.port or not (path := _path(config)):
        return []
    # Workers of nginx are another user where root starts it. On TCP beside it everybody is let in too.
    mode = ["TIDEGATE_SERVER__SOCKET_MODE=0666"] if os.getuid() == 0 else []
    trunk = config.trunk.socket is None and not config.trunk.port
    return [
        f"TIDEGATE_SERVER__SOCKET={path}",
        *([f"TIDEGATE_TRUNK__SOCKET={path.removesuffix('.sock')}-trunk.sock"] if trunk else []),
        *mode,
    ]


def for_edge(config: Config) -> list[str]:
    path = config.server.socket or _path(config)
    if config.edge.upstreams != Config().edge.upstreams or not _answers(path):
        return []
    return [f'TIDEGATE_EDGE__UPSTREAMS=["unix:{path}"]']


def _path(config: Config) -> str:
    """Empty where there is no folder for it that is this user's own."""
    folder = Path(os.environ.get("SOCKET_DIR") or _folder())
    path = f"{folder}/{config.server.port}.sock"
    try:
        folder.mkdir(mode=0o755, exist_ok=True)
        mine = folder.stat().st_uid == os.getuid() and not folder.is_symlink()
    except OSError:
        return ""
    return path if mine and len(path.encode()) + len("-trunk") <= UNIX_BYTES else ""


def _folder() -> str:
    if os.getuid() == 0:
        return "/run/tidegate"
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return f"{runtime}/tidegate"
    return f"{tempfile.gettempdir()}/tidegate-{os.getuid()}"


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return bool(path) and sock.connect_ex(path) == 0


if __name__ == "__main__":
    print("\n".join(main(sys.argv[1])))
