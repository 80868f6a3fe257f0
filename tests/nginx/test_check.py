"""``check --nginx``: each rule is broken once in an otherwise good configuration, and named."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.edges.edge import NGINX, environ
from tests.support import ROOT, free_port
from tidegate.config.load import load
from tidegate.config.settings import Config
from tidegate.nginx import check as nginx_check
from tidegate.nginx.files import NginxError
from tidegate.nginx.render import SOURCE, VARIANTS, write

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

# What is changed into what, the rule that says so, and a word of the message.
WRONG = [
    ("proxy_read_timeout 90s;", "proxy_read_timeout 20s;", "read_timeout", "before the next ping"),
    ("proxy_read_timeout 90s;", "proxy_read_timeout 1m;", "read_timeout", "before the service closes it"),
    ("proxy_read_timeout 90s;", "", "read_timeout", "60 s"),
    ("proxy_send_timeout 90s;", "proxy_send_timeout 5s;", "send_timeout", "write_timeout_s"),
    ("client_header_timeout 10s;", "client_header_timeout 10s; send_timeout 10s;", "send_timeout", "slow peer"),
    ("proxy_buffering off;", "", "buffering", "proxy_buffering off"),
    ("proxy_buffering off;", "proxy_buffering on;", "buffering", "proxy_buffering off"),
    ("proxy_http_version 1.1;", "", "upgrade", "HTTP/1.1"),
    ("proxy_set_header Upgrade $http_upgrade;", "", "upgrade", "Upgrade $http_upgrade"),
    ("proxy_set_header Connection $connection_upgrade;", "", "upgrade", "Connection"),
    ("proxy_set_header Connection $connection_upgrade;", 'proxy_set_header Connection "";', "upgrade", "Connection"),
    ("proxy_set_header Host $http_host;", "", "host", "Host"),
    ("proxy_buffering off;", 'proxy_buffering off; proxy_set_header Origin "";', "origin", "Origin"),
    ("limit_conn addresses 100;", "", "limits", "limit_conn"),
    ("limit_req zone=requests burst=50 nodelay;", "", "limits", "limit_req"),
    ("worker_connections 16384;", "", "worker_connections", "512"),
    ("worker_connections 16384;", "worker_connections 4096;", "worker_connections", "8192 WebSockets"),
    ("worker_processes 4;", "", "worker_connections", "30000"),
    ("worker_rlimit_nofile 20000;", "", "nofile", "16384"),
    ("worker_rlimit_nofile 20000;", "worker_rlimit_nofile 8192;", "nofile", "16384"),
    ("worker_shutdown_timeout 30s;", "", "shutdown", "old workers stay"),
    ("worker_shutdown_timeout 30s;", "worker_shutdown_timeout 10s;", "shutdown", "drain of 20 s"),
    ("client_max_body_size 1k;", "", "body_size", "client_max_body_size"),
    ("client_max_body_size 1k;", "client_max_body_size 0;", "body_size", "client_max_body_size"),
    ("large_client_header_buffers 4 12k;", "", "header_size", "414"),
    ("client_header_timeout 10s;", "", "header_timeout", "60 s"),
    ("server 127.0.0.1:8010;", "", "upstreams", "127.0.0.1:8010"),
    ("server 127.0.0.1:8010;", "server 127.0.0.1:8020;", "upstreams", "127.0.0.1:8020"),
    ("http://backend;", "http://127.0.0.1:8000;", "upstreams", "goes to 127.0.0.1:8000"),
    ("listen 8443 ssl;", "location /m { proxy_pass http://127.0.0.1:8001; }", "internal_port", "never reached"),
    ("proxy_next_upstream error timeout http_503;", "", "next_upstream", "http_503"),
    ("location /ws-notifications/ {", "location /ws/ {", "path", "/ws-notifications/"),
    ("ssl_protocols TLSv1.2 TLSv1.3;", "ssl_protocols TLSv1 TLSv1.2;", "tls", "TLSv1 "),
    ("access_log /dev/stdout json;", "", "log", "tokens"),
    ("access_log /dev/stdout json;", "access_log /dev/stdout;", "log", "$request"),
    ('"$uri"', '"$request_uri"', "log", "$request_uri"),
    ('"$uri"', '"$uri?$args"', "log", "$args"),
    ('"$uri"', '"$http_authorization"', "log", "$http_authorization"),
]


def config(**settings: object) -> Config:
    return load(None, environ({"EDGE__UPSTREAMS": ["127.0.0.1:8000", "127.0.0.1:8010"], **settings}))


def check(folder: Path, text: str, **settings: object) -> list[nginx_check.Finding]:
    file = folder / "nginx.conf"
    file.write_text(text)
    return nginx_check.check_file(str(file), config(**settings))


def test_a_good_configuration_is_not_blamed(tmp_path: Path) -> None:
    assert check(tmp_path, GOOD) == []


@pytest.mark.parametrize(("good", "wrong", "rule", "word"), WRONG)
def test_each_rule_is_named_with_its_fix(tmp_path: Path, good: str, wrong: str, rule: str, word: str) -> None:
    assert GOOD.count(good) == 1
    findings = check(tmp_path, GOOD.replace(good, wrong))
    assert {finding.rule for finding in findings if finding.level == "error"} == {rule}
    assert any(word in finding.message for finding in findings)


def test_every_rule_is_in_the_table() -> None:
    source = (ROOT / "service/tidegate/nginx/check.py").read_text()
    named = {
        part.split('"')[1]
        for part in source.replace("(\n", "(").replace("(            ", "(").split("_error(")[1:]
        if part.startswith('"')
    }
    assert named == {rule for _, _, rule, _ in WRONG} | {"syntax"}


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
    for target in ("http://unix:/run/a.sock;", "http://unix:/run/a.sock:/push/;"):
        alone = GOOD.replace("http://backend;", target)
        assert check(tmp_path, alone, EDGE__UPSTREAMS=["unix:/run/a.sock"]) == []
        (finding,) = check(tmp_path, alone, EDGE__UPSTREAMS=["unix:/run/b.sock"])
        assert "goes to unix:/run/a.sock, and edge.upstreams is unix:/run/b.sock" in finding.message


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


def test_who_has_a_proxy_in_front_is_told_to_look_there_too(tmp_path: Path) -> None:
    (advice,) = check(tmp_path, GOOD.replace("http {", "http {\n    set_real_ip_from 10.0.0.0/8;"))
    assert (advice.level, advice.rule) == ("advice", "ingress")
    assert "300 s" in advice.message


@pytest.mark.parametrize("file", sorted(SOURCE.glob("conf.d/*.conf")), ids=lambda file: file.name)
def test_our_own_configurations_are_not_blamed(file: Path) -> None:
    assert nginx_check.check_file(str(file), load(None, {})) == []


@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose.nodes.yaml"]], ids=["one", "several"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_compose_runs_is_not_blamed(tmp_path: Path, variant: str, files: list[str]) -> None:
    settings: dict[str, object] = {}
    for file in files:
        settings |= yaml.safe_load((ROOT / file).read_text())["x-settings"]
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
    with pytest.raises(NginxError, match="unexpected"):
        check(tmp_path, GOOD + "}")


def test_the_command_reads_files_and_dumps_and_answers_in_json(tmp_path: Path) -> None:
    file = tmp_path / "nginx.conf"
    file.write_text(GOOD.replace("proxy_buffering off;", ""))
    command = [sys.executable, "-m", "tidegate", "check", "--nginx", str(file)]
    ports = {"SERVER__PORT": free_port(), "INTERNAL__PORT": free_port()}  # or a gateway that runs here is warned of
    env = environ({"EDGE__UPSTREAMS": ["127.0.0.1:8000", "127.0.0.1:8010"], **ports})
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert (said.returncode, said.stderr) == (1, "")
    assert "buffering: answers are buffered; set proxy_buffering off" in said.stdout
    answer = json.loads(subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, env=env).stdout)
    assert answer["ok"] is False
    assert [finding["rule"] for finding in answer["nginx"]] == ["buffering"]
    dump = f"# configuration file /etc/nginx/nginx.conf:\n{GOOD}"
    said = subprocess.run(
        [*command[:4], "--nginx-dump", "-"], cwd=ROOT, input=dump, capture_output=True, text=True, env=env
    )
    assert (said.returncode, said.stdout) == (0, "configuration: ok\nnginx: ok\n")
