"""How an nginx configuration is read: includes, circles, other people's text, and a dump that must stay by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tidegate.nginx import files as nginx_files
from tidegate.nginx.files import Block, NginxError, read, read_dump


def dump(**files: str) -> str:
    """As ``nginx -T`` prints files; ``a__b`` is /etc/nginx/a/b.conf."""
    return "".join(
        f"# configuration file /etc/nginx/{name.replace('__', '/')}.conf:\n{text}\n" for name, text in files.items()
    )


def directives(block: Block) -> list[str]:
    """Each with its place."""
    return [f"{child.where} {child.name} {' '.join(child.args)}" for child in block.children]


# Includes


def test_files_are_put_in_the_place_of_their_includes(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    for name in ("b", "a"):
        (tmp_path / f"conf.d/{name}.conf").write_text(f"user {name};")
    (tmp_path / "nginx.conf").write_text("include conf.d/*.conf;\npid x;\ninclude none/*.conf;")
    assert directives(read(str(tmp_path / "nginx.conf"))) == [
        f"{tmp_path}/conf.d/a.conf:1 user a",
        f"{tmp_path}/conf.d/b.conf:1 user b",
        f"{tmp_path}/nginx.conf:2 pid x",
    ]


@pytest.mark.parametrize(
    "pattern",
    [
        "conf.d/*.conf",
        "/etc/nginx/conf.d/*.conf",
        '"/etc/nginx/conf.d/[ab].conf"',
        "'/etc/nginx/conf.d/?.conf'",
        "/etc/nginx/../nginx/./conf.d/*.conf",
    ],
)
def test_a_dump_is_joined_in_the_same_way(pattern: str) -> None:
    text = dump(nginx=f"include {pattern};\npid x;", conf=";"[:0], **{"conf.d__b": "user b;", "conf.d__a": "user a;"})
    assert directives(read_dump(text)) == [
        "/etc/nginx/conf.d/a.conf:1 user a",
        "/etc/nginx/conf.d/b.conf:1 user b",
        "/etc/nginx/nginx.conf:2 pid x",
    ]


@pytest.mark.parametrize("quote", ["", '"', "'"])
@pytest.mark.parametrize("way", ["{path}", "../../../../../../..{path}", "/etc/nginx/../..{path}"])
def test_a_dump_reads_no_file_of_this_machine(quote: str, way: str, tmp_path: Path) -> None:
    secret = tmp_path / "here.conf"
    secret.write_text("user of-this-machine;")
    path = way.format(path=secret)
    with pytest.raises(NginxError, match=r"/etc/nginx/nginx\.conf:1: includes .*, which the dump does not have"):
        read_dump(dump(nginx=f"include {quote}{path}{quote};"))
    assert directives(read_dump(dump(nginx=f"include {quote}{path[:-1]}*{quote};"))) == []


# Circles


def test_a_file_that_includes_itself_is_named(tmp_path: Path) -> None:
    file = tmp_path / "nginx.conf"
    for pattern in (file, "nginx.conf", "*.conf"):
        file.write_text(f"pid x;\nhttp {{\n    include {pattern};\n}}\n")
        with pytest.raises(NginxError, match=rf"^{file}:3: includes {file}, which is being read: a circle"):
            read(str(file))
    with pytest.raises(NginxError, match=r"^/etc/nginx/nginx\.conf:1: includes /etc/nginx/nginx\.conf, which is being"):
        read_dump(dump(nginx="include *.conf;"))


def test_files_that_include_each_other_are_named() -> None:
    with pytest.raises(NginxError, match=r"^/etc/nginx/b\.conf:1: includes /etc/nginx/a\.conf, which is being read"):
        read_dump(dump(nginx="include a.conf;", a="include b.conf;", b="include a.conf;"))


def test_a_file_may_be_included_twice() -> None:
    assert len(directives(read_dump(dump(nginx="include a.conf; include a.conf;", a="user a;")))) == 2


def test_includes_that_double_at_each_step_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx_files, "DIRECTIVES", 1000)
    files = {f"f{n}": f"include f{n + 1}.conf;" * 2 for n in range(40)}
    with pytest.raises(NginxError, match="is more than 1000 directives, with what it includes"):
        read_dump(dump(**files, f40="user x;"))


@pytest.mark.parametrize("depth", [100, 300, 450, 600, 900, 2000])
def test_blocks_that_are_nested_too_deeply_are_refused_in_words(depth: int, tmp_path: Path) -> None:
    file = tmp_path / "nginx.conf"
    file.write_text("a{" * depth + "}" * depth)
    said = ""
    try:
        read(str(file))
    except NginxError as exc:
        said = str(exc)
    assert said in ("", f"{file}: blocks are nested too deeply")
    assert (said == "") if depth == 100 else (depth < 2000 or said != "")


def test_includes_that_are_nested_too_deeply_are_refused_in_words() -> None:
    with pytest.raises(NginxError, match=r"/f100\.conf:1: includes are nested too deeply"):
        read_dump(dump(**{f"f{n}": f"include f{n + 1}.conf;" for n in range(110)}, f110="a;"))


# Text that is not ASCII, and places where nothing else can be said


@pytest.mark.parametrize("text", ["caf\u00e9".encode(), b"caf\xe9"], ids=["utf-8", "latin-1"])
def test_text_that_is_not_ascii_is_read_in_a_locale_that_is(text: bytes, tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"\xe9.conf")
    file.write_bytes(b"# %b\nhttp { server_name %b; }" % (text, text))
    printed = b"# configuration file /etc/\xe9.conf:\n" + file.read_bytes()
    env = {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONPATH": f"{ROOT}/service",
    }
    check = [sys.executable, "-m", "tidegate", "check", "--nginx", str(file), "--nginx-dump", "-"]
    said = subprocess.run(check, cwd=ROOT, input=printed, capture_output=True, env=env)
    assert (said.returncode, said.stderr) == (1, b"")
    assert said.stdout.isascii()
    assert b"nginx: not ok" in said.stdout
    said = subprocess.run([*check, "--json"], cwd=ROOT, input=printed, capture_output=True, env=env)
    assert json.loads(said.stdout)["ok"] is False


# The text of one file


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b  c;", ["a b c"]),
        ("a \"b; {c}\" 'd # e';", ["a b; {c} d # e"]),
        ("a #b\n c; #d;\n", ["a c"]),
        (r'a "b\"c" d\;e "\t\d";', ['a b"c d\\;e \t\\d']),
        ("a ${b}c{ d e}; }", ["a ${b}c"]),
        ('if ($a = "b") { c; }', ["if ($a = b )"]),
        ("a b#c;", ["a b#c"]),
        ("a_by_lua_block {\n local b = {{1}, '}'} -- }\n c = [[ } ]]\n}\nd;", ["a_by_lua_block", "d"]),
        ("map $a $b { '' x; \"~^c{2}$\" y; default z; }", ["map $a $b"]),
    ],
)
def test_words_are_those_of_nginx(text: str, words: list[str], tmp_path: Path) -> None:
    file = tmp_path / "nginx.conf"
    file.write_text(text)
    found = read(str(file)).children
    assert [child.words for child in found] == words
    assert found[-1].line == text.count("\n") + 1 - text.endswith("\n") or "#d" in text


@pytest.mark.parametrize("text", ["a {", "a", "}", ";", "{ }", 'a "b;', "a { b }", "a_by_lua_block { '", "a 'b'; }"])
def test_what_is_no_configuration_is_refused_in_words(text: str, tmp_path: Path) -> None:
    file = tmp_path / "nginx.conf"
    file.write_text(text)
    with pytest.raises(NginxError, match=r"nginx\.conf.*unexpected"):
        read(str(file))
