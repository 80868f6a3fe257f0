"""``check`` refuses what ``serve``, ``render`` and nginx refuse, by key, value and cure, and says what is missing."""

from __future__ import annotations

import base64
import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.edges.edge import environ
from tests.support import ROOT
from tests.tokens import SECRET, b64, jwk, private_pem, public_pem
from tidegate.app import App
from tidegate.check import check
from tidegate.config import load as configuration
from tidegate.config.load import ConfigError, Problem, load
from tidegate.config.settings import Config
from tidegate.core.errors import Unusable


def problems(**settings: object) -> list[Problem]:
    """Why ``check`` refuses them."""
    try:
        found = load(None, environ(settings))
    except ConfigError as exc:
        return exc.problems
    return check(found)[0]


def warnings(**settings: object) -> list[str]:
    """Of what it warns, while it is content."""
    refused, found = check(load(None, environ(settings)))
    assert refused == []
    return found


def starts(config: Config) -> str:
    """What a node would say that is built from it; empty where it has nothing to say."""
    try:
        App(config)
    except Unusable as exc:
        return str(configuration.problem(config, exc))
    return ""


# Keys: the setting, the algorithm, what the file or the variable holds, and words of what is wrong and what to do

KEYS: dict[str, tuple[str, str, bytes, str]] = {
    "secret-short": (
        "KEY_FILE",
        "HS256",
        b"x" * 31,
        "at least 32 bytes for auth.algorithm HS256, and has 31; `openssl",
    ),
    "secret-empty": ("KEY_FILE", "HS256", b"", "and has 0; `openssl rand -hex 32` makes one"),
    "secret-blank": ("KEY", "HS256", b" " * 32, "easy to guess"),
    "secret-public": ("KEY", "HS256", public_pem("RS256"), "set auth.algorithm to the key's"),
    "secret-base64": ("KEY", "HS256", b64(public_pem("RS256")).encode(), "set auth.algorithm to the key's"),
    "no-pem": ("KEY", "RS256", SECRET.encode(), "-----BEGIN PUBLIC KEY-----"),
    "no-pem-in-file": ("KEY_FILE", "EdDSA", b"\xff\x00", "-----BEGIN PUBLIC KEY-----"),
    "cut-pem": ("KEY_FILE", "RS256", public_pem("RS256")[:90], "-----BEGIN PUBLIC KEY-----"),
    "line-breaks-lost": ("KEY", "RS256", public_pem("RS256").replace(b"\n", b"\\n"), "base64 in lines"),
    "of-another-kind": ("KEY", "RS256", public_pem("ES256"), "an RSA key of at least 2048 bits"),
    "too-weak": ("KEY_FILE", "RS256", public_pem("RS256 short"), "an RSA key of at least 2048 bits"),
    "another-curve": ("KEY_FILE", "ES256", public_pem("ES384"), "on the curve P-256"),
    "encrypted": ("KEY_FILE", "RS256", private_pem("RS256", password=b"x"), "give the public key"),
    "no-json": ("JWKS_FILE", "RS256", b"{", "not a JSON Web Key Set"),
    "no-set": ("JWKS_FILE", "RS256", json.dumps(jwk("RS256")).encode(), "not a JSON Web Key Set"),
    "no-key": ("JWKS_FILE", "RS256", b'{"keys":[]}', "holds no key for RS256"),
    "key-for-another": ("JWKS_FILE", "RS256", json.dumps({"keys": [jwk("ES256")]}).encode(), "holds no key for RS256"),
    "only-weak": ("JWKS_FILE", "RS256", json.dumps({"keys": [jwk("RS256 short")]}).encode(), "at least 2048 bits"),
    "only-malformed": (
        "JWKS_FILE",
        "RS256",
        json.dumps({"keys": [jwk("RS256", n=None)]}).encode(),
        "key 1 is malformed",
    ),
    "pem-for-set": ("JWKS_FILE", "RS256", public_pem("RS256"), "not a JSON Web Key Set"),
}


