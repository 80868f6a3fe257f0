"""A node of the last release, and edges of both, on one Redis."""

from __future__ import annotations

import subprocess

from tests.edges.edge import Edge, Node, environ
from tests.support import Process
from tests.upgrades.release import last_release


class EarlierNode(Node):
    def start(self) -> None:
        release = last_release()
        self._starts += 1
        folder = self.folder / str(self._starts)
        folder.mkdir(parents=True)
        env = release.environ(environ(self.settings))
        self.process = Process(*release.command("serve"), folder=folder, env=env, cwd=release.folder)


class EarlierEdge(Edge):
    """Rendered by the last release, from its own files."""

    def render(self) -> None:
        release = last_release()
        subprocess.run(
            release.command("render", "--out", str(self.folder)),
            env=release.environ(self.environ),
            cwd=release.folder,
            check=True,
            capture_output=True,
        )
