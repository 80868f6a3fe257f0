"""``check --nginx``: each rule is broken once in an otherwise good configuration, and named."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.edges.edge import NGINX, environ
from tests.support import ROOT, free_port, scaled
from tests.test_containers import Loader
from tidegate.config.load import load
from tidegate.config.settings import Config
from tidegate.nginx import check as nginx_check
from tidegate.nginx.finding import Finding
from tidegate.nginx.render import SOURCE, VARIANTS, write
from tidegate.nginx.syntax import NginxError

GOOD = """
worker_processes 4;
worker_rlimit_nofile 20000;
worker_shutdown_timeout 30s;
events {
    worker_connections 16384;
}
http {
    client_header_timeout 10s;
    client_max_body_size 1k;
    large_client_header_buffers 4 12k;
    limit_conn_zone $binary_remote_addr zone=addresses:10m;
    limit_req_zone $binary_remote_addr zone=requests:10m rate=20r/s;
    log_format json escape=json '{"path":"$uri","status":$status}';
    access_log /dev/stdout json;
    map $http_upgrade $connection_upgrade {
        default upgrade;
        "" close;
    }
    upstream backend {
        server 127.0.0.1:8000;
        server 127.0.0.1:8010;
    }
    server {
        listen 8443 ssl;
        ssl_protocols TLSv1.2 TLSv1.3;
        location /ws-notifications/ {
            limit_conn addresses 100;
            limit_req zone=requests burst=50 nodelay;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Host $http_host;
            proxy_buffering off;
            proxy_read_timeout 90s;
            proxy_send_timeout 90s;
            proxy_next_upstream error timeout http_503;
            proxy_pass http://backend;
        }
    }
}
"""

# What is changed into what, the level, the rule that says so, and a word of the message.
WRONG = [
    ("proxy_read_timeout 90s;", "proxy_read_timeout 20s;", "breaks", "read_timeout", "pings every 30 s"),
    ("proxy_read_timeout 90s;", "proxy_read_timeout 1m;", "harden", "read_timeout", "before the service closes it"),
    ("proxy_read_timeout 90s;", "", "harden", "read_timeout", "60 s"),
    ("proxy_send_timeout 90s;", "proxy_send_timeout 5s;", "harden", "send_timeout", "write_timeout_s"),
    (
        "client_header_timeout 10s;",
        "client_header_timeout 10s; send_timeout 10s;",
        "harden",
        "send_timeout",
        "slow peer",
    ),
    ("proxy_http_version 1.1;", "", "breaks", "upgrade", "HTTP/1.1"),
    ("proxy_set_header Upgrade $http_upgrade;", "", "breaks", "upgrade", "Upgrade $http_upgrade"),
    ("proxy_set_header Connection $connection_upgrade;", "", "breaks", "upgrade", "Connection is close"),
    (
        "proxy_set_header Connection $connection_upgrade;",
        'proxy_set_header Connection "";',
        "breaks",
        "upgrade",
        "Connection is not sent",
    ),
    ("default upgrade;", "default keep-alive;", "breaks", "upgrade", "Connection is keep-alive, by `$connection_up"),
    ("map $http_upgrade $connection_upgrade {", "map $http_upgrade $other {", "breaks", "variable", "does not start"),
    ("proxy_set_header Host $http_host;", "", "breaks", "host", "asked as backend"),
    ("proxy_set_header Host $http_host;", "proxy_set_header Host example.com;", "breaks", "host", "server.hosts"),
    ("proxy_set_header Host $http_host;", "proxy_set_header Host $host;", "harden", "host", "pages of https://loc"),
    (
        "proxy_set_header Host $http_host;",
        'proxy_set_header Host $http_host; proxy_set_header Origin "";',
        "harden",
        "origin",
        "Origin",
    ),
    (
        "proxy_set_header Host $http_host;",
        "proxy_set_header Host $http_host; proxy_set_header Origin http://a.example;",
        "breaks",
        "origin",
        "refuses",
    ),
    ("limit_conn addresses 100;", "", "harden", "limits", "limit_conn"),
    ("limit_req zone=requests burst=50 nodelay;", "", "harden", "limits", "limit_req"),
    ("worker_connections 16384;", "", "harden", "worker_connections", "512"),
    ("worker_connections 16384;", "worker_connections 4096;", "harden", "worker_connections", "8192 WebSockets"),
    ("worker_processes 4;", "", "harden", "worker_connections", "30000"),
    ("worker_rlimit_nofile 20000;", "", "harden", "nofile", "16384"),
    ("worker_rlimit_nofile 20000;", "worker_rlimit_nofile 8192;", "harden", "nofile", "16384"),
    ("worker_shutdown_timeout 30s;", "", "harden", "shutdown", "old workers stay"),
    ("worker_shutdown_timeout 30s;", "worker_shutdown_timeout 10s;", "harden", "shutdown", "drain of 20 s"),
    ("client_max_body_size 1k;", "", "harden", "body_size", "client_max_body_size"),
    ("client_max_body_size 1k;", "client_max_body_size 0;", "harden", "body_size", "client_max_body_size"),
    ("large_client_header_buffers 4 12k;", "", "harden", "header_size", "414"),
    ("client_header_timeout 10s;", "", "harden", "header_timeout", "60 s"),
    ("server 127.0.0.1:8010;", "", "harden", "upstreams", "nothing goes to 127.0.0.1:8010"),
    ("server 127.0.0.1:8010;", "server 127.0.0.1:8020;", "harden", "upstreams", "127.0.0.1:8020 is none of"),
    ("http://backend;", "http://127.0.0.1:8000;", "harden", "upstreams", "nothing goes to 127.0.0.1:8010"),
    ("http://backend;", "http://127.0.0.1:3000;", "breaks", "upstreams", "goes to 127.0.0.1:3000"),
    ("http://backend;", "http://gateway.example;", "harden", "upstreams", "not known"),
    ("http://backend;", "http://backend/;", "breaks", "uri", "asked for / and"),
    ("http://backend;", "https://backend;", "breaks", "scheme", "TLS"),
    ("http://backend;", "http://$gw:8000; set $gw localhost;", "breaks", "resolver", "resolver"),
    ("http://backend;", "http://backend$uri;", "breaks", "query", "$is_args$args"),
    ("http://backend;", "http://backend; proxy_method POST;", "breaks", "method", "405"),
    ("http://backend;", "http://backend; proxy_set_body x;", "breaks", "body", "400"),
    ("http://backend;", "http://backend; deny all;", "breaks", "path", "lets nobody in"),
    (
        "listen 8443 ssl;",
        "listen 8443 ssl; location /m { proxy_pass http://127.0.0.1:8001; }",
        "harden",
        "internal_port",
        "never reached",
    ),
    ("listen 8443 ssl;", "listen 8443 http2;", "breaks", "http2", "1.25.1"),
    ("listen 8443 ssl;", "listen 8443 ssl; server_name a.example;", "breaks", "host", "asked as a.example"),
    (
        "listen 8443 ssl;",
        "listen 8443 ssl; server_name localhost a.example;",
        "harden",
        "names",
        "does not list a.example",
    ),
    ("proxy_next_upstream error timeout http_503;", "", "harden", "next_upstream", "http_503"),
    ("location /ws-notifications/ {", "location /ws/ {", "breaks", "path", "/ws-notifications/"),
    ("ssl_protocols TLSv1.2 TLSv1.3;", "ssl_protocols TLSv1 TLSv1.2;", "harden", "tls", "TLSv1 "),
    ("access_log /dev/stdout json;", "", "harden", "log", "tokens"),
    ("access_log /dev/stdout json;", "access_log /dev/stdout;", "harden", "log", "$request"),
    ('"$uri"', '"$request_uri"', "harden", "log", "$request_uri"),
    ('"$uri"', '"$uri?$args"', "harden", "log", "$args"),
    ('"$uri"', '"$http_authorization"', "harden", "log", "$http_authorization"),
    ("listen 8443 ssl;", "listen 8443 ssl proxy_protocol;", "harden", "ingress", "in front"),
    ("listen 8443 ssl;", "listen 8443 ssl; auth_basic site;", "harden", "access", "401"),
    ("listen 8443 ssl;", "listen 8443 ssl; ssl_verify_client on;", "harden", "access", "400"),
    ("http {", "http { set_real_ip_from 10.0.0.0/8;", "harden", "ingress", "300 s"),
]


def config(**settings: object) -> Config:
    return load(None, environ({"EDGE__UPSTREAMS": ["127.0.0.1:8000", "127.0.0.1:8010"], **settings}))


def check(folder: Path, text: str, **settings: object) -> list[Finding]:
    file = folder / "nginx.conf"
    file.write_text(text)
    return nginx_check.check_file(str(file), config(**settings))


def test_a_good_configuration_is_not_blamed(tmp_path: Path) -> None:
    assert check(tmp_path, GOOD) == []


@pytest.mark.parametrize(("good", "wrong", "level", "rule", "word"), WRONG)
def test_each_rule_is_named_with_its_fix(
    tmp_path: Path, good: str, wrong: str, level: str, rule: str, word: str
) -> None:
    assert GOOD.count(good) == 1
    findings = check(tmp_path, GOOD.replace(good, wrong))
    assert (level, rule) in {(finding.level, finding.rule) for finding in findings}
    assert any(word in finding.message for finding in findings if finding.rule == rule)
    if level == "harden":
        assert {finding.rule for finding in findings} <= {rule, "upstreams"}
    assert {finding.rule for finding in findings if finding.level == "breaks"} <= {rule}


def test_every_rule_is_in_the_table() -> None:
    named = set()
    for file in (ROOT / "service/tidegate/nginx").glob("*.py"):
        source = re.sub(r"\(\s+", "(", file.read_text())
        named |= set(re.findall(r"""\b(?:breaks|harden)\("([a-z_0-9]+)\"""", source))
    # What other tests have: a part, a stream, a redirect of errors.
    assert named == {rule for _, _, _, rule, _ in WRONG} | {"part", "error_page"}


