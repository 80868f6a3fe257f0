"""Reading the settings: files, the environment, and every way in which they are refused."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT
from tidegate.config.auth import AuthSettings, NamedApiKey
from tidegate.config.load import ConfigError, default_yaml, effective, is_loopback, load, warnings
from tidegate.config.settings import Config, GroupPolicy

SECRET = "5up3r-5ecret-5up3r-5ecret-5up3r-5ecret"

Write = Callable[[str | bytes], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Makes a file of this text; its path."""

    def write(text: str | bytes) -> str:
        path = tmp_path / "config.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def refusal(path: str | None, environ: Mapping[str, str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {})
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return caught.value


# Where settings come from


def test_without_a_file_and_with_an_empty_one_all_is_default(write: Write) -> None:
    assert load(None, {}) == load(write(""), {}) == load(write("# nothing\nserver:\ngroups:\n"), {}) == Config()


def test_the_environment_goes_before_the_file_and_the_file_before_the_default(write: Write) -> None:
    path = write("server: {port: 1, drain_s: 2}\nhistory: {age_s: 9}")
    config = load(path, {"TIDEGATE_SERVER__PORT": "3", "PATH": "/bin", "OTHER_SERVER__PORT": "4"})
    assert (config.server.port, config.server.drain_s, config.history.age_s) == (3, 2, 9)
    assert config.server.address == "127.0.0.1"


def test_the_file_may_be_named_in_the_environment(write: Write) -> None:
    path = write("server: {port: 1}")
    assert load(None, {"TIDEGATE_CONFIG": path, "TIDEGATE_API_KEY": "for the command push"}).server.port == 1
    assert load(write("server: {port: 2}"), {"TIDEGATE_CONFIG": "/nowhere"}).server.port == 2


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("TIDEGATE_SERVER__PORT", "9000", "server.port", 9000),
        ("TIDEGATE_server__port", "9000", "server.port", 9000),
        ("TIDEGATE_HEARTBEAT__WEBSOCKET_PING_INTERVAL", "20", "heartbeat.websocket_ping_interval", 20),
        ("TIDEGATE_HEARTBEAT__WEBSOCKET_PING_INTERVAL", "0.25", "heartbeat.websocket_ping_interval", 0.25),
        ("TIDEGATE_AUTH__ANONYMOUS_ANYWHERE", "true", "auth.anonymous_anywhere", True),
        ("TIDEGATE_LOG__LEVEL", "debug", "log.level", "debug"),
        ("TIDEGATE_BROKER__PREFIX", "123", "broker.prefix", "123"),
        ("TIDEGATE_SERVER__NODE", "", "server.node", ""),
        ("TIDEGATE_AUTH__ISSUER", "https://id.example", "auth.issuer", "https://id.example"),
        ("TIDEGATE_AUTH__ISSUER", "123", "auth.issuer", "123"),
        ("TIDEGATE_AUTH__ISSUER", "null", "auth.issuer", None),
        ("TIDEGATE_AUTH__ISSUER", "", "auth.issuer", None),
        ("TIDEGATE_CALLS__ALLOW", '["echo", "orders.create"]', "calls.allow", ["echo", "orders.create"]),
        ("TIDEGATE_ORIGINS", '["https://app.example"]', "origins", ["https://app.example"]),
        ("TIDEGATE_GROUPS", '{"chat*": {"publish": "members"}}', "groups", {"chat*": GroupPolicy(publish="members")}),
    ],
)
def test_variables_become_values_of_their_settings_type(variable: str, text: str, key: str, value: object) -> None:
    found: Any = load(None, {variable: text})
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_groups_keep_the_files_order(write: Write) -> None:
    config = load(write('groups: {"z*": {messages: 5}, "a*": {}, "*": {join: nobody, age_s: 0.5}}'), {})
    assert list(config.groups) == ["z*", "a*", "*"]
    assert config.groups["z*"] == GroupPolicy(messages=5)
    assert config.groups["*"] == GroupPolicy(join="nobody", age_s=0.5)


# Refusals: (what is set, the key that is named, the value that is shown, words of what is allowed or to be set)