@pytest.mark.parametrize(("name", "algorithm", "data", "words"), KEYS.values(), ids=KEYS)
def test_a_key_with_which_nothing_starts_is_refused(
    name: str, algorithm: str, data: bytes, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_bytes(data)
    value = data.decode() if name == "KEY" else str(file)
    settings = {"AUTH__MODE": "jwt", "AUTH__ALGORITHM": algorithm, f"AUTH__{name}": value}
    (problem,) = problems(**settings)
    assert problem.key == f"auth.{name.lower()}"
    assert problem.value == ('"***"' if name == "KEY" else f'"{file}"')
    assert words in problem.message
    assert starts(load(None, environ(settings))) == str(problem)


REDIS = [
    "redis://:pa[ss@h:1/0",
    "redis://h:99999",
    "redis://:s3cret#x@h:1",
    "redis://[::1::2]:1",
    "redis://h?socket_timeout=abc",
    "redis://h?retry=3",
    "rediss://h?ssl_cert_reqs=zzz",
    "redis+sentinel://:s3cr[t@a:1/n",
    "redis+sentinel://a:99999/n",
    "redis+sentinel://[::1:2/n",
    "redis+sentinel://a:1,,b:2/n",
    "redis+sentinel://a:1/n?db=x",
]


@pytest.mark.parametrize("url", REDIS)
def test_a_url_of_redis_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    settings = {"BROKER__KIND": "redis", "BROKER__URL": url}
    (problem,) = problems(**settings)
    assert problem.key == "broker.url"
    assert re.search(r"percent-encoded|Invalid value for '", problem.message)
    assert "s3cr" not in str(problem)
    with_config = load(None, environ(settings)) if "#" not in url else None
    assert with_config is None or starts(with_config) == str(problem)


@pytest.mark.parametrize("url", ["redis://h/0?nope=1", "redis+sentinel://h/n?nope=1"])
def test_an_option_of_redis_that_is_not_known_is_named(url: str) -> None:
    (problem,) = problems(BROKER__KIND="redis", BROKER__URL=url)
    assert (problem.key, problem.message) == ("broker.url", "unknown option nope; take it out")


# Addresses: what one writes, and the words of what is allowed

LONG = f"unix:/{'a' * 107}"
VALUES: list[tuple[str, Any, str]] = [
    ("CALLS__URL", "http://app:99999", "the port from 1 to 65535"),
    ("CALLS__URL", "http://app:0", "the port from 1 to 65535"),
    ("CALLS__URL", "http://[::1::2]:80", "http://host[:port][/path]"),
    ("CALLS__URL", "http://[1]", "http://host[:port][/path]"),
    ("CALLS__URL", "http://1.2.3", "http://host[:port][/path]"),
    ("CALLS__URL", "http://a/../b", "http://host[:port][/path]"),
    ("CALLS__URL", f"http://a/{'b' * 1024}", "up to 1024 characters"),
    ("CALLS__ALLOW", ["echo", "echo"], "none of them twice"),
    ("CALLS__ALLOW", ["a" * 129], "up to 128 characters"),
    ("CALLS__ALLOW", [f"orders.create{n}" for n in range(2000)], "allow fewer methods, or shorter ones"),
    ("SERVER__HOSTS", ["[1::2::3]"], "IPv6 in brackets"),
    ("SERVER__HOSTS", ["999.1.1.1"], "a host name or address"),
    ("SERVER__HOSTS", ["a..b"], "a host name or address"),
    ("INTERNAL__HOSTS", ["a" * 64], "a host name or address"),
    ("ORIGINS", ["https://app.example:99999"], "scheme://host[:port]"),
    ("ORIGINS", ["https://[::g]"], "scheme://host[:port]"),
    ("INTERNAL__CORS_ORIGINS", ["https://a..b"], "scheme://host[:port]"),
    ("SERVER__ADDRESS", "127.0.0.1:8000", "without a port"),
    ("SERVER__ADDRESS", "999.1.1.1", "an IP address"),
    ("INTERNAL__ADDRESS", "1:2", "without a port"),
    ("SERVER__PATH", f"/{'a' * 4100}/", "up to 1024 characters"),
    ("SERVER__PATH", "/.refused/404/", "not under /.refused/"),
    ("AUTH__ISSUER", "https://id.example\n", "without blanks at its ends"),
    ("AUTH__AUDIENCE", " push", "without blanks at its ends"),
    ("AUTH__JWKS_FILE", "/run/keys.json\n", "without blanks at its ends"),
    ("EDGE__CONNECTIONS_PER_ADDRESS", 65536, "from 1 to 65535"),
    ("EDGE__HANDSHAKES_BURST", 0, "from 1 to"),
    ("EDGE__UPSTREAMS", ["a:0"], "the port from 1 to 65535"),
    ("EDGE__UPSTREAMS", ["a:99999"], "the port from 1 to 65535"),
    ("EDGE__UPSTREAMS", ["a..b:80"], "host:port"),
    ("EDGE__UPSTREAMS", ["999.1.1.1:80"], "host:port"),
    ("EDGE__UPSTREAMS", ["unix:/a{b"], "unix:/path of A-Z"),
    ("EDGE__UPSTREAMS", ['unix:/a"b'], "unix:/path of A-Z"),
    ("EDGE__UPSTREAMS", ["unix:/a\\b"], "unix:/path of A-Z"),
    ("EDGE__UPSTREAMS", [LONG], "up to 107 characters"),
    ("EDGE__UPSTREAMS", ["unix:/run/../a"], "without . and .. and //"),
    ("EDGE__UPSTREAMS", ["unix:/run/"], "without . and .. and //"),
    ("EDGE__UPSTREAMS", ["unix:run/a"], "unix:/path of A-Z"),
    ("EDGE__UPSTREAMS", ["a:1", "unix:/run/tidegate/node-12.sock"], "where an edge listens itself, in edge.run_dir"),
    ("SERVER__SOCKET", LONG.removeprefix("unix:"), "up to 107 characters"),
    ("SERVER__SOCKET", "run/node.sock", "the absolute path of a file"),
    ("SERVER__SOCKET", "unix:/run/node.sock", "the absolute path of a file"),
    ("SERVER__SOCKET", "/run//node.sock", "without . and .. and //"),
    ("SERVER__SOCKET", "/run/", "without . and .. and //"),
    ("SERVER__SOCKET", "//", "without . and .. and //"),
    ("SERVER__SOCKET", "/run/a b", "of A-Z a-z 0-9"),
    ("SERVER__SOCKET", "/run/tidegate/behind.sock", "where an edge listens itself, in edge.run_dir"),
    ("SERVER__SOCKET_MODE", "0777", "one of 0600, 0660, 0666"),
    ("SERVER__SOCKET_MODE", "660", "one of 0600, 0660, 0666"),
    ("SERVER__SOCKET_GROUP", "www data", "the name of a group"),
    ("EDGE__UPSTREAMS", ["a:1", "a:1"], "none of them twice"),
    ("EDGE__UPSTREAMS", [f"a:{n + 1}" for n in range(101)], "a list of 1 to 100"),
    ("EDGE__RESOLVER", "127.0.0.11:99999", "the port from 1 to 65535"),
    ("EDGE__RESOLVER", "127.0.0.11", "host:port"),
    ("EDGE__RESOLVER", "unix:/run/dns", "host:port"),
    ("EDGE__INTERNAL", "127.0.0.1:0", "the port from 1 to 65535"),
    ("EDGE__INTERNAL", "127.0.0.1:99999", "the port from 1 to 65535"),
    ("EDGE__INTERNAL", LONG, "up to 107 characters"),
    ("EDGE__TRUSTED_PROXIES", ["10.0.0.0/99"], "a network such as 10.0.0.0/8"),
    ("EDGE__TRUSTED_PROXIES", ["abc"], "a network such as 10.0.0.0/8"),
    ("EDGE__TRUSTED_PROXIES", ["1.2.3"], "a network such as 10.0.0.0/8"),
    ("EDGE__ADDRESS", "127.0.0.1:8080", "without a port"),
    ("EDGE__TLS_PORT", 8080, "must differ from edge.port (127.0.0.1:8080)"),
    ("EDGE__INTERNAL", "127.0.0.1:8080", "must differ from edge.port (127.0.0.1:8080)"),
    ("EDGE__INTERNAL", "0.0.0.0:8443", "must differ from edge.tls_port (127.0.0.1:8443)"),
    ("EDGE__INTERNAL", "localhost:8080", "must differ from edge.port (127.0.0.1:8080)"),
    ("EDGE__CALLS_PORT", 8080, "must differ from edge.port (127.0.0.1:8080)"),
    ("EDGE__CALLS_PORT", 8443, "must differ from edge.tls_port (127.0.0.1:8443)"),
    ("EDGE__CALLS_PORT", 8081, "must differ from edge.internal (127.0.0.1:8081)"),
    ("EDGE__INTERNAL", "127.0.0.1:8000", "must not be one of edge.upstreams"),
    ("EDGE__ACCESS_LOG", "off", "without a log /dev/null"),
    ("EDGE__ACCESS_LOG", "a" * 1025, "up to 1024 characters"),
    ("EDGE__WORKER_CONNECTIONS", 20001, "must not be above edge.nofile (20000)"),
    ("EDGE__WORKERS", 513, "from 1 to 512"),
]


@pytest.mark.parametrize(("name", "value", "words"), VALUES)
def test_what_serve_or_nginx_would_refuse_is_refused_with_key_and_cure(name: str, value: Any, words: str) -> None:
    key = name.lower().replace("__", ".")
    (problem,) = problems(**{name: value})
    assert problem.key.partition("[")[0] == key
    assert problem.value
    assert words in problem.message


def test_a_socket_of_the_service_is_not_the_edges_too() -> None:
    (problem,) = problems(SERVER__SOCKET="/run/a.sock", EDGE__INTERNAL="unix:/run/a.sock")
    assert (problem.key, problem.value) == ("edge.internal", '"unix:/run/a.sock"')
    assert "must not be server.socket" in problem.message


@pytest.mark.parametrize("text", ["012", "1:30", "0x1F90", "0o12", "1:30:00", "08", "+", "1__", "8000.0"])
def test_a_number_that_is_read_in_more_than_one_way_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"server: {{port: {text}}}\n")
    with pytest.raises(ConfigError, match=r"server\.port = .*: must be a whole number from 0 to 65535"):
        load(str(tmp_path / "c.yaml"), {})


