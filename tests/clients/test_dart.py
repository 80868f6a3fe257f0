"""The Dart client, as far as that goes without a Dart SDK: each file is read with a grammar, and what it says is
compared with the protocol. It is never run."""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tree_sitter import Node
from tree_sitter_language_pack import get_parser

from tests.support import ROOT

PACKAGE = ROOT / "clients/dart"
FILES = sorted(path for folder in ("lib", "bin") for path in (PACKAGE / folder).rglob("*.dart"))
VECTORS = json.loads((ROOT / "tests/vectors/protocol.json").read_text())
SDK = {"dart:async", "dart:collection", "dart:convert", "dart:io", "dart:math"}
SDK_MEMBERS = set(
    re.findall(
        r"\w+",
        """
    addAll cancel clear complete completeError compressionOff contains current decode decoder
    difference elapsed encode encodeQueryComponent entries every fold forEach
    fromMillisecondsSinceEpoch future handleError handleUncaughtError hasListener httpStatusCode
    ignore inMilliseconds indexWhere insertAll isActive isEmpty isNotEmpty isPaused keys length listen
    millisecondsSinceEpoch nextDouble nextInt nonNulls normalClosure normalize padLeft parse
    queryParameters remove removeAt removeFirst replace replaceAll round secure sink split start startsWith
    substring timeout toDouble toInt toList toRadixString transform values where writeln zero end
    """,
    )
)
DEPENDENCY = "package:web_socket_channel/web_socket_channel.dart"
IMPORT = re.compile(
    r"^(?:import|export) '([^']+)'(?: if \([^)]*\) '([^']+)')?(?: as \w+)?(?: show ([\w, ]+))?;$", re.MULTILINE
)


def source(name: str) -> str:
    return (PACKAGE / "lib/src" / name).read_text()


@functools.cache
def tree(path: Path) -> Node:
    return get_parser("dart").parse(path.read_bytes()).root_node


def walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from walk(child)


def words(node: Node, *kinds: str) -> set[str]:
    return {(each.text or b"").decode() for each in walk(node) if each.type in kinds}


def declarations(node: Node) -> set[str]:
    """Names that are declared anywhere in ``node``."""
    found = set()
    for each in walk(node):
        names = each.children_by_field_name("name")
        if each.type in ("static_final_declaration", "initialized_identifier", "factory_constructor_signature"):
            names = [child for child in each.children if child.type == "identifier"]
        elif each.type in ("type_alias", "typed_identifier"):
            names = [child for child in each.children if child.type in ("type_identifier", "identifier")]
        found |= {(name.text or b"").decode() for name in names}
    return found


def declared(path: Path) -> set[str]:
    """Names at the top level of a file that do not begin with an underscore."""
    found = set()
    for node in tree(path).children:
        names = node.children_by_field_name("name")
        if node.type in ("static_final_declaration_list", "initialized_identifier_list"):
            names = [child.children[0] for child in node.children if child.children]
        elif node.type == "type_alias":
            names = node.children[:2]
        found |= {(name.text or b"").decode() for name in names}
    return {name for name in found if not name.startswith("_") and name != "typedef"}


def target(path: Path, uri: str) -> Path:
    own = "package:tidegate_client/"
    return PACKAGE / "lib" / uri.removeprefix(own) if uri.startswith(own) else (path.parent / uri).resolve()


def offered(path: Path) -> set[str]:
    """What an import of ``path`` brings: its own names, and those that it exports."""
    names = declared(path)
    for line in re.findall(r"^export .*;$", path.read_text(), re.MULTILINE):
        names |= set(re.findall(r"\w+", line.partition(" show ")[2]))
    return names


def imports(path: Path) -> list[tuple[str, set[str] | None]]:
    """``(uri, names)`` of each import and export; None where it takes all names."""
    found: list[tuple[str, set[str] | None]] = []
    for first, second, shown in IMPORT.findall(path.read_text()):
        names = set(re.findall(r"\w+", shown)) or None
        found += [(uri, names) for uri in (first, second) if uri]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_parses(path: Path) -> None:
    root = tree(path)
    wrong = [(node.start_point.row + 1, node.text) for node in walk(root) if node.is_error or node.is_missing]
    assert (root.has_error, wrong) == (False, [])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_imported_is_there_and_is_used(path: Path) -> None:
    body = path.read_text()
    lines = [line for line in body.splitlines() if line.startswith(("import ", "export "))]
    assert len(lines) == len(IMPORT.findall(body)), "an import of another form"
    used = words(tree(path), "identifier", "type_identifier")
    for uri, names in imports(path):
        if uri in SDK or uri == DEPENDENCY:
            continue
        there = target(path, uri)
        assert there.exists(), uri
        if names:
            assert names <= declared(there), (uri, names - declared(there))
        else:
            assert used & (offered(there) | declarations(tree(there))), f"{uri} is not used"


def test_each_name_that_looks_like_ours_is_declared_or_imported() -> None:
    ours = {name for path in FILES for name in declared(path)}
    for path in FILES:
        known = declared(path)
        for uri, _ in imports(path):
            known |= offered(target(path, uri)) if uri not in SDK and uri != DEPENDENCY else set()
        types = {name for name in words(tree(path), "type_identifier") if name in ours}
        assert types <= known, (path.name, types - known)