@pytest.mark.parametrize(
    ("text", "key", "value", "allowed"),
    [
        # types
        ('server: {port: "30"}', "server.port", '"30"', "a whole number from 0 to 65535"),
        ("server: {port: 30.0}", "server.port", "30.0", "a whole number"),
        ("server: {port: true}", "server.port", "true", "a whole number"),
        ("server: {port: null}", "server.port", "null", "a whole number"),
        ("server: {port: [1]}", "server.port", "[1]", "a whole number"),
        ("server: {drain_s: soon}", "server.drain_s", '"soon"', "a number from 0 to 3600"),
        ("heartbeat: {write_timeout_s: .nan}", "heartbeat.write_timeout_s", "NaN", "a number from 0.01 to 3600"),
        ("heartbeat: {write_timeout_s: .inf}", "heartbeat.write_timeout_s", "Infinity", "a number from 0.01 to 3600"),
        ("events: {enabled: 1}", "events.enabled", "1", "true or false"),
        ("broker: {prefix: 5}", "broker.prefix", "5", "characters"),
        ("server: {hosts: localhost}", "server.hosts", '"localhost"', "a list, not empty"),
        ("server: {hosts: []}", "server.hosts", "[]", "not empty"),
        ("auth: {issuer: 5}", "auth.issuer", "5", "text without blanks"),
        ('auth: {issuer: ""}', "auth.issuer", '""', "text without blanks"),
        ('auth: {audience: "\\ud800"}', "auth.audience", '"\\ud800"', "text without blanks"),
        ("server: 5", "server", "", "keys below it"),
        ("groups: [a]", "groups", "", "keys below it"),
        ("groups: {news: 5}", "groups[news]", "", "keys below it"),
        # limits
        ("server: {port: 65536}", "server.port", "65536", "from 0 to 65535"),
        ("server: {port: -1}", "server.port", "-1", "from 0 to 65535"),
        ("limits: {data_bytes: 245761}", "limits.data_bytes", "245761", "from 1 to 245760"),
        ("limits: {outbox_bytes: 262144}", "limits.outbox_bytes", "262144", "from 327680 to"),
        ("limits: {answer_bytes: 262145}", "limits.answer_bytes", "262145", "to 262144"),
        ("calls: {answer_bytes: 245761}", "calls.answer_bytes", "245761", "to 245760"),
        ("history: {messages: 0}", "history.messages", "0", "from 1 to"),
        ("groups: {news: {messages: 0}}", "groups[news].messages", "0", "from 1 to 1000000 or null"),
        # words
        ("auth: {mode: jwts}", "auth.mode", '"jwts"', "one of callback, jwt, none"),
        ("auth: {algorithm: none}", "auth.algorithm", '"none"', "one of ES256, EdDSA, HS256, RS256"),
        ("log: {level: INFO}", "log.level", '"INFO"', "one of debug, error, info, warning"),
        ("groups: {news: {join: members}}", "groups[news].join", '"members"', "one of anyone, nobody"),
        ("groups: {news: {slow: drop}}", "groups[news].slow", '"drop"', "one of close, latest, replay"),
        # forms
        ("server: {path: /ws}", "server.path", '"/ws"', 'begins and ends with "/"'),
        ("server: {path: ws/}", "server.path", '"ws/"', 'begins and ends with "/"'),
        ("server: {path: /a/../b/}", "server.path", '"/a/../b/"', "a path"),
        ('server: {path: "/a b/"}', "server.path", '"/a b/"', "a path"),
        ('server: {node: "a b"}', "server.node", '"a b"', "characters from"),
        ('server: {address: "[::1]"}', "server.address", '"[::1]"', "without brackets"),
        ('server: {hosts: [a, "b:80"]}', "server.hosts[1]", '"b:80"', "without a port"),
        ("server: {hosts: [Localhost]}", "server.hosts[0]", '"Localhost"', "lower case"),
        ('server: {hosts: ["::1"]}', "server.hosts[0]", '"::1"', "in brackets"),
        ('server: {hosts: ["a\\n"]}', "server.hosts[0]", '"a\\n"', "host name"),
        ("internal: {hosts: [http://a]}", "internal.hosts[0]", '"http://a"', "host name"),
        ("origins: [app.example]", "origins[0]", '"app.example"', "scheme://host[:port]"),
        ("origins: [https://a, https://b/]", "origins[1]", '"https://b/"', "without a path"),
        ('origins: ["*"]', "origins[0]", '"*"', "scheme://host[:port]"),
        ("origins: [https://a:443]", "origins[0]", '"https://a:443"', "default port"),
        ("origins: [http://a:80]", "origins[0]", '"http://a:80"', "default port"),
        ("origins: [https://A]", "origins[0]", '"https://A"', "lower case"),
        ("internal: {cors_origins: [null]}", "internal.cors_origins[0]", "null", "scheme://host[:port]"),
        ("broker: {url: http://a}", "broker.url", '"http://a"', "redis://"),
        ("broker: {url: redis+sentinel://a:1}", "broker.url", '"redis+sentinel://a:1"', "redis+sentinel://"),
        ('broker: {prefix: "{a}"}', "broker.prefix", '"{a}"', "characters from"),
        ("calls: {url: http://a/}", "calls.url", '"http://a/"', '"/" at the end'),
        ('calls: {url: "http://a/?b=c"}', "calls.url", '"http://a/?***"', "query"),
        ("calls: {allow: [a..b]}", "calls.allow[0]", '"a..b"', "single dots"),
        ("edge: {upstreams: [a]}", "edge.upstreams[0]", '"a"', "host:port in lower case"),
        ('groups: {"a b": {}}', "groups[a b]", "", "a pattern in quotes"),
        ("groups: {7: {}}", "groups[7]", "", "a pattern in quotes"),
        # contradictions
        (
            "heartbeat: {websocket_ping_interval: 90, websocket_ping_timeout: 89}",
            "heartbeat.websocket_ping_interval",
            "90",
            "edge.read_timeout_s (90)",
        ),
        (
            "edge: {read_timeout_s: 60}",
            "heartbeat.websocket_ping_timeout",
            "60",
            "set edge.read_timeout_s above it",
        ),
        (
            "heartbeat: {websocket_ping_interval: 61}",
            "heartbeat.websocket_ping_interval",
            "61",
            "heartbeat.websocket_ping_timeout (60)",
        ),
        ("edge: {send_timeout_s: 14}", "heartbeat.write_timeout_s", "15", "edge.send_timeout_s (14)"),
        ("server: {address: 0.0.0.0}", "auth.mode", '"none"', "set auth.mode to jwt"),
        ("server: {address: 10.0.0.1}", "auth.mode", '"none"', "auth.anonymous_anywhere to true"),
        ('server: {address: "::"}', "auth.mode", '"none"', "server.address to 127.0.0.1"),
        ("internal: {address: 0.0.0.0}", "internal.api_keys", "[]", "internal.keyless_anywhere to true"),
        (
            "auth: {mode: jwt}",
            "auth.mode",
            '"jwt"',
            "exactly one of auth.key, auth.key_file and auth.jwks_file, or auth.keys",
        ),
        ("auth: {mode: jwt, key_file: a, jwks_file: b}", "auth.mode", '"jwt"', "auth.key_file and auth.jwks_file"),
        ("internal: {port: 8000}", "internal.port", "8000", "server.port (8000)"),
        ("internal: {port: 8000, address: 0.0.0.0, keyless_anywhere: true}", "internal.port", "8000", "server.port"),
        ("limits: {data_bytes: 131073, answer_bytes: 200000}", "limits.data_bytes", "131073", "limits.message_bytes"),
        ("limits: {body_bytes: 65535}", "limits.data_bytes", "65536", "limits.body_bytes (65535)"),
        ("limits: {answer_bytes: 65536}", "limits.answer_bytes", "65536", "limits.data_bytes + 16384 (81920)"),
        (
            "limits: {handshake_wait_s: 60}\nedge: {read_timeout_s: 60}",
            "limits.handshake_wait_s",
            "60",
            "those who wait",
        ),
        (
            "auth: {mode: callback, callback_url: 'http://a/'}\n"
            "limits: {handshake_wait_s: 58}\nedge: {read_timeout_s: 61}",
            "limits.handshake_wait_s",
            "58",
            "3 s and more below edge.read_timeout_s (61)",
        ),
        ("events: {enabled: true}", "events.enabled", "true", "broker.kind to redis"),
        ("events: {url: 'http://a/events'}", "events.url", '"http://a/events"', "events.enabled to true"),
        (
            "events: {key: 0123456789abcdef, key_file: key}",
            "events.key",
            '"***"',
            "cannot be beside events.key_file",
        ),
    ],
)
def test_a_refusal_names_key_value_and_what_is_allowed(
    write: Write, text: str, key: str, value: str, allowed: str
) -> None:
    error = refusal(write(text))
    problem = next(problem for problem in error.problems if problem.key == key)
    assert problem.value == value
    assert allowed in problem.message
    assert str(problem) == (f"{key} = {value}: {problem.message}" if value else f"{key}: {problem.message}")


