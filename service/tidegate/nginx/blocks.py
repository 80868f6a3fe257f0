"""An nginx configuration as a tree of directives, and what holds at a place in it."""

from __future__ import annotations

from collections.abc import Iterator


class Block:
    """One directive: its children where it has a block, and the block that it stands in. The top has no name."""

    __slots__ = ("_named", "args", "children", "file", "line", "name", "parent")

    def __init__(self, name: str, args: list[str], file: str, line: int, parent: Block | None) -> None:
        self.name = name
        self.args = args
        self.file = file
        self.line = line
        self.parent = parent
        self.children: list[Block] = []
        self._named: dict[str, list[Block]] | None = None

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def words(self) -> str:
        """As one would name it: ``location = /a``."""
        return " ".join((self.name, *self.args))

    @property
    def top(self) -> Block:
        block = self
        while block.parent is not None:
            block = block.parent
        return block

    def arg(self, index: int) -> str:
        """Empty where it has fewer: `nginx -t` would say so."""
        return self.args[index] if index < len(self.args) else ""

    def all(self, name: str) -> list[Block]:
        """Its own directives of this name."""
        if self._named is None:  # which is when it has all of its children
            self._named = {}
            for child in self.children:
                self._named.setdefault(child.name, []).append(child)
        return self._named.get(name, [])

    def adopt(self, children: list[Block]) -> None:
        """Takes them in place of its own."""
        self.children, self._named = children, None
        for child in children:
            child.parent = self

    def around(self) -> Iterator[Block]:
        """Itself, and the blocks that it stands in, from the inside out."""
        block: Block | None = self
        while block is not None:
            yield block
            block = block.parent

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
            if child.children:
                yield from child.everywhere(name)

    def within(self, name: str) -> bool:
        return any(block.name == name for block in self.around() if block is not self)
