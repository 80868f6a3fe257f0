"""An nginx configuration as one tree: read from a file and what it includes, or from what ``nginx -T`` printed.

Of a dump, which comes from another machine, only its own text is read.
"""

from __future__ import annotations

import glob
import os
import re
from abc import ABC, abstractmethod
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from tidegate.nginx.blocks import Block
from tidegate.nginx.syntax import NginxError, parse

DIRECTIVES = 1_000_000  # of all files, each as often as it is included
INCLUDES = 100  # one within another

__all__ = ["Block", "NginxError", "read", "read_dump"]

_WILD = re.compile(r"[*?\[]")
# What is filled in before nginx sees it: Jinja, Go and others ({{ }}, {% %}), ERB (<% %>), envsubst (${NAME}).
_TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|<%.*?%>|\$\{([A-Z][A-Z0-9_]*)\}")


def read(path: str) -> Block:
    """The configuration whose top is the file ``path``. Raises NginxError."""
    if Path(path).is_dir():
        raise NginxError(f"{path}: is a folder; name the file in it that nginx starts with, such as nginx.conf")
    if not Path(path).is_file() and not Path(path).is_fifo():  # <(envsubst < template)
        raise NginxError(f"{path}: there is no such file")
    return _Reader(_Folder(path)).read()


def read_dump(text: str) -> Block:
    """What ``nginx -T`` printed. Raises NginxError."""
    parts = re.split(r"^# configuration file (/.+):\r?\n", text, flags=re.MULTILINE)
    if len(parts) < 3:
        raise NginxError("this is not what `nginx -T` prints: no line begins with `# configuration file /`")
    return _Reader(_Dump(dict(zip(parts[1::2], parts[2::2], strict=True)))).read()


class _Source(ABC):
    """Where files come from. nginx takes relative names from the folder of the first one."""

    first: str

    @abstractmethod
    def text(self, name: str) -> str:
        """Raises OSError."""

    @abstractmethod
    def matching(self, pattern: str) -> list[str]:
        """The files that an include names, as nginx sorts them; none where there is none."""

    def shown(self, name: str) -> str:
        return name

    def missing(self, pattern: str) -> str:
        return f"includes {self.shown(pattern)}: there is no such file"


class _Folder(_Source):
    def __init__(self, path: str) -> None:
        self.first = path

    def text(self, name: str) -> str:
        return Path(name).read_bytes().decode(errors="replace")

    def matching(self, pattern: str) -> list[str]:
        path = os.path.join(os.path.dirname(self.first), pattern)
        if _WILD.search(path):
            return sorted(name for name in glob.glob(path) if os.path.isfile(name))
        return [path] if os.path.isfile(path) else []

    def shown(self, name: str) -> str:
        return os.fsencode(name).decode(errors="replace")


class _Dump(_Source):
    def __init__(self, files: dict[str, str]) -> None:
        self.first = next(iter(files))
        self._files = files
        self._folders: dict[str, list[str]] = {}
        for name in sorted(files):
            self._folders.setdefault(os.path.dirname(name), []).append(name)

    def text(self, name: str) -> str:
        return self._files[name]

    def matching(self, pattern: str) -> list[str]:
        path = self._path(pattern)
        if not _WILD.search(path):
            return [path] if path in self._files else []
        folder, _, last = path.rpartition("/")
        if _WILD.search(folder):
            return sorted(name for name in self._files if PurePosixPath(name).match(path))
        return [name for name in self._folders.get(folder, ()) if fnmatchcase(os.path.basename(name), last)]

    def missing(self, pattern: str) -> str:
        return f"includes {self._path(pattern)}, which the dump does not have"

    def _path(self, pattern: str) -> str:
        return os.path.normpath(str(PurePosixPath(self.first).parent / pattern))


class _Reader:
    """Puts what files include in the place of the include."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._within: list[str] = []  # the files that are being read, the last one in those before it
        self._suspects: list[Block] = []  # of being a template
        self._count = 0

    def read(self) -> Block:
        name = self._source.first
        top = Block("", [], self._source.shown(name), 1, None)
        self._read(name, top)
        self._refuse_template(top)
        return top

    def _refuse_template(self, top: Block) -> None:
        """``${NAME}`` may be a variable of nginx, where something gives it a value."""
        for suspect in self._suspects:
            for found in _TEMPLATE.finditer(suspect.words):
                definitions = (block for name in ("set", "map", "geo") for block in top.everywhere(name))
                if found[1] and any(f"${found[1]}".lower() in map(str.lower, block.args) for block in definitions):
                    continue
                raise _template(suspect.where, found)

    def _read(self, name: str, into: Block) -> None:
        shown = self._source.shown(name)
        try:
            text = self._source.text(name)
        except (OSError, ValueError) as exc:
            raise NginxError(f"{shown}: {getattr(exc, 'strerror', None) or exc}") from None
        self._within.append(name)
        try:
            parse(text, shown, into, self._is_put)
        except NginxError:
            for number, line in enumerate(text.splitlines(), 1):
                if not line.lstrip().startswith("#") and (found := _TEMPLATE.search(line)):
                    raise _template(f"{shown}:{number}", found) from None
            raise
        self._within.pop()

    def _is_put(self, directive: Block) -> bool:
        self._count += 1
        if self._count > DIRECTIVES:
            raise NginxError(
                f"{self._source.shown(self._source.first)}: is more than {DIRECTIVES} directives, with what it includes"
            )
        for word in directive.args:
            if "{" in word or "<%" in word:
                self._suspects.append(directive)
        if directive.name != "include" or len(directive.args) != 1 or directive.parent is None:
            return True
        self._include(directive, directive.parent)
        return False

    def _include(self, directive: Block, into: Block) -> None:
        pattern = directive.args[0]
        if len(self._within) > INCLUDES:
            raise NginxError(f"{directive.where}: includes are nested too deeply")
        try:
            names = self._source.matching(pattern)
        except ValueError:  # a zero in a name
            names = []
        if not names and not _WILD.search(pattern):
            raise NginxError(f"{directive.where}: {self._source.missing(pattern)}")
        for name in names:
            if any(self._is_same(name, other) for other in self._within):
                shown = self._source.shown(name)
                raise NginxError(f"{directive.where}: includes {shown}, which is being read: a circle")
            self._read(name, into)

    @staticmethod
    def _is_same(name: str, other: str) -> bool:
        return os.path.normpath(name) == os.path.normpath(other)


def _template(place: str, found: re.Match[str]) -> NginxError:
    return NginxError(
        f"{place}: this is a template ({found[0][:40]}), which nginx would not read as it is meant; let it be filled "
        "in, and check what comes out of it"
    )