@pytest.mark.parametrize(
    "text",
    [
        "server: {address: 0.0.0.0}\nauth: {anonymous_anywhere: true}",
        f"server: {{address: 0.0.0.0}}\nauth: {{mode: jwt, key: {SECRET}}}",
        "server: {address: localhost}\ninternal: {address: '::1', port: 8000}",
        "server: {port: 0}\ninternal: {port: 0}",
        "server: {path: /}\norigins: ['https://a.example:8443', 'capacitor://localhost', 'http://[::1]:3000']",
        f"internal: {{address: 0.0.0.0, api_keys: [{SECRET}]}}",
        "internal: {address: 0.0.0.0, keyless_anywhere: true}",
        "heartbeat: {websocket_ping_interval: 60, websocket_ping_timeout: 60, write_timeout_s: 90}",
        "auth: {mode: jwt, algorithm: RS256, key: short}",
        "auth: {mode: jwt, jwks_file: keys.json, algorithm: EdDSA}",
        "limits: {data_bytes: 245760, message_bytes: 262144}",
        "broker: {kind: redis, url: 'redis+sentinel://u:p@a:1,b:2/main'}\nevents: {enabled: true}",
        "broker: {url: 'rediss://:p%2F@a:1/0?ssl_ca_certs=/x'}",
        "edge: {upstreams: ['a:1', '[::1]:2', 'unix:/run/a.sock']}",
        "calls: {url: 'https://app.example:8443/api/v1', allow: []}",
    ],
)
def test_what_looks_alike_and_is_right_is_accepted(write: Write, text: str) -> None:
    load(write(text), {})