@pytest.mark.parametrize(
    ("text", "seconds"), [("7", 7), ("0.5", 0.5), (".5", 0.5), ("5.", 5.0), ("1e2", 100.0), ("1_0", 10)]
)
def test_a_number_that_is_read_in_one_way_is_taken(text: str, seconds: float, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"server: {{drain_s: {text}}}\n")
    assert load(str(tmp_path / "c.yaml"), {}).server.drain_s == seconds


# Anything at all may stand in a file


ODD = [
    'auth: {leeway_s: "\\ud800"}',
    'auth: {leeway_s: ["\\ud800"]}',
    'calls: {allow: ["echo", "\\ud800"]}',
    'limits: {connections: "\\udfff1"}',
    'groups: {"\\ud800": {}}',
    'groups: {"a\\nb": {}}',
    '"\\ud801": 3',
    '"\\e[2J": 3',
    'server: {"a\\nb\\0": 1}',
    'origins: ["\\ud800"]',
    'log: {level: "\\ud800"}',
    'edge: {resolver: "\\ud800"}',
    'broker: {url: "\\ud800"}',
    "{? [1, 2] : 3}",
    "server: {port: 2026-01-01}",
]


@pytest.mark.parametrize("json_too", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_what_is_refused_is_said_in_one_printable_line(json_too: list[str], encoding: str, tmp_path: Path) -> None:
    """All of them in one program, as starting one takes longer."""
    files = []
    for number, text in enumerate(ODD):
        (tmp_path / f"{number}.yaml").write_text(text)
        files.append(str(tmp_path / f"{number}.yaml"))
    program = (
        "import sys; from tidegate.cli.main import main\n"
        "flags, files = sys.argv[1].split(), sys.argv[2:]\n"
        "for file in files:\n"
        "    sys.argv[1:] = ['--config', file, 'check', *flags]\n"
        "    assert main() == 1, file\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", program, " ".join(json_too), *files],
        cwd=ROOT,
        capture_output=True,
        env={"PYTHONIOENCODING": encoding, "PATH": "/usr/bin", "PYTHONPATH": str(ROOT / "service")},
    )
    assert said.returncode == 0, said.stderr.decode()
    lines = (said.stdout if json_too else said.stderr).decode(encoding).splitlines()
    assert len(lines) >= len(ODD)  # some have two
    assert all(line.isprintable() for line in lines)