LINES = [number for number, line in enumerate(GOOD.splitlines()) if line.endswith(";")]


@pytest.mark.parametrize("arguments", ["", " x", " -1 $", " 99999999999999999999y {1}"])
def test_what_nginx_would_not_start_with_is_never_a_traceback(tmp_path: Path, arguments: str) -> None:
    lines = GOOD.splitlines()
    assert len(LINES) > 20
    for number in LINES:
        name = lines[number].split()[0].rstrip(";")
        wrong = [*lines[:number], f"{name}{arguments};", *lines[number + 1 :]]
        with contextlib.suppress(NginxError):
            check(tmp_path, "\n".join(wrong))


def test_a_finding_says_where(tmp_path: Path) -> None:
    (finding,) = check(tmp_path, GOOD.replace("proxy_read_timeout 90s;", "proxy_read_timeout 20s;"))
    line = GOOD.split("\n").index("            proxy_read_timeout 90s;") + 1
    assert finding.where == f"{tmp_path}/nginx.conf:{line}"


def test_settings_decide_what_is_wrong(tmp_path: Path) -> None:
    rules = [f.rule for f in check(tmp_path, GOOD, HEARTBEAT__WEBSOCKET_PING_TIMEOUT=95, EDGE__READ_TIMEOUT_S=120)]
    assert rules == ["read_timeout"]
    assert [finding.rule for finding in check(tmp_path, GOOD, SERVER__PATH="/push/")] == ["path"]
    assert [finding.rule for finding in check(tmp_path, GOOD, SERVER__DRAIN_S=60)] == ["shutdown"]