@pytest.mark.parametrize(
    ("text", "environ", "name", "meant"),
    [
        ("server: {prot: 1}", {}, "server.prot", "server.port"),
        ("sever: {port: 1}", {}, "sever", "server"),
        ("heartbeat: {ping_interval: 1}", {}, "heartbeat.ping_interval", "heartbeat.websocket_ping_interval"),
        ("messages: 5", {}, "messages", "history.messages"),
        ("server: {api_keys: []}", {}, "server.api_keys", "internal.api_keys"),
        ("groups: {news: {jion: nobody}}", {}, "groups[news].jion", "groups[news].join"),
        ("", {"TIDEGATE_SERVER_PORT": "1"}, "TIDEGATE_SERVER_PORT", "TIDEGATE_SERVER__PORT"),
        ("", {"TIDEGATE_LOG__LEVLE": "info"}, "TIDEGATE_LOG__LEVLE", "TIDEGATE_LOG__LEVEL"),
        ("", {"TIDEGATE_ORIGIN": "[]"}, "TIDEGATE_ORIGIN", "TIDEGATE_ORIGINS"),
        # as Kubernetes would name them, but not with its values
        ("", {"TIDEGATE_INTERNAL_PORT": "8001"}, "TIDEGATE_INTERNAL_PORT", "TIDEGATE_INTERNAL__PORT"),
        ("", {"TIDEGATE_PORT": "8000"}, "TIDEGATE_PORT", "TIDEGATE_SERVER__PORT"),
    ],
)
def test_an_unknown_name_is_refused_with_what_may_be_meant(
    write: Write, text: str, environ: dict[str, str], name: str, meant: str
) -> None:
    (problem,) = refusal(write(text), environ).problems
    assert str(problem) == f"{name}: is unknown; did you mean {meant}?"


@pytest.mark.parametrize("environ", [{"TIDEGATE_QQQ": SECRET}, {"TIDEGATE_SERVER": "{}"}, {"TIDEGATE_AUTH__": "x"}])
def test_an_unknown_variable_is_refused_without_its_value(environ: dict[str, str]) -> None:
    (problem,) = refusal(None, environ).problems
    assert problem.key in environ
    assert problem.message.startswith("is unknown")
    assert SECRET not in str(problem)