# What others put into the environment


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (f"TIDEGATE_{service}{name}", value)
        for service in ("", "INTERNAL_", "MY_SERVER_2_", "EDGE_")
        for name, value in (
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT", "8001"),
            ("SERVICE_PORT_HTTP", "8001"),
            ("PORT", "tcp://10.0.0.1:8001"),
            ("PORT_8001_TCP", "tcp://10.0.0.1:8001"),
            ("PORT_8001_TCP_PROTO", "tcp"),
            ("PORT_8001_TCP_PORT", "8001"),
            ("PORT_8001_TCP_ADDR", "10.0.0.1"),
            ("PORT_53_UDP", "udp://10.0.0.1:53"),
        )
    ],
)
def test_a_variable_that_kubernetes_sets_comes_with_the_way_to_stop_it(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {name: value})
    (problem,) = caught.value.problems
    assert problem.key == name
    assert "enableServiceLinks: false" in problem.message
    assert "did you mean" not in problem.message


# What is missing here


def _listed(found: list[str], *keys: str) -> list[str]:
    return [line for line in found if any(key in line for key in keys)]


@pytest.mark.parametrize("name", ["key_file", "jwks_file"])
def test_a_file_that_is_missing_is_a_warning_and_what_else_is_wrong_is_found_all_the_same(name: str) -> None:
    settings = {"AUTH__MODE": "jwt", f"AUTH__{name.upper()}": "/run/none/key"}
    (line,) = _listed(warnings(**settings), "auth")
    assert line == (
        f'on this machine auth.{name} = "/run/none/key": cannot read /run/none/key: No such file or directory'
    )
    assert "cannot read" in starts(load(None, environ(settings))), "serve needs it"
    (problem,) = problems(**settings, BROKER__KIND="redis", BROKER__URL="redis://h:99999")
    assert problem.key == "broker.url"


