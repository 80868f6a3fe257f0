"""Whatever settings are accepted, nginx starts with what is rendered from them: the extremes of every setting, made
from its definition, so that a new one is covered by itself; and random ones.

Values are put together, as many as are accepted beside each other, because starting nginx takes most of the time.
"""

from __future__ import annotations

import functools
import itertools
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec import inspect

from tests.edges.edge import NGINX, certificates, environ
from tidegate.config.endpoints import is_name
from tidegate.config.load import ConfigError, load
from tidegate.config.settings import Config
from tidegate.core.errors import Unusable
from tidegate.nginx import render

Value: TypeAlias = tuple[str, Any]  # a setting's name as in the environment, and what it is set to

FOLDERS = ("EDGE__RUN_DIR", "EDGE__TLS_DIR", "EDGE__ACCESS_LOG")  # nginx reads or writes there
# Known to the image's nginx alone, or not nginx's affair at all.
ELSEWHERE = ("EDGE__NGINX", "BROKER__URL", "AUTH__MODE", "GROUPS", "INTERNAL__API_KEYS")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short one: sockets lie in it."""
    return tmp_path_factory.mktemp("x")


def fields() -> Iterator[tuple[str, inspect.Type]]:
    info = inspect.type_info(Config)
    assert isinstance(info, inspect.StructType)
    for field in info.fields:
        if isinstance(field.type, inspect.StructType):
            yield from ((f"{field.name}__{inner.name}".upper(), inner.type) for inner in field.type.fields)
        else:
            yield field.name.upper(), field.type


def texts(folder: Path) -> list[str]:
    """Odd, and of every kind that a setting may want; each has those of them that it accepts."""
    base = f"{folder}/a@+=-_.b"
    long = [base + "/" + "c" * (size - len(base) - 1) for size in (90, 101, 107)]
    deep = base + ("/" + "d" * 199) * 10
    sockets = [f"unix:{path}"[:112] for path in (f"{folder}/s", *long)]
    paths = [f"{base}-", *long, *(deep[: size - 1] + "z" for size in (255, 1024, 2048, 4096))]
    hosts = [
        "localhost",
        "127.0.0.1",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[1:2:3:4:5:6:7::]",
        "[::1.2.3.4]",
    ]
    urls = [f"{scheme}://{host}" for scheme in ("http", "https") for host in ("localhost", "127.0.0.1", "[::1]")]
    words = [
        "",
        "a",
        "A",
        "0",
        "-",
        ".",
        "_",
        "off",
        "on",
        "auto",
        "default",
        "none",
        "stderr",
        "$a",
        '"',
        "'",
        "{",
        ";",
        "é",
    ]
    return [
        *words,
        *("w" * size for size in (64, 65, 90, 128, 129, 512, 1024, 4000, 5000)),
        "a.b-c_d",
        *(
            "/",
            "/a/",
            "/~._-/",
            "/a/.well-known/b/",
            "/.refused/400/",
            *(f"/{'p' * (size - 2)}/" for size in (1024, 4000)),
        ),
        *paths,
        *sockets,
        *hosts,
        *(host.strip("[]") for host in hosts),
        *(f"{host}:65535" for host in hosts),
        *(f"127.0.0.1:{port}" for port in (0, 1, 65536)),
        *("0.0.0.0/0", "::/0", "10.0.0.0/8", "10.0.0.0/33", "2001:db8::/32", "::1/128", "10.1/16"),
        *urls,
        *(f"{url}:65535/a/~.-_/b" for url in urls),
        *(f"{urls[0]}:{port}" for port in (0, 1, 65536)),
        f"http://127.0.0.1/{'u' * 1007}",
        f"http://127.0.0.1/{'u' * 4050}",
        "redis://127.0.0.1:6379/0",
    ]


MANY: list[Callable[[int], str]] = [
    lambda n: f"m{n}",
    lambda n: f"orders.create.{n:0100}",
    lambda n: f"10.{n >> 8}.{n & 255}.0/24",
    lambda n: f"10.0.{n >> 8}.{n & 255}:8000",
    lambda n: f"https://a{n}.example",
]


def is_accepted(values: dict[str, Any]) -> bool:
    try:
        load(None, environ(values))
    except ConfigError:
        return False
    return True


def is_refused_for(name: str, value: Any) -> bool:
    """By itself, not for what it contradicts."""
    try:
        render.includes(load(None, environ({name: value})))
    except Unusable:
        return True
    except ConfigError as exc:
        key = name.lower().replace("__", ".")
        return any(
            p.key.partition("[")[0] == key and "must be" in p.message and "must not" not in p.message
            for p in exc.problems
        )
    return False


def extremes(name: str, kind: inspect.Type, folder: Path) -> list[Any]:
    match kind:
        case inspect.Metadata(type=inner):
            return extremes(name, inner, folder)
        case inspect.BoolType():
            return [False, True]
        case inspect.IntType(ge=low, le=high) | inspect.FloatType(ge=low, le=high):
            return [low, high]
        case inspect.LiteralType(values=values):
            return list(values)
        case inspect.UnionType(types=types):
            return [
                "null",
                *(
                    value
                    for one in types
                    if not isinstance(one, inspect.NoneType)
                    for value in extremes(name, one, folder)
                ),
            ]
        case inspect.StrType():
            own = texts(folder / name[6])
            if name in FOLDERS:
                own = [text for text in own if text.startswith(str(folder))]
            if name == "EDGE__ADDRESS":  # a name is looked up by nginx, and not by `check`
                own = [text for text in own if not is_name(text.lower()) or text == "localhost"]
            return [text for text in own if not is_refused_for(name, text)]
        case inspect.ListType():
            items = [text for text in texts(folder) if not is_refused_for(name, [text])]
            runs = [[make(n) for n in range(count)] for make in MANY for count in (2, 30, 100, 1000)]
            return [value for value in [[], items, *runs] if not is_refused_for(name, value)]
    raise AssertionError(f"{name}: no extremes are known for {kind}")


def together(values: list[Value]) -> list[dict[str, Any]]:
    """The values, in as few sets as may be, each of which is accepted. What is accepted beside nothing is left out."""
    sets = []
    while values:
        one: dict[str, Any] = {}
        rest = values
        while True:  # what is refused now may be accepted beside what is added later
            before = len(one)
            left = []
            for name, value in rest:
                if name not in one and is_accepted({**one, name: value}):
                    one[name] = value
                else:
                    left.append((name, value))
            rest = left
            if len(one) == before:
                break
        if not one:
            break
        sets.append(one)
        values = rest
    return sets


def trial(folder: Path, values: dict[str, Any]) -> None:
    """Renders and asks nginx."""
    base = {
        "EDGE__RUN_DIR": f"{folder}/run",
        "EDGE__TLS_DIR": certificates(),
        "EDGE__ACCESS_LOG": f"{folder}/access.log",
    }
    config = load(None, environ(base | values))
    edge = config.edge
    for letter in "RTAIU":  # of EDGE__RUN_DIR and so on, for sockets too
        (folder / letter).mkdir(exist_ok=True)
    Path(edge.run_dir).mkdir(parents=True, exist_ok=True)
    Path(edge.access_log).parent.mkdir(parents=True, exist_ok=True)
    if edge.tls_dir != certificates():
        Path(edge.tls_dir).mkdir(parents=True, exist_ok=True)
        for name in ("fullchain.pem", "privkey.pem"):
            target = Path(edge.tls_dir) / name
            target.unlink(missing_ok=True)
            target.symlink_to(Path(certificates()) / name)
    render.write(config, folder / "edge")
    for variant in render.VARIANTS:
        file = folder / "edge/conf.d" / f"{variant}.conf"
        tested = subprocess.run([NGINX, "-t", "-e", "stderr", "-c", file], capture_output=True, text=True)
        # It also opens what it listens on, and this machine need not have the address, or the user the right.
        complaints = re.findall(r"^.*\[(?:warn|error|crit|alert|emerg)\](?!.*bind\(\)).*$", tested.stderr, re.MULTILINE)
        assert "syntax is ok" in tested.stderr, (variant, values, tested.stderr)
        assert complaints == [], (variant, values)


def of_nginx(name: str, values: list[Any]) -> list[Any]:
    """Those with which something else is rendered, and numbers that are accepted beside other values only."""
    known = [render.includes(Config())]
    found = []
    for value in values:
        try:
            text = render.includes(load(None, environ({name: value})))
        except ConfigError:
            found += [value] if isinstance(value, int | float) else []
            continue
        if text not in known:
            found.append(value)
            known.append(text)
    return found


@functools.cache
def values_of_nginx(folder: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, kind in fields():
        if name not in ELSEWHERE:
            values = extremes(name, kind, folder)
            assert len(values) >= 2, f"{name}: no extremes; add to `texts` or `MANY` what it takes"
            found[name] = of_nginx(name, values)
    return {name: values for name, values in found.items() if values}


def test_nginx_starts_with_the_extremes_of_every_setting(folder: Path) -> None:
    found = values_of_nginx(folder)
    assert len(found) > 40
    rounds = itertools.zip_longest(*([(name, value) for value in values] for name, values in found.items()))
    sets = together([value for one in rounds for value in one if value is not None])
    covered = {name for one in sets for name in one}
    assert {name for name in found if name.startswith("EDGE__")} <= covered, "never accepted"
    for one in sets:
        trial(folder, one)


@pytest.mark.slow
@given(data=st.data())
@hypothesis_settings(max_examples=100, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_nginx_starts_with_whatever_is_accepted(folder: Path, data: st.DataObject) -> None:
    found = values_of_nginx(folder)
    one: dict[str, Any] = {}
    for name in data.draw(st.permutations(sorted(found)), "in this order"):
        values = found[name]
        numbers = all(isinstance(value, int) for value in values) and len(values) == 2
        value = data.draw(st.integers(*values) if numbers else st.sampled_from(values), name)
        if is_accepted({**one, name: value}):
            one[name] = value
    trial(folder, one)