@pytest.mark.parametrize(
    ("variable", "text", "key", "allowed"),
    [
        ("TIDEGATE_SERVER__PORT", "http", "server.port", "a whole number from 0 to 65535"),
        ("TIDEGATE_SERVER__PORT", "", "server.port", "a whole number"),
        ("TIDEGATE_SERVER__PORT", "9" * 5000, "server.port", "a whole number"),
        ("TIDEGATE_SERVER__DRAIN_S", "NaN", "server.drain_s", "a number from 0 to 3600"),
        ("TIDEGATE_EVENTS__ENABLED", "yes", "events.enabled", "true or false"),
        ("TIDEGATE_ORIGINS", "https://app.example", "origins", "as JSON"),
        ("TIDEGATE_ORIGINS", "[" * 100_000, "origins", "as JSON"),
        ("TIDEGATE_GROUPS", '{"a": {}, "a": {}}', "groups", "no key twice"),
        ("TIDEGATE_AUTH__ISSUER", "caf\udce9", "auth.issuer", "text without blanks"),
    ],
)
def test_a_refused_variable_is_named_beside_its_key(variable: str, text: str, key: str, allowed: str) -> None:
    (problem,) = refusal(None, {variable: text}).problems
    assert str(problem).startswith(f"{key} ({variable})")
    assert allowed in problem.message
    assert len(str(problem)) < 500


def test_a_setting_that_two_variables_set_is_refused() -> None:
    error = refusal(None, {"TIDEGATE_SERVER__PORT": "1", "TIDEGATE_Server__Port": "2"})
    assert "keep one" in str(error)


def test_all_problems_are_told_at_once(write: Write) -> None:
    error = refusal(write("server: {port: x, prot: 1}\nlog: {level: loud}\nbogus: 1"), {"TIDEGATE_EDGE__X": "1"})
    keys = {problem.key for problem in error.problems}
    assert keys == {"server.port", "server.prot", "log.level", "bogus", "TIDEGATE_EDGE__X"}
    error = refusal(write("server: {address: 0.0.0.0}\ninternal: {address: 0.0.0.0}\nevents: {enabled: true}"))
    assert [problem.key for problem in error.problems] == ["auth.mode", "internal.api_keys", "events.enabled"]


