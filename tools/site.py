"""Builds docs/ as a site: `tools/site.py` writes build/site, which needs no server and nothing from elsewhere.

The documents are written for those who read them in the repository. So they are laid out anew first, in build/docs:

- what a page links to outside of docs/ comes along, documents as pages and other files as they are, under project/;
- the order of docs/README.md becomes the navigation;
- diagrams are put into the page itself, where they take its colours;
- what Python-Markdown, which the generator uses, reads in another way than GitHub is written so that both agree.

Then the generator (Zensical) makes the pages, and each link and anchor in what it made is looked up. Addresses of other
sites are not asked. Decision 0071.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ROOT / "docs" / "site"  # zensical.toml, and what it names
WORKER = "https://unpkg.com/iframe-worker/shim"
LARGEST = 256 * 1024  # bytes of a file that comes along

NOT_SEARCHED = (Path("decisions"), Path("project/bench/results"))  # reasons and figures, of which there are very many

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^( *)```(.*)$")
_CODE = re.compile(r"`[^`]*`")
_ITEM = re.compile(r"^( *)(?:[-*]|\d+\.) ")


class Broken(Exception):
    """A page leads nowhere; the text has a line for each such link."""


# From the repository to pages


def place(path: Path) -> Path:
    """Where a file of the repository stands among the pages: docs/README.md is the first of all."""
    inside = path.relative_to(ROOT)
    inside = inside.relative_to("docs") if inside.parts[0] == "docs" else "project" / inside
    return inside.with_name("index.md") if inside.name == "README.md" else inside


def lines_and_fences(text: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it is of a block of code."""
    fence: str | None = None
    for line in text.splitlines():
        found = _FENCE.match(line)
        if found and fence is None:
            fence = found[1]
            yield line, True
        elif found and not found[2] and fence is not None:
            fence = None
            yield line, True
        else:
            yield line, fence is not None


def readable(text: str) -> str:
    """The same for Python-Markdown: blank lines before what a paragraph would swallow, four blanks for what is in an
    item, no backslash before a pipe in code, and what stands behind a block's language as its title."""
    written: list[str] = []
    in_list, is_apart, base = False, False, -1  # is_apart: a blank line stands within this item
    for line, is_code in lines_and_fences(text):
        blanks = len(line) - len(line.lstrip(" "))
        if is_code and (found := _FENCE.match(line)):
            base = -1 if base >= 0 and not found[2] else blanks
            line = found[1] + "```" + _info(found[2])
        if not is_code and line.strip():
            item, before = _ITEM.match(line), written[-1] if written else ""
            begins = bool(item) and (not in_list or is_apart)
            if before.lstrip().startswith("```") or (before.strip() and (begins or _starts_table(line, before))):
                written.append("")
                before = ""
            is_apart = is_apart and not item
            if line.startswith("|"):
                line = _CODE.sub(lambda code: code[0].replace(r"\|", "|"), line)
            in_list = bool(item) or (in_list and blanks > 0) or (in_list and bool(before.strip()))
        is_apart = is_apart or not line.strip()
        if in_list and blanks:
            held = base if is_code and base >= 0 else blanks
            line = " " * (_depth(held) * 4) + line[min(held, blanks) :]
        written.append(line)
    return "\n".join(written) + "\n"


