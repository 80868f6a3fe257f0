"""The documents lead somewhere: each link and each file that they name is there."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import tidegate
from tests.support import ROOT

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_TEST = re.compile(r"(?:clients/\w+/)?tests/[\w/]+\.(?:py|json|js)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def _documents() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split() if "results/" not in name]


def _anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in _HEADING.findall(text)}


@pytest.mark.parametrize("document", _documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_named_tests_are_there(document: Path) -> None:
    text = document.read_text()
    for link in _LINK.findall(text):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in _anchors(target.read_text()), f"{link}: there is no such heading"
    assert not re.findall(r"^[A-Z_]{6,}$", text, re.MULTILINE), "a row that was to be filled in"
    for name in _TEST.findall(text):
        assert (ROOT / name).exists(), f"{name} is not there"


@pytest.mark.parametrize("name", ["README.md", "README.ru.md"])
def test_the_readme_is_a_page_not_a_manual(name: str) -> None:
    assert len((ROOT / name).read_text().split()) <= 1000


# A release


def test_the_newest_release_of_the_changelog_is_the_version() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d{2}-\d{2}", heading) for heading in released), released
    assert released[0].partition(" ")[0] == tidegate.__version__
    dates = [heading.rpartition(" ")[2] for heading in released]
    assert dates == sorted(dates, reverse=True)


def test_the_groups_of_the_changelog_are_the_four_in_their_order() -> None:
    groups = ["Breaking", "Added", "Changed", "Fixed"]
    for release in (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1:]:
        named = re.findall(r"^### (.*)$", release, re.MULTILINE)
        assert named == [group for group in groups if group in named], release.partition("\n")[0]
        entries = re.findall(r"^- .*(?:\n  .*)*", release, re.MULTILINE)
        assert entries
        assert len(set(entries)) == len(entries)


def test_the_image_says_what_the_package_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', (ROOT / "Dockerfile").read_text()))
    assert labels == {
        "title": project["name"].capitalize(),
        "description": project["description"],
        "version": tidegate.__version__,
        "licenses": project["license"],
        "source": "${SOURCE}",
    }


def test_all_that_is_released_together_has_one_version() -> None:
    """What says one, to people or to tools; ``tidegate_build_info`` and ``--version`` are made of ``__version__``."""
    said = {
        "clients/python/pyproject.toml": r'^version = "(.*)"$',
        "clients/python/tidegate_client/__init__.py": r'^__version__ = "(.*)"$',
        "clients/js/package.json": r'^  "version": "(.*)",$',
        "deploy/helm/tidegate/Chart.yaml": r"^appVersion: (.*)$",
        "README.md": r"^Tidegate (\S+) runs\.",
        "README.ru.md": r"^Tidegate (\S+) runs\.",
        "docs/clients.md": r"tidegate-client-(\d\S*)\.tgz",
        "docs/quickstart.md": r"tidegate-client-(\d\S*)\.tgz",
        "docs/quickstart.ru.md": r"tidegate-client-(\d\S*)\.tgz",
        "docs/deploying.md": r"tidegate:(\d\S*) ",
    }
    found = {name: set(re.findall(line, (ROOT / name).read_text(), re.MULTILINE)) for name, line in said.items()}
    assert found == {name: {tidegate.__version__} for name in said}


# Packages


def _listed() -> dict[str, set[str]]:
    """The modules that docs/design.md lists for each package; those above the packages stand in some row of theirs."""
    table = (ROOT / "docs/design.md").read_text().split("| package |")[1].split("\n\n")[0]
    listed: dict[str, set[str]] = {}
    package = ""
    for row in table.splitlines()[2:]:
        name, modules, _ = (cell.strip() for cell in row.strip("|").split("|"))
        package = name.strip("`") or package
        listed.setdefault(package, set()).update(re.findall(r"`([\w*]+)`", modules))
    return listed


def test_the_table_of_packages_names_the_modules_that_there_are() -> None:
    source = ROOT / "service/tidegate"
    above = {path.stem.strip("_") for path in source.glob("*.py")} - {"init"}
    listed = _listed()
    assert above - {"main"} <= set().union(*listed.values())
    for package, names in listed.items():
        modules = {path.stem for path in (source / package.replace(".", "/")).glob("*.py")} - {"__init__"}
        assert modules, f"there is no package {package}"
        for name in names - above:
            assert any(fnmatch.fnmatch(module, name) for module in modules), f"{package} has no module {name}"