def test_a_node_may_be_a_unix_socket_however_it_is_written(tmp_path: Path) -> None:
    listed = GOOD.replace("server 127.0.0.1:8010;", "server unix:/run/a.sock;")
    assert check(tmp_path, listed, EDGE__UPSTREAMS=["127.0.0.1:8000", "unix:/run/a.sock"]) == []
    for target in ("http://unix:/run/a.sock;", "http://unix:/run/a.sock:/ws-notifications/;"):
        alone = GOOD.replace("http://backend;", target)
        assert check(tmp_path, alone, EDGE__UPSTREAMS=["unix:/run/a.sock"]) == []
        (finding,) = check(tmp_path, alone, EDGE__UPSTREAMS=["unix:/run/b.sock"])
        assert "goes to unix:/run/a.sock, and the gateway is at unix:/run/b.sock" in finding.message


def test_a_stream_in_between_has_timeouts_too(tmp_path: Path) -> None:
    stream = """
stream {
    server {
        listen unix:/run/hop.sock;
        proxy_timeout %s;
        proxy_pass 127.0.0.1:8000;
    }
}
"""
    behind = GOOD.replace("server 127.0.0.1:8010;", "").replace("server 127.0.0.1:8000;", "server unix:/run/hop.sock;")
    one = ["127.0.0.1:8000"]
    assert check(tmp_path, behind + stream % "90s", EDGE__UPSTREAMS=one) == []
    assert [f.rule for f in check(tmp_path, behind + stream % "45s", EDGE__UPSTREAMS=one)] == ["read_timeout"]