def _depth(blanks: int) -> int:
    """Of lists in each other. Two or three blanks are one: what belongs to "- " and to "1. "."""
    return max(1, blanks // 2) if blanks != 3 else 1


def _starts_table(line: str, before: str) -> bool:
    return line.startswith("|") and not before.startswith("|")


def _info(info: str) -> str:
    """```js first.mjs becomes ```js title="first.mjs"; a block that is run is a block like others."""
    language, _, words = info.partition(" ")
    return language if words in ("", "run") else f'{language} title="{words}"'


class Pages:
    """The repository's documents as pages of ``folder``, from docs/ on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: set[Path] = set()
        self._waiting: list[Path] = []

    def write(self) -> None:
        for path in sorted((ROOT / "docs").rglob("*.md")):
            self._take(path)
        while self._waiting:
            path = self._waiting.pop()
            target = self._folder / place(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".md":
                target.write_text(self.page(path), encoding="utf-8")
            else:
                shutil.copyfile(path, target)

    def page(self, path: Path) -> str:
        lines = []
        for line, is_code in lines_and_fences(readable(path.read_text(encoding="utf-8"))):
            lines.append(line if is_code else _LINK.sub(lambda found: self._link(path, found), line))
        is_searched = not any(place(path).is_relative_to(folder) for folder in NOT_SEARCHED)
        head = "" if is_searched else "---\nsearch:\n  exclude: true\n---\n\n"
        return head + "\n".join(lines) + "\n"

    def _take(self, path: Path) -> None:
        if path not in self._known:
            self._known.add(path)
            self._waiting.append(path)

    def _link(self, page: Path, found: re.Match[str]) -> str:
        image, text, link = found.groups()
        name, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:") or not name:
            return found[0]
        path = Path(os.path.normpath(page.parent / name))
        if image and path.suffix == ".svg" and path.parent == ROOT / "docs" / "diagrams":
            return f"\n{figure(path)}\n"
        if path.is_dir():
            path = path / "README.md"
        if not path.is_file() or path.stat().st_size > LARGEST:
            return text
        self._take(path)
        way = os.path.relpath(place(path), place(page).parent)
        return f"{image}[{text}]({way}{'#' if anchor else ''}{anchor})"


def figure(path: Path) -> str:
    """A diagram as a part of the page. No line of it may be blank, or Markdown would go on there."""
    lines = path.read_text(encoding="utf-8").splitlines()
    drawing = "\n".join(line for line in lines if line and not line.startswith("<!--"))
    return f'<figure class="diagram" tabindex="0">\n{drawing}\n</figure>'


# The order of reading


def order(text: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Of docs/README.md: each heading, and the (title, file) of the items below it."""
    sections: list[tuple[str, list[tuple[str, str]]]] = []
    for line in text.splitlines():
        if line.startswith("## "):
            sections.append((line[3:], []))
        elif (item := _ITEM.match(line)) and (link := _LINK.search(line)) and line[item.end() :].startswith("["):
            sections[-1][1].append((link[2], link[3]))
    return sections


def navigation(text: str) -> str:
    """The same as the generator wants it."""

    def entry(title: str, name: str) -> str:
        return f'{{"{title}" = "{place(Path(os.path.normpath(ROOT / "docs" / name)))}"}}'

    parts = ['{"Tidegate" = "index.md"}']
    for heading, entries in order(text):
        inside = ", ".join(entry(title, name) for title, name in entries)
        parts.append(f'{{"{heading}" = [{inside}]}}')
    return f"nav = [{', '.join(parts)}]"


# What was made


class Page(HTMLParser):
    """The names that an HTML page has, the links in it, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.names |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "alternate", "next", "prev"):
            self.loads.append(given.get("href", ""))
        elif "src" in given:
            self.loads.append(given["src"])


def broken(site: Path) -> list[str]:
    """What leads nowhere in this folder, or is loaded from elsewhere."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links are of the place where it will stand
            continue
        for link in page.links + page.loads:
            if why := _why_broken(site, path, link, pages, must_be_here=link in page.loads):
                found.append(f"{path.relative_to(site)}: {link} {why}")
    for style in sorted(site.rglob("*.css")):
        if re.search(r"url\(['\"]?(?:https?:)?//", style.read_text(encoding="utf-8")):
            found.append(f"{style.relative_to(site)} loads from elsewhere")
    return found


def _why_broken(site: Path, page: Path, link: str, pages: dict[Path, Page], *, must_be_here: bool) -> str:
    """Empty: it is not."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return "is loaded from elsewhere" if must_be_here and parts.scheme != "data" else ""
    target = Path(os.path.normpath(page.parent / unquote(parts.path))) if parts.path else page
    if target.is_dir():
        target = target / "index.html"
    if not target.is_relative_to(site) or not target.is_file():
        return "is not there"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].names:
        return "names a heading that is not there"
    return ""


# All of it


def use_own_worker(site: Path) -> None:
    """The search of pages on a disk needs a script that the generator names by another host's address."""
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        path.write_text(
            text.replace(WORKER, os.path.relpath(site / "site" / "worker.js", path.parent)), encoding="utf-8"
        )


def build(folder: Path, run: Callable[[list[str]], object]) -> int:
    """Makes ``folder/site`` by way of ``folder/docs``, both anew. How many pages there are. Raises Broken."""
    pages, site = folder / "docs", folder / "site"
    for made in (pages, site):
        shutil.rmtree(made, ignore_errors=True)
    Pages(pages).write()
    shutil.copytree(SETTINGS, pages / "site", ignore=shutil.ignore_patterns("*.toml"))
    settings = (SETTINGS / "zensical.toml").read_text(encoding="utf-8")
    order_of_reading = navigation((ROOT / "docs/README.md").read_text(encoding="utf-8"))
    (folder / "zensical.toml").write_text(settings.replace("[project]", f"[project]\n{order_of_reading}", 1))
    run([sys.executable, "-m", "zensical", "build", "--clean", "--strict", "-f", str(folder / "zensical.toml")])
    use_own_worker(site)
    if found := broken(site):
        raise Broken("\n".join(found))
    return len(list(site.rglob("*.html")))


def main() -> None:
    try:
        count = build(ROOT / "build", subprocess.check_call)
    except Broken as links:
        sys.exit(f"docs: these links lead nowhere:\n{links}")
    except subprocess.CalledProcessError as failed:
        sys.exit(f"docs: the generator ended with {failed.returncode}")
    print(f"docs: {count} pages in build/site; open build/site/index.html")


if __name__ == "__main__":
    main()