def test_contradictions_wait_until_each_value_is_right_by_itself(write: Write) -> None:
    error = refusal(write("server: {address: 0.0.0.0}\nauth: {mode: jwtt}"))
    assert [problem.key for problem in error.problems] == ["auth.mode"]
    assert "one of" in str(error)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("server: {port: 1}\nserver: {port: 2}", "line 2, column 1: the key server stands twice"),
        ("server:\n  port: 1\n  path: /\n  port: 2\n", "line 4, column 3: the key port stands twice"),
        ("server: [", "line 1"),
        ("server:\n\t- a", "line 2"),
        (b"\xff\xfe\xff", "not valid YAML"),
        (b"\x00", "not valid YAML"),
        (f"auth: {{key: *{SECRET}}}", "in quotes that begins with * & ! or %"),
        (f"auth: {{key: !{SECRET} }}", "in quotes that begins with * & ! or %"),
        (f"auth: {{key: !{SECRET}!x y}}", "in quotes that begins with * & ! or %"),
        (f'auth: {{key: "{SECRET}}}', "line 1"),
        ("[" * 100_000, "not valid YAML"),
        ("a: 2024-99-99", "not valid YAML"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("? [1, 2]\n: 3", "not valid YAML"),
        ("a: !!int ''", "not valid YAML"),
        ("!!float", "not valid YAML"),
        ("a: !!bool perhaps", "not valid YAML"),
        ("a: !!timestamp x", "not valid YAML"),
        ("? !!int 0x" + "f" * 5000 + "\n: 1", "is unknown"),
        ("groups:\n  ? !!int 0x" + "f" * 5000 + "\n  : {}", "must be a pattern"),
        ("[1, 2]", "must be a mapping of sections"),
        (SECRET, "must be a mapping of sections"),
        ("a: &a [*a]", "a: is unknown"),
        ("origins: &a [*a]", "origins[0]"),
        ("origins: !!set {a: b}", "origins"),
        ("server: {port: " + "9" * 4000 + "}", "server.port = 9999"),
        ("server: {port: " + "9" * 5000 + "}", "is not valid YAML"),
        ("server: {node: 2024-01-01}", "server.node"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_in_words(write: Write, text: str | bytes, told: str) -> None:
    error = str(refusal(write(text)))
    assert told in error
    assert SECRET not in error


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.yaml")
    assert str(refusal(missing)) == f"{missing}: cannot be read: No such file or directory"
    assert "Is a directory" in str(refusal(str(tmp_path)))


# Secrets


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ('auth: {mode: jwt, key: "5up3r-5ecret"}', {}),
        ('auth: {key: ["5up3r-5ecret"]}', {}),
        ("internal: {api_keys: [5up3r-5ecret]}", {}),
        ("internal: {api_keys: [{name: a, key: 5up3r-5ecret}]}", {}),
        ("internal: {api_keys: [{name: a, kye: 5up3r-5ecret-5up3r-5ecret}]}", {}),
        ("internal: {api_keys: [{key: 5up3r-5ecret-5up3r-5ecret}]}", {}),
        ("internal: {api_keys: [[5up3r-5ecret]]}", {}),
        ("auth: {mode: jwt, keys: [{kid: a, key: [5up3r-5ecret]}]}", {}),
        ("auth: {mode: jwt, keys: [5up3r-5ecret]}", {}),
        ("auth: {mode: jwt, keys: {a: 5up3r-5ecret}}", {}),
        ("auth: {mode: jwt, keys: [{kid: a, key: 5up3r-5ecret}, {kid: a, key: 5up3r-5ecret}]}", {}),
        ("internal: {api_keys: 5up3r-5ecret}", {}),
        ("internal: {api_keys: {5up3r: 1}}", {}),
        ("auth: {kye: 5up3r-5ecret}", {}),
        ("auth: 5up3r-5ecret", {}),
        ("internal: [5up3r-5ecret]", {}),
        ("broker: {url: 'redis://me:5up3r-5ecret@a/x/y'}", {}),
        ("broker: {url: 'me:5up3r-5ecret@a'}", {}),
        ("broker: {url: 'redis://me:5up3r/5ecret@a'}", {}),
        ("broker: {url: 'redis://me:x@5up3r-5ecret@a/x/y'}", {}),
        ("broker: {url: 'redis://a/0/?password=5up3r-5ecret'}", {}),
        ("broker: {url: [5up3r-5ecret]}", {}),
        ("calls: {url: 'http://me:5up3r-5ecret@a'}", {}),
        ("auth: {callback_url: 'http://me:5up3r-5ecret@a/who'}", {}),
        ("auth: {mode: callback, callback_url: 'https://a/who?key=5up3r-5ecret'}", {}),
        ("trunk: {key: 5up3r-5ecret}", {}),
        ("trunk: {key: [5up3r-5ecret]}", {}),
        ("", {"TIDEGATE_TRUNK__KEY": "5up3r-5ecret"}),
        ("", {"TIDEGATE_AUTH__KEY": "5up3r-5ecret"}),
        ("", {"TIDEGATE_INTERNAL__API_KEYS": '["5up3r-5ecret"]'}),
        ("", {"TIDEGATE_INTERNAL__API_KEYS": "5up3r-5ecret"}),
        ("", {"TIDEGATE_BROKER__URL": "redis+sentinel://:5up3r-5ecret@a:1"}),
    ],
)
def test_no_refusal_shows_a_secret(write: Write, text: str, environ: dict[str, str]) -> None:
    assert not re.search("5up3r|5ecret", str(refusal(write(text), environ)))


