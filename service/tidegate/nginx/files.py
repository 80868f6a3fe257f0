"""An nginx configuration as a tree of blocks: read from a file and what it includes, or from what ``nginx -T`` printed.

crossplane does the parsing. Of a dump, which comes from another machine, only its own text is read.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

DIRECTIVES = 1_000_000  # of all files, each as often as it is included
INCLUDES = 100  # one within another

_File = dict[str, Any]  # as crossplane gives it; ``file`` is the name that is shown
_Directive = dict[str, Any]


class NginxError(Exception):
    """The configuration cannot be read, in words."""


class Block:
    """One directive with a block: its children, and the block that it stands in."""

    def __init__(self, directive: dict[str, Any], parent: Block | None) -> None:
        self.name: str = directive["directive"]
        self.args: list[str] = directive["args"]
        self.where = f"{directive['file']}:{directive['line']}"
        self.parent = parent
        self.children = [Block(child, self) for child in directive.get("block", ())]

    @property
    def top(self) -> Block:
        return self if self.parent is None else self.parent.top

    def all(self, name: str) -> list[Block]:
        """Its own directives of this name."""
        return [child for child in self.children if child.name == name]

    def effective(self, name: str) -> list[Block]:
        """Those that hold here: its own, else those of the blocks around it."""
        block: Block | None = self
        while block is not None:
            if found := block.all(name):
                return found
            block = block.parent
        return []

    def one(self, name: str) -> Block | None:
        found = self.effective(name)
        return found[-1] if found else None

    def everywhere(self, name: str) -> Iterator[Block]:
        for child in self.children:
            if child.name == name:
                yield child
            yield from child.everywhere(name)

    def within(self, name: str) -> bool:
        block = self.parent
        while block is not None and block.name != name:
            block = block.parent
        return block is not None


def read(path: str) -> Block:
    """The configuration whose top is the file ``path``. Raises NginxError."""
    if not Path(path).is_file():
        raise NginxError(f"{path}: there is no such file")
    files = _parse(path, follow=True)
    for file in files:
        file["file"] = os.fsencode(file["file"]).decode(errors="replace")
    return _tree(files)


def read_dump(text: str) -> Block:
    """What ``nginx -T`` printed. Raises NginxError."""
    parts = re.split(r"^# configuration file (/.+):\n", text, flags=re.MULTILINE)
    if len(parts) < 3:
        raise NginxError("this is not what `nginx -T` prints: no line begins with `# configuration file /`")
    files: dict[str, _File] = {}
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "part"
        for name, content in zip(parts[1::2], parts[2::2], strict=True):
            part.write_text(content, encoding="utf-8")
            try:
                (files[name],) = _parse(str(part), follow=False)
            except NginxError as exc:
                raise NginxError(str(exc).replace(str(part), name)) from None
            files[name]["file"] = name
    names = list(files)
    for file in files.values():
        for directive in _includes(file["parsed"]):
            directive["includes"] = _named(directive, file, names)
    return _tree(list(files.values()))


def _parse(path: str, *, follow: bool) -> list[_File]:
    try:
        import crossplane  # which serving does not need
    except ImportError:
        raise NginxError("reading nginx configurations needs crossplane: pip install 'tidegate[nginx]'") from None

    # Joined here and not by crossplane, which gives what follows an include the name of the included file.
    result = crossplane.parse(path, single=not follow, check_ctx=False, check_args=False)
    if result["errors"]:
        words = "\n".join(str(item["error"]) for item in result["errors"])
        # crossplane catches that too, and says it in Python's words.
        raise NginxError(f"{path}: blocks are nested too deeply" if "recursion depth" in words else words)
    files: list[_File] = result["config"]
    return files


def _includes(directives: list[_Directive]) -> Iterator[_Directive]:
    for directive in directives:
        if directive["directive"] == "include" and directive["args"]:
            yield directive
        yield from _includes(directive.get("block", []))


def _named(directive: _Directive, file: _File, names: list[str]) -> list[int]:
    """Which of the dump's files a directive includes. nginx takes a name from the folder of the first one."""
    pattern = os.path.normpath(str(PurePosixPath(names[0]).parent / directive["args"][0]))
    found = [number for number, name in enumerate(names) if PurePosixPath(name).match(pattern)]
    if not found and not re.search(r"[*?\[]", pattern):
        raise NginxError(f"{file['file']}:{directive['line']}: includes {pattern}, which the dump does not have")
    return sorted(found, key=names.__getitem__)


def _tree(files: list[_File]) -> Block:
    top = {"directive": "", "args": [], "line": 1, "file": files[0]["file"]}
    try:
        top["block"] = list(_Joiner(files).joined(0, files[0]["parsed"], (0,)))
        return Block(top, None)
    except RecursionError:
        raise NginxError(f"{files[0]['file']}: blocks are nested too deeply") from None


class _Joiner:
    def __init__(self, files: list[_File]) -> None:
        self._files = files
        self._count = 0

    def joined(self, index: int, directives: list[_Directive], within: tuple[int, ...]) -> Iterator[_Directive]:
        """``directives`` of the file at ``index``, each with its file's name, includes put in their place. ``within``
        are the files that are being included, this one the last."""
        name = self._files[index]["file"]
        for directive in directives:
            if "includes" in directive:
                if len(within) > INCLUDES:
                    raise NginxError(f"{name}:{directive['line']}: includes are nested too deeply")
                for number in directive["includes"]:
                    if number in within:
                        other = self._files[number]["file"]
                        raise NginxError(f"{name}:{directive['line']}: includes {other}, which is being read: a circle")
                    yield from self.joined(number, self._files[number]["parsed"], (*within, number))
                continue
            self._count += 1
            if self._count > DIRECTIVES:
                raise NginxError(
                    f"{self._files[0]['file']}: is more than {DIRECTIVES} directives, with what it includes"
                )
            joined = {**directive, "file": name}
            if "block" in directive:
                joined["block"] = list(self.joined(index, directive["block"], within))
            yield joined