def test_files_of_several_keys_are_looked_for_too(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("0123456789abcdef")
    missing = {"name": "crm", "key_file": "/run/none/key"}
    (line,) = _listed(warnings(INTERNAL__API_KEYS=[missing]), "api_keys")
    assert "internal.api_keys[0]" in line
    assert "cannot read /run/none/key" in line
    (line,) = _listed(warnings(AUTH__MODE="jwt", AUTH__KEYS=[{"kid": "a", "key_file": "/run/none/key"}]), "auth")
    assert "auth.keys[0]" in line
    twice = [{"name": name, "key_file": str(file)} for name in ("crm", "erp")]
    (problem,) = problems(INTERNAL__API_KEYS=twice)
    assert "stands twice" in problem.message
    assert "0123456789abcdef" not in str(problem)


def test_what_forwards_events_is_built_too(tmp_path: Path) -> None:
    events = {"BROKER__KIND": "redis", "EVENTS__ENABLED": True, "EVENTS__URL": "http://127.0.0.1:9000/events"}
    (line,) = _listed(warnings(**events), "events")
    assert "on this machine events.key = null: is needed to forward events" in line, "nodes need none"
    file = tmp_path / "key"
    file.write_text("short")
    (problem,) = problems(**events, EVENTS__KEY_FILE=str(file))
    assert problem.key == "events.key_file"
    file.write_text("0123456789abcdef\n")
    assert _listed(warnings(**events, EVENTS__KEY_FILE=str(file)), "events") == []


def test_a_key_of_a_set_that_is_left_out_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [jwk("ES256", kid="a"), jwk("ES256", kid="a")]}))
    found = warnings(AUTH__MODE="jwt", AUTH__ALGORITHM="ES256", AUTH__JWKS_FILE=str(file))
    assert "auth.jwks_file: key 2 ('a') has the kid of another before it" in found


def test_a_port_that_is_taken_is_a_warning() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (line,) = _listed(warnings(SERVER__PORT=port, INTERNAL__PORT=0), "port")
        assert line == f"on this machine server.port = {port}: 127.0.0.1 is taken, perhaps by a running gateway"
        (line,) = _listed(warnings(SERVER__PORT=0, INTERNAL__PORT=port), "port")
        assert "internal.port" in line
    assert _listed(warnings(SERVER__PORT=0, INTERNAL__PORT=0, SERVER__ADDRESS="localhost"), "port") == []