def test_every_setting_that_is_a_key_is_masked() -> None:
    keys = {
        "TIDEGATE_AUTH__KEY": "5up3r-5ecret" * 3,
        "TIDEGATE_AUTH__KEYS": json.dumps([{"kid": "new", "key": "5up3r-5ecret" * 3}]),
        "TIDEGATE_INTERNAL__API_KEYS": json.dumps(["5up3r-5ecret" * 2, {"name": "crm", "key": "5up3r-5ecret" * 3}]),
        "TIDEGATE_EVENTS__KEY": "5up3r-5ecret" * 2,
        "TIDEGATE_TRUNK__KEY": "5up3r-5ecret" * 2,
    }
    shown = effective(load(None, keys))
    settings = [(section, name) for section, fields in shown.items() for name in fields]
    named = {f"{section}.{name}" for section, name in settings if re.search(r"(key|keys|secret|password)$", name)}
    assert named == {"auth.key", "auth.keys", "events.key", "internal.api_keys", "trunk.key"}
    assert shown["auth"]["keys"] == [{"kid": "new", "key": "***", "key_file": None}]
    assert "5up3r" not in json.dumps(shown)


def test_a_short_secret_is_refused_with_its_length_and_the_way_to_a_good_one() -> None:
    (problem,) = refusal(None, {"TIDEGATE_AUTH__KEY": "x" * 31, "TIDEGATE_AUTH__MODE": "jwt"}).problems
    assert str(problem).startswith('auth.key (TIDEGATE_AUTH__KEY) = "***": must have at least 32 bytes')
    assert "has 31" in problem.message
    assert "openssl" in problem.message
    load(None, {"TIDEGATE_AUTH__KEY": "ü" * 16, "TIDEGATE_AUTH__MODE": "jwt"})  # bytes, not characters


@pytest.mark.parametrize(
    ("text", "key", "cure"),
    [
        ("internal: {api_keys: [{name: a, may: [fly], key_file: /k}]}", "internal.api_keys[0].may[0]", "push, read"),
        ("internal: {api_keys: [{name: a, groups: [a b], key_file: /k}]}", "internal.api_keys[0].groups", "pattern"),
        ("internal: {api_keys: [{name: a, groups: [], key_file: /k}]}", "internal.api_keys[0].groups", "not empty"),
        ("internal: {api_keys: [{name: a, nmae: b, key_file: /k}]}", "internal.api_keys[0].nmae", "unknown"),
        ("internal: {api_keys: [{key_file: /k}]}", "internal.api_keys", "each needs a name"),
        ("internal: {api_keys: [{name: a, key_file: /k}, {name: a, key_file: /l}]}", "internal.api_keys", "same name"),
        ("internal: {api_keys: [{name: a}]}", "internal.api_keys", "either key or key_file"),
        ("auth: {keys: [{key_file: /k}]}", "auth.keys", "each needs a kid"),
        ("auth: {keys: [{kid: a, key_file: /k}, {kid: a, key_file: /l}]}", "auth.keys", "same kid"),
        ("auth: {keys: [{kid: a, key_file: /k, key: x}]}", "auth.keys", "either key or key_file"),
        ("auth: {mode: jwt, jwks_file: /j, keys: [{kid: a, key_file: /k}]}", "auth.keys", "beside auth.jwks_file"),
        ("auth: {mode: callback}", "auth.callback_url", "is needed"),
        ("auth: {mode: callback, callback_url: 'http://a/', recheck_s: 0.001}", "auth.recheck_s", "at least 0.1"),
        ("auth: {mode: callback, callback_url: /who}", "auth.callback_url", "http://host"),
        ("auth: {mode: callback, callback_url: 'http://me:pw@h/'}", "auth.callback_url", "without user"),
    ],
)
def test_several_keys_and_the_callback_are_refused_with_a_cure(write: Write, text: str, key: str, cure: str) -> None:
    (problem,) = refusal(write(text)).problems
    assert problem.key == key
    assert cure in problem.message


def test_keys_may_have_names_and_what_they_open(write: Write) -> None:
    limited = "{name: crm, key_file: /k, may: [push], groups: ['a*']}"
    config = load(write(f"internal: {{api_keys: [{SECRET}, {limited}]}}"), {})
    plain, named = config.internal.api_keys
    assert plain == SECRET
    assert named == NamedApiKey(name="crm", key_file="/k", may=["push"], groups=["a*"])
    load(write("auth: {mode: jwt, keys: [{kid: a, key_file: /k}]}"), {})
    load(write("auth: {mode: jwt, key_file: /old, keys: [{kid: a, key_file: /k}]}"), {})