@pytest.mark.parametrize("file", sorted(SOURCE.glob("conf.d/*.conf")), ids=lambda file: file.name)
def test_our_own_configurations_are_not_blamed(file: Path) -> None:
    assert nginx_check.check_file(str(file), load(None, {})) == []


@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose.nodes.yaml"]], ids=["one", "several"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_compose_runs_is_not_blamed(tmp_path: Path, variant: str, files: list[str]) -> None:
    settings: dict[str, object] = {}
    for file in files:
        settings |= yaml.load((ROOT / file).read_text(), Loader)["x-settings"]
    effective = load(None, {name: str(value) for name, value in settings.items()})
    write(effective, tmp_path)
    assert nginx_check.check_file(str(tmp_path / f"conf.d/{variant}.conf"), effective) == []
    assert (effective.server.socket is None) == (len(files) > 1), "a socket is one node's"


def test_a_server_behind_a_filter_costs_a_websocket_two_connections_more(tmp_path: Path) -> None:
    settings = {
        "EDGE__NGINX": "image",
        "EDGE__UPSTREAMS": ["service:8000"],
        "EDGE__RESOLVER": "127.0.0.11:53",
        "EDGE__WORKERS": 1,
        "EDGE__WORKER_CONNECTIONS": 9000,
        "LIMITS__CONNECTIONS": 1500,
    }
    for limits, rules in ((1500, []), (1501, ["worker_connections"])):
        effective = load(None, environ(settings | {"LIMITS__CONNECTIONS": limits}))
        write(effective, tmp_path)
        findings = nginx_check.check_file(str(tmp_path / "conf.d/njs.conf"), effective)
        assert [finding.rule for finding in findings] == rules


def test_a_dump_of_nginx_is_read_like_its_files(tmp_path: Path) -> None:
    (tmp_path / "part.conf").write_text("worker_connections 64;\n")
    file = tmp_path / "nginx.conf"
    text = GOOD.replace("listen 8443 ssl;", "listen 127.0.0.1:8080;").replace("ssl_protocols TLSv1.2 TLSv1.3;", "")
    text = text.replace("worker_connections 16384;", f"include {tmp_path}/*.conf;".replace("*", "pa*"))
    file.write_text(f"pid {tmp_path}/pid;\n" + text.replace("/dev/stdout", f"{tmp_path}/log"))
    dump = subprocess.run([NGINX, "-T", "-q", "-e", "stderr", "-c", file], capture_output=True, text=True)
    assert dump.returncode == 0, dump.stderr
    findings = nginx_check.check_dump(dump.stdout, config())
    assert [finding.rule for finding in findings] == ["worker_connections"]
    assert findings[0].where == f"{tmp_path}/part.conf:1"


def test_what_is_no_dump_or_no_configuration_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(NginxError, match="nginx -T"):
        nginx_check.check_dump("hello", config())
    with pytest.raises(NginxError, match="no such file"):
        nginx_check.check_file(str(tmp_path / "none"), config())
    with pytest.raises(NginxError, match="is a folder"):
        nginx_check.check_file(str(tmp_path), config())
    with pytest.raises(NginxError, match="unexpected"):
        check(tmp_path, GOOD + "}")


def test_a_dump_may_have_been_saved_on_another_system() -> None:
    dump = f"# configuration file /etc/nginx/nginx.conf:\n{GOOD}"
    assert nginx_check.check_dump(dump.replace("\n", "\r\n"), config()) == []


def test_wherever_a_variable_leads_an_upgrade_must_be_asked_for(tmp_path: Path) -> None:
    somewhere = GOOD.replace("http://backend", "http://$cookie_node")
    assert check(tmp_path, somewhere) == []
    (finding,) = check(tmp_path, somewhere.replace("proxy_set_header Upgrade $http_upgrade;", ""))
    assert (finding.level, finding.rule) == ("breaks", "upgrade")


