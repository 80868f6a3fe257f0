"""The last release, as its wheel: built from the commit that released it, and run beside what is in this checkout.

``python -m tests.upgrades.release`` builds it and prints where its packages are.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support import ROOT

# From which commit each was made. Where there is a tag v<version>, that one counts.
COMMITS = {"0.2.0": "76295adf6757086ed93f4d899e5785b813199639"}

_PREFIX = "TIDEGATE_"
_KNOWN = """
import json, msgspec
from tidegate.config.settings import Config
def fields(kind):
    return [field.encode_name for field in msgspec.structs.fields(kind)]
def is_section(kind):
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
known = {field.encode_name: fields(field.type) if is_section(field.type) else None
         for field in msgspec.structs.fields(Config)}
print(json.dumps(known))
"""


def last_version() -> str:
    """The release before what is in this checkout."""
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [heading.partition(" ")[0] for heading in headings if heading != "Unreleased"]
    return released[0] if "Unreleased" in headings else released[1]


class Release:
    """``python -m tidegate`` of ``folder``, where its wheel was unpacked; it runs with this environment's packages."""

    def __init__(self, version: str, folder: Path) -> None:
        self.version = version
        self.folder = folder
        self._known: dict[str, list[str] | None] = json.loads((folder / "known.json").read_text())

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "tidegate", *args]

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """What is for it alone: of ``environ`` it gets the settings that it knows, as an operator would give it."""
        kept = {name: value for name, value in environ.items() if self._knows(name)}
        return kept | {"PYTHONPATH": str(self.folder)}

    def _knows(self, name: str) -> bool:
        section, _, key = name.removeprefix(_PREFIX).lower().partition("__")
        if not name.startswith(_PREFIX) or section not in self._known:
            return not name.startswith(_PREFIX)
        keys = self._known[section]
        return keys is None or key in keys


@functools.cache
def last_release() -> Release:
    """Fails the test, with what to do, where it cannot be had."""
    version = last_version()
    commit = _commit(version)
    folder = Path(tempfile.gettempdir()) / f"tidegate-test-release-{commit[:12]}-{os.getuid()}"
    if not folder.exists():
        made = Path(tempfile.mkdtemp(prefix="tidegate-test-release-"))
        try:
            _build(commit, made)
            made.rename(folder)  # at once, for other tests run beside this one
        except OSError:
            if not folder.exists():
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return Release(version, folder)


def _commit(version: str) -> str:
    for name in (f"refs/tags/v{version}", COMMITS.get(version)):
        if name is not None and (found := _git("rev-parse", "--quiet", "--verify", f"{name}^{{commit}}")):
            return found
    if version not in COMMITS:
        pytest.fail(
            f"there is no tag v{version}, and no commit for that release in tests/upgrades/release.py: fetch the tags "
            "(git fetch --tags), or add the commit there",
            pytrace=False,
        )
    pytest.fail(
        f"this clone has neither the tag v{version} nor the commit {COMMITS[version]}, from which {version} was "
        "released: git fetch --unshallow --tags (in CI: fetch-depth: 0)",
        pytrace=False,
    )


def _git(*args: str) -> str:
    return subprocess.run(["git", "-C", ROOT, *args], capture_output=True, text=True).stdout.strip()


def _build(commit: str, folder: Path) -> None:
    """Leaves its packages, and known.json: the keys of each section of its configuration."""
    source, dist = folder / "source", folder / "dist"
    source.mkdir()
    archive = folder / "source.tar"
    _run("git", "-C", str(ROOT), "archive", "--output", str(archive), commit)
    shutil.unpack_archive(archive, source, filter="data")
    _run(sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "--out-dir", str(dist), str(source))
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    for path in (source, dist):
        shutil.rmtree(path)
    archive.unlink()
    known = _run(sys.executable, "-c", _KNOWN, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)})
    (folder / "known.json").write_text(known)
    folder.chmod(0o755)


def _run(*args: str, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> str:
    ran = subprocess.run(args, capture_output=True, text=True, cwd=cwd, env=env)
    if ran.returncode:
        pytest.fail(f"{' '.join(args)} failed, without which there is no last release:\n{ran.stderr}", pytrace=False)
    return ran.stdout


if __name__ == "__main__":
    print(last_release().folder)