def test_of_several_api_keys_the_short_one_is_named(write: Write) -> None:
    (problem,) = refusal(write(f"internal: {{api_keys: [{SECRET}, fifteen-letters]}}")).problems
    assert (
        str(problem) == "internal.api_keys[1] = ***: must be 16 to 512 visible ASCII characters without spaces "
        "or a mapping of name, key, key_file, may, groups"
    )


def test_the_effective_settings_are_all_there_and_secrets_masked(write: Write) -> None:
    text = f"""
    auth: {{mode: jwt, key: {SECRET}}}
    internal: {{api_keys: [{SECRET}, {SECRET}2]}}
    broker: {{url: "redis://me:{SECRET}@redis:6379/1?password={SECRET}"}}
    groups: {{"news*": {{join: nobody}}}}
    """
    settings = effective(load(write(text), {}))
    assert SECRET not in json.dumps(settings)
    assert settings["auth"]["key"] == "***"
    assert settings["auth"]["issuer"] is None
    assert settings["internal"]["api_keys"] == ["***", "***"]
    assert settings["broker"]["url"] == "redis://***@redis:6379/1?***"
    assert settings["groups"]["news*"]["join"] == "nobody"
    assert settings["limits"]["connections"] == 15000
    assert list(settings) == list(Config.__struct_fields__)


def test_defaults_are_shown_as_they_are() -> None:
    settings = effective(Config())
    assert settings["broker"]["url"] == "redis://127.0.0.1:6379/0"
    assert settings["auth"]["key"] is None
    assert settings["internal"]["api_keys"] == []


# Warnings


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", []),
        ("auth: {anonymous_anywhere: true}\ninternal: {keyless_anywhere: true}", []),
        ("server: {address: 0.0.0.0}\nauth: {anonymous_anywhere: true}", ["auth.mode is none"]),
        ("internal: {address: 10.0.0.1, keyless_anywhere: true}", ["internal.api_keys is empty"]),
        (f"server: {{address: 0.0.0.0}}\nauth: {{mode: jwt, key: {SECRET}}}", []),
        (f"auth: {{key: {SECRET}}}", ["auth.mode is none although a key is set"]),
        (
            f"auth: {{mode: callback, callback_url: 'http://a/', keys: [{{kid: a, key: {SECRET}}}]}}",
            ["auth.mode is callback although a key is set"],
        ),
    ],
)
def test_what_is_allowed_and_unsafe_is_warned_of(write: Write, text: str, told: list[str]) -> None:
    found = warnings(load(write(text), {}))
    assert len(found) == len(told)
    assert all(start in line for start, line in zip(told, found, strict=True))


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("gateway.local", False),
        ("localhost.example", False),
    ],
)
def test_only_what_this_machine_alone_reaches_is_loopback(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


# config.yaml


def test_config_yaml_is_what_the_command_prints() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "tidegate.config.load"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert printed == default_yaml()
    assert (ROOT / "config.yaml").read_text() == printed, "run: python -m tidegate.config.load > config.yaml"
    assert "python -m tidegate.config.load" in printed.splitlines()[0]


def test_config_yaml_holds_every_default_and_loads_as_such() -> None:
    assert load(str(ROOT / "config.yaml"), {}) == Config()
    assert yaml.safe_load(default_yaml()) == json.loads(json.dumps(effective(Config())))


def test_every_line_of_config_yaml_has_its_comment_and_fits_the_page() -> None:
    lines = default_yaml().splitlines()
    for before, line in itertools.pairwise(lines):
        assert len(line) <= 120
        if line.strip() and not line.lstrip().startswith("#"):
            assert before.lstrip().startswith("#"), line


def test_the_example_of_a_policy_in_config_yaml_works_without_its_signs(write: Write) -> None:
    text = re.sub(r"(?m)^#(?=  )", "", default_yaml()).replace("groups: {}", "groups:")
    assert load(write(text), {}).groups == {"news*": GroupPolicy()}


@pytest.mark.parametrize("given", [{"key": "x" * 20}, {"key_file": "/key"}, {"jwks_file": "/jwks.json"}])
def test_a_key_that_nobody_looks_at_is_warned_of(given: dict[str, str]) -> None:
    said = warnings(Config(auth=AuthSettings(mode="none", **given)))  # type: ignore[arg-type]
    assert [text for text in said if "tokens are not looked at" in text]