def test_what_a_pipe_holds_is_checked() -> None:
    """As of ``--nginx <(envsubst < nginx.conf.template)``."""
    reading, writing = os.pipe()
    with open(reading, "rb"):
        with open(writing, "w") as pipe:
            pipe.write(GOOD)
        assert nginx_check.check_file(f"/dev/fd/{reading}", config()) == []


def test_a_return_before_all_locations_is_not_cured_by_one(tmp_path: Path) -> None:
    def cure(good: str, wrong: str) -> str:
        (found,) = [each for each in check(tmp_path, GOOD.replace(good, wrong, 1)) if each.rule == "path"]
        return found.message

    cured = "put it into a `location /`"
    assert cured in cure("location", "return 301 https://$host; location")
    assert cured not in cure("proxy_pass", "return 301 https://$host; proxy_pass")


def command(*args: str, text: str = "") -> tuple[int, str]:
    """What ``tidegate check`` returns and prints."""
    ports = {"SERVER__PORT": free_port(), "INTERNAL__PORT": free_port()}  # or a gateway that runs here is warned of
    env = environ({"EDGE__UPSTREAMS": ["127.0.0.1:8000", "127.0.0.1:8010"], **ports}) | {
        "PYTHONPATH": f"{ROOT}/service"
    }
    said = subprocess.run(
        [sys.executable, "-m", "tidegate", "check", *args],
        cwd=ROOT,
        input=text,
        capture_output=True,
        text=True,
        env=env,
    )
    return said.returncode, said.stdout + said.stderr


def test_the_command_tells_what_breaks_from_what_is_to_be_hardened(tmp_path: Path) -> None:
    file = tmp_path / "nginx.conf"
    file.write_text(GOOD.replace("proxy_http_version 1.1;", "").replace("limit_conn addresses 100;", ""))
    code, said = command("--nginx", str(file))
    assert code == 1
    first, second, _, last = said.splitlines()
    assert first.startswith(f"nginx: breaks: {file}:")
    assert "set `proxy_http_version 1.1`" in first
    assert second.startswith(f"nginx: harden: {file}:")
    assert "limits: no limit_conn" in second
    assert last == "nginx: not ok, 1 thing breaks WebSockets"
    code, said = command("--nginx", str(file), "--json")
    answer = json.loads(said)
    assert (code, answer["ok"]) == (1, False)
    assert [(finding["level"], finding["rule"]) for finding in answer["nginx"]] == [
        ("breaks", "upgrade"),
        ("harden", "limits"),
    ]


def test_what_is_to_be_hardened_alone_fails_the_command_only_if_that_is_asked_for(tmp_path: Path) -> None:
    dump = f"# configuration file /etc/nginx/nginx.conf:\n{GOOD}"
    assert command("--nginx-dump", "-", "--strict", text=dump) == (0, "configuration: ok\nnginx: ok\n")
    dump = dump.replace("limit_conn addresses 100;", "")
    for strict, expected in (((), 0), (("--strict",), 1)):
        code, said = command("--nginx-dump", "-", *strict, text=dump)
        assert code == expected
        assert said.endswith("nginx: WebSockets get through, 1 thing is to be hardened\n")


def test_a_template_is_said_to_be_one(tmp_path: Path) -> None:
    for text in (
        "server_name {{ name }};",
        "listen ${PORT};",
        "{% if tls %} listen 443; {% endif %}",
        "user <%= a %>;",
    ):
        with pytest.raises(NginxError, match="this is a template"):
            check(tmp_path, GOOD.replace("listen 8443 ssl;", text))
    check(tmp_path, GOOD.replace("listen 8443 ssl;", "set $NAME a; add_header X ${NAME}; add_header Y ${http_host};"))
    code, said = command("--nginx", str(tmp_path / "none"), "--json")
    assert (code, json.loads(said)["problems"][0]["key"]) == (1, "nginx")