def test_a_socket_that_cannot_be_listened_on_here_is_a_warning(tmp_path: Path) -> None:
    settings = {"SERVER__PORT": 0, "INTERNAL__PORT": 0}
    path = tmp_path / "node.sock"
    assert _listed(warnings(**settings, SERVER__SOCKET=str(path)), "socket") == []
    (line,) = _listed(warnings(**settings, SERVER__SOCKET=str(tmp_path / "none/node.sock")), "socket")
    assert line == (f"on this machine server.socket = {tmp_path}/none/node.sock: there is no folder {tmp_path}/none")
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        assert _listed(warnings(**settings, SERVER__SOCKET=str(path)), "socket") == [], "as if left behind"
        taken.listen()
        (line,) = _listed(warnings(**settings, SERVER__SOCKET=str(path)), "socket")
        assert "another process listens there" in line
    path.unlink()
    path.mkdir()
    (line,) = _listed(warnings(**settings, SERVER__SOCKET=str(path), SERVER__SOCKET_GROUP="0"), "socket")
    assert "what is there is no Unix socket" in line
    path.rmdir()
    (line,) = _listed(warnings(**settings, SERVER__SOCKET=str(path), SERVER__SOCKET_GROUP="no-such"), "socket")
    assert line == "on this machine server.socket_group = no-such: there is no group no-such"


def test_an_edge_that_goes_to_a_socket_of_others_alone_is_a_warning() -> None:
    edge = {"EDGE__UPSTREAMS": ["a:1", "unix:/run/a.sock"]}
    (line,) = _listed(warnings(**edge), "upstreams")
    assert line == "edge.upstreams: none of its sockets (/run/a.sock) is this node's: server.socket is not set"
    (line,) = _listed(warnings(**edge, SERVER__SOCKET="/run/b.sock"), "upstreams")
    assert line.endswith("server.socket is /run/b.sock")
    assert _listed(warnings(**edge, SERVER__SOCKET="/run/a.sock"), "upstreams") == []
    assert _listed(warnings(SERVER__SOCKET="/run/a.sock"), "upstreams") == []


def test_what_nginx_would_miss_is_a_warning_where_the_edge_is_ours(tmp_path: Path) -> None:
    settings = {
        "SERVER__PORT": 0,
        "INTERNAL__PORT": 0,
        "EDGE__RUN_DIR": f"{tmp_path}/run",
        "EDGE__TLS_DIR": f"{tmp_path}/tls",
    }
    found = warnings(**settings, EDGE__ACCESS_LOG=f"{tmp_path}/log/access")
    assert [line.removeprefix("on this machine ").partition(":")[0] for line in found] == [
        "edge.run_dir",
        "edge.access_log",
        "edge.tls_dir",
        "edge.tls_dir",
    ]
    assert check(load(None, environ(settings)), edge=False) == ([], [])
    for name in ("run", "tls"):
        (tmp_path / name).mkdir()
    for name in ("fullchain.pem", "privkey.pem"):
        (tmp_path / "tls" / name).write_text("")
    assert warnings(**settings) == []


def run(*args: str, **settings: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tidegate", *args]
    return subprocess.run(command, cwd=ROOT, env=environ(settings), capture_output=True, text=True)


def test_check_serve_and_render_say_the_same(tmp_path: Path) -> None:
    key = base64.b64encode(public_pem("RS256")).decode()
    said = run("check", AUTH__MODE="jwt", AUTH__KEY=key)
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr.startswith('auth.key = "***": HS256 needs a shared secret')
    served = run("serve", AUTH__MODE="jwt", AUTH__KEY=key)
    assert served.returncode == 1
    assert f"cannot start: {said.stderr}" in served.stderr
    assert "Traceback" not in served.stderr
    assert key not in served.stderr

    many = [f"orders.create{n}" for n in range(2000)]
    said = run("check", "--json", CALLS__ALLOW=many)
    (problem,) = json.loads(said.stdout)["problems"]
    assert problem["key"] == "calls.allow"
    rendered = run("render", "--out", str(tmp_path), CALLS__ALLOW=many)
    assert (rendered.returncode, rendered.stderr) == (1, problem["message"] + "\n")