def test_private_names_are_declared_in_their_file() -> None:
    for path in FILES:
        used = {name for name in words(tree(path), "identifier", "type_identifier") if re.match(r"_\w", name)}
        assert used <= declarations(tree(path)), (path.name, used - declarations(tree(path)))


def test_members_are_declared_somewhere_or_are_known_ones_of_the_sdk() -> None:
    everything = set().union(*(declarations(tree(path)) for path in FILES))
    selectors = ("unconditional_assignable_selector", "conditional_assignable_selector", "cascade_selector")
    for path in FILES:
        used = {name for node in walk(tree(path)) if node.type in selectors for name in words(node, "identifier")}
        assert used - everything - SDK_MEMBERS == set(), path.name


def table(name: str) -> dict[int, dict[str, Any]]:
    """A table of verdicts, as the vectors would say it."""
    body = re.search(rf"^const {name} = <int, Verdict>\{{\n((?:  .*\n)+)\}};", source("verdict.dart"), re.MULTILINE)
    assert body
    rows = re.findall(
        r"^  (\d+): Verdict\.(?:end\('(\w+)'\)|again\(Delay\.(\w+)(, token: true)?\)),", body[1], re.MULTILINE
    )
    assert len(rows) == body[1].count("\n")
    return {int(code): said(*rest) for code, *rest in rows}


def said(word: str, delay: str, token: str) -> dict[str, Any]:
    if word:
        return {"again": False}
    return {"again": True, "delay": delay} | ({"first": "token"} if token else {})


def test_each_close_code_means_what_the_protocol_says() -> None:
    closes = table("closes")
    match = re.search(r"changeFirstFrom = (\d+);", source("verdict.dart"))
    assert match
    for row in VECTORS["closes"]:
        code = row["code"]
        usual = said("code", "", "") if code >= int(match[1]) else said("", "growing", "")
        assert closes.get(code, usual) == {key: row[key] for key in row if key != "code"}, code


def test_each_refusal_means_what_the_protocol_says() -> None:
    refusals = table("refusals")
    for row in VECTORS["refusals"]:
        ours = refusals.get(row["status"], said("", "growing", ""))
        wanted = {key: row[key] for key in row if key != "status"}
        if wanted.get("delay") == "retry-after":  # dart:io does not tell the header
            wanted["delay"] = "longer" if row["status"] == 429 else "growing"
        assert ours == wanted, row["status"]


def test_the_words_of_an_end_are_those_of_all_clients() -> None:
    listed = re.search(r"^16\. \*\*Closed\.\*\* Words: (.*)$", (ROOT / "clients/README.md").read_text(), re.MULTILINE)
    assert listed
    words_of_all = set(re.findall(r"`(\w+)`", listed[1]))
    ends = re.findall(r"Verdict\.end\('(\w+)'\)", source("verdict.dart"))
    stops = re.findall(r"(?:_closeFor|const Reason)\('(\w+)'", source("tidegate.dart"))
    assert {*ends, *stops} == words_of_all - {"closed"}


def test_the_limits_are_those_of_the_protocol() -> None:
    position = source("position.dart")
    longest = max(len(row["cursor"]) for row in VECTORS["cursors"] if row["cursor"])
    assert longest <= 4096
    assert re.search(r"^const cursorLimit = 4096;", position, re.MULTILINE)
    assert re.search(r"^const targetLimit = 6144;", position, re.MULTILINE)
    assert "(bytes * 4 + 2) ~/ 3" in position
    for size in range(200):
        assert len(base64.urlsafe_b64encode(bytes(size)).rstrip(b"=")) == (size * 4 + 2) // 3
    protocol = (ROOT / "docs/protocol.md").read_text()
    for name, setting in (("messageBytes", "message_bytes"), ("dataBytes", "data_bytes")):
        limit = re.search(rf"^\| .* \| (\d+) bytes \|.*`{setting}` \|$", protocol, re.MULTILINE)
        assert limit
        assert f"int {name} = {limit[1]};" in source("commands.dart")


def test_the_options_and_their_defaults_are_those_of_all_clients() -> None:
    options = source("options.dart")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (.*?) \|", (ROOT / "clients/README.md").read_text(), re.MULTILINE)
    defaults = dict(rows[[name for name, _ in rows].index("`token`") :])
    assert re.search(r"this\.autoConnect = true,", options)
    for name in ("welcomeTimeout_s", "answerTimeout_s", "pongTimeout_s", "stable_s"):
        assert f"this.{name[:-2]} = const Duration(seconds: {defaults[f'`{name}`']})," in options
    assert f"this.queueLimit = {defaults['`queueLimit`']}," in options
    first, longest = json.loads(defaults["`backoff_s`"].strip("`"))
    assert f"this.firstDelay = const Duration(milliseconds: {first * 1000:.0f})," in options
    assert f"this.longestDelay = const Duration(seconds: {longest})," in options


def test_the_driver_takes_each_order() -> None:
    text = (ROOT / "clients/README.md").read_text()
    listed = text.partition("| to the driver | |")[2].partition("| from the driver | |")[0]
    orders = {order for group in re.findall(r'"do":((?:\\\||"\w+")+)', listed) for order in re.findall(r"\w+", group)}
    assert len(orders) == 18
    driver = (PACKAGE / "bin/driver.dart").read_text()
    assert {order for order in orders if f"'{order}'" not in driver} == set()