def test_a_part_is_said_to_be_one_and_judged_as_far_as_it_goes(tmp_path: Path) -> None:
    server = GOOD[GOOD.index("    upstream") : GOOD.rindex("}")]
    location = server[server.index("        location") : server.rindex("    }")]
    for text in (server, location.replace("http://backend", "http://127.0.0.1:8000")):
        findings = check(tmp_path, text)
        assert {finding.rule for finding in findings} >= {"part", "variable"}
        assert all(finding.level == "harden" for finding in findings)
        assert [f.rule for f in check(tmp_path, text.replace("1.1;", "1.0;")) if f.level == "breaks"] == ["upgrade"]
    with pytest.raises(NginxError, match="part of a configuration, without a server or a location"):
        check(tmp_path, "proxy_http_version 1.1;\nproxy_set_header Upgrade $http_upgrade;\n")


def test_as_many_workers_as_there_are_cores_may_be_enough(tmp_path: Path) -> None:
    auto = GOOD.replace("worker_processes 4;", "worker_processes auto;")
    assert check(tmp_path, auto) == []
    (finding,) = check(tmp_path, auto.replace("worker_connections 16384;", "worker_connections 400;"))
    assert (finding.level, finding.rule) == ("harden", "worker_connections")


def test_browsers_alone_are_told_of_where_programs_get_in(tmp_path: Path) -> None:
    """Each is let in by some client; only those that nobody gets past break."""
    asks = "proxy_buffering off; if ($http_origin = '') { return 403; }"
    firefox = 'map $http_connection $connection_upgrade { default ""; Upgrade upgrade; }'
    (finding,) = check(tmp_path, GOOD.replace("map $http_upgrade $connection_upgrade {", firefox + " map $a $b {"))
    assert (finding.level, finding.rule) == ("harden", "upgrade")
    assert "Firefox" in finding.message
    assert [finding.level for finding in check(tmp_path, GOOD.replace("proxy_buffering off;", asks))] == ["harden"]
    by_address = GOOD.replace("proxy_set_header Host $http_host;", "proxy_set_header Host 127.0.0.1;")
    assert [(f.level, f.rule) for f in check(tmp_path, by_address)] == [("harden", "host")]
    assert check(tmp_path, by_address, ORIGINS=["https://localhost:8443"]) == []


def test_nginx_may_let_in_what_only_some_clients_say(tmp_path: Path) -> None:
    """Pages of ``origins`` alone, and tokens as a subprotocol."""
    listed = GOOD.replace("proxy_pass", 'if ($http_origin != "https://shop.example") { return 403; } proxy_pass')
    assert [finding.level for finding in check(tmp_path, listed)] == ["breaks"]
    (finding,) = check(tmp_path, listed, ORIGINS=["https://blog.example", "https://shop.example"])
    assert (finding.level, finding.rule) == ("harden", "origin")
    assert "programs" in finding.message
    with_programs = listed.replace("!=", "!~").replace('"https://shop.example"', '"^(https://shop\\.example)?$"')
    assert check(tmp_path, with_programs, ORIGINS=["https://shop.example"]) == []
    bearer = GOOD.replace("proxy_pass", "if ($http_sec_websocket_protocol !~ bearer) { return 401; } proxy_pass")
    assert check(tmp_path, bearer) == []


def test_servers_that_pass_on_to_each_other_come_to_an_end(tmp_path: Path) -> None:
    itself = "".join("server 127.0.0.1:8443; " for _ in range(50))
    text = GOOD.replace("server 127.0.0.1:8000;", itself).replace("server 127.0.0.1:8010;", "")
    text = text.replace("listen 8443 ssl;", "listen 8443;")
    assert [finding.rule for finding in check(tmp_path, text)] == ["upstreams"]


def test_twenty_thousand_servers_are_read_in_seconds(tmp_path: Path) -> None:
    start, end = GOOD.index("    server {\n        listen"), GOOD.rindex("}")
    server = GOOD[start:end].replace("listen 8443 ssl;", "listen 8443 ssl; server_name %d.example.com localhost;")
    text = GOOD[:start] + "".join(server.replace("%d", f"s{number}") for number in range(2000)) + GOOD[end:]
    began = time.process_time()
    findings = check(tmp_path, text)
    assert time.process_time() - began < scaled(1.5), "a tenth of them"
    assert [finding.rule for finding in findings] == ["host"] * 1999 + ["names"], "of two of one name one is heard"
