"""The documents as a site (tools/site.py): each page is in the order of reading, leads somewhere, loads nothing from
elsewhere, and can be read on a small screen."""

from __future__ import annotations

import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright, expect

from tests.browser.chromium import ARGUMENTS, CHROMIUM
from tests.support import ROOT, eventually
from tools import site

CODE = {"code", "pre", "script", "style", "svg"}
ORDER = site.order((ROOT / "docs/README.md").read_text())


def test_each_page_is_in_the_order_of_reading_once() -> None:
    named = [name for _, entries in ORDER for _, name in entries]
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert sorted(name for name in named if "/" not in name) == sorted(pages)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("words\n- one\n- two\n", "words\n\n- one\n- two\n"),
        ("words\n| a |\n|---|\n| b |\n", "words\n\n| a |\n|---|\n| b |\n"),
        ("- one\n  goes on\n\n  and on\n\nwords\n", "- one\n    goes on\n\n    and on\n\nwords\n"),
        (
            "- one:\n\n  ```ini\n  [x]\n    y\n  ```\n- two\n- three\n",
            "- one:\n\n    ```ini\n    [x]\n      y\n    ```\n\n- two\n- three\n",
        ),
        (
            "- one\n\n  ```\n  x\n  ```\nwords\n\n    code\n",
            "- one\n\n    ```\n    x\n    ```\n\nwords\n\n    code\n",
        ),
        ("```js first.mjs\nx - y\n- z\n```\n", '```js title="first.mjs"\nx - y\n- z\n```\n'),
        ("```console run\n$ x\n```\n", "```console\n$ x\n```\n"),
        ("- one\n\n  more\n- two\n", "- one\n\n    more\n\n- two\n"),
        ("| `a \\| b` |\n|---|\n", "| `a | b` |\n|---|\n"),
        ("1. one\n   goes on\n", "1. one\n    goes on\n"),
    ],
)
def test_what_two_readers_of_markdown_read_differently_is_written_for_both(written: str, read: str) -> None:
    assert site.readable(written) == read


def test_what_is_outside_comes_along_or_is_words() -> None:
    text = site.Pages(ROOT).page(ROOT / "docs/operations.md")
    assert "(project/nginx/index.md#what-each-can-tell)" in text
    assert "(project/nginx/conf.d/plain.conf)" in text
    assert "](../" not in text


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    def page(name: str, text: str) -> None:
        (tmp_path / name).write_text(text)

    page("a.html", '<h2 id="x"></h2><a href="b.html#y">1</a><a href="#x">2</a><a href="https://example.com/">3</a>')
    page("b.html", '<h2 id="y"></h2><script src="a.js"></script>')
    (tmp_path / "a.js").touch()
    assert site.broken(tmp_path) == []
    page("b.html", '<h2 id="z"></h2><script src="https://example.com/a.js"></script><a href="c.html">4</a>')
    (tmp_path / "a.css").write_text('@font-face { src: url("https://example.com/f.woff2") }')
    assert site.broken(tmp_path) == [
        "a.html: b.html#y names a heading that is not there",
        "b.html: c.html is not there",
        "b.html: https://example.com/a.js is loaded from elsewhere",
        "a.css loads from elsewhere",
    ]


# The whole


@pytest.mark.slow
async def test_the_site_is_built_and_read_without_a_server(tmp_path: Path) -> None:
    """From the disk, with a search, on a small screen."""
    site.build(tmp_path, lambda command: _run(command, tmp_path))
    folder = tmp_path / "site"
    assert {name: found for name, found in _unread(folder).items() if found} == {}
    asked: list[str] = []
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = await chromium.new_page(viewport={"width": 390, "height": 844})
        page.on("request", lambda request: asked.append(request.url))
        await page.route("**/search.js", lambda route: route.abort())  # large, and not needed yet
        for name in sorted(folder.glob("*.html")):
            await page.goto(name.as_uri())
            assert await _widest(page) <= 390, f"{name.name} is wider than its screen"
        await page.unroute("**/search.js")
        await page.set_viewport_size({"width": 1280, "height": 900})
        await page.goto((folder / "concepts.html").as_uri())
        await expect(page.locator("figure.diagram svg")).to_have_count(2)
        await _finds(page, "idempotency", "Never twice")
        await chromium.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


class Words(HTMLParser):
    """The text of a page that is no code."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self._codes = 0
        self.text = ""
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._codes += tag in CODE

    def handle_endtag(self, tag: str) -> None:
        self._codes -= tag in CODE

    def handle_data(self, data: str) -> None:
        self.text += "" if self._codes else data


def _unread(folder: Path) -> dict[str, list[str]]:
    """Lists, tables and bold words that the generator took for text, by page."""
    marks = re.compile(r"^(?:\s*- |\d+\. |#+ |\|---).*|\*\*|`|\]\(", re.MULTILINE)
    return {str(page.relative_to(folder)): marks.findall(Words(page).text) for page in folder.rglob("*.html")}


def _run(command: list[str], cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


async def _widest(page: Page) -> int:
    width: int = await page.evaluate("document.documentElement.scrollWidth")
    return width


async def _finds(page: Page, words: str, title: str) -> None:
    """A search is typed by hand: what comes before the index is read is lost."""
    await expect(page.locator("iframe")).to_be_attached()
    await page.get_by_role("button", name="Search").first.click()
    field = page.get_by_role("combobox", name="Search")
    await expect(field).to_be_focused()

    async def found() -> bool:
        await field.fill(words)
        await field.press("Space")
        return await page.get_by_role("option").filter(has_text=title).count() > 0

    await eventually(found, 20)
