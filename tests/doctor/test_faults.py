"""Faults planted into real set-ups, each named by what it is, and nothing else called wrong."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from tests.brokers.proxy import Proxy
from tests.brokers.server import RedisServer
from tests.callee import Peer as CallsPeer
from tests.callee import serving
from tests.doctor.faulty import BAD_TLS, FAULTS, SHORT_LINES, nginx, pongs, without_pings, without_pongs
from tests.edges.edge import Stand, certificates, stand
from tests.faults.clock import Clock
from tests.http.node import node
from tests.support import ROOT, eventually, scaled
from tidegate.config.load import effective, load
from tidegate.doctor import heartbeat, nodes, timeouts
from tidegate.doctor.examination import Wishes, examine
from tidegate.doctor.report import Finding
from tidegate.doctor.target import read

# What each deployment of ``faulty`` is told: (what, a word of it).
NAMED = {
    "nothing": [],
    "no upgrade": [("handshake", "Upgrade")],
    "redirect": [("redirect", "301 to https://")],
    "another host": [("own pages", "Host"), ("host rule", "DNS rebinding")],
    "no origin": [("origin rule", "any page may connect")],
    "compression": [("compression", "permessage-deflate")],
    "no subprotocol": [("subprotocol", "Sec-WebSocket-Protocol")],
    "pages for refusals": [("refusals", "proxy_intercept_errors")],
    "impatient": [("quiet connection", "proxy_read_timeout")],
    SHORT_LINES: [("request line", "large_client_header_buffers")],
    BAD_TLS: [
        ("certificate", "do not trust"),
        ("certificate's end", "has ended"),
        ("TLS versions", "TLS 1.0, TLS 1.1"),
    ],
}


def assert_named(findings: Sequence[Finding], named: Sequence[tuple[str, str]]) -> None:
    """Just these are wrong or weak."""
    bad = [finding for finding in findings if finding.level in ("wrong", "weak")]
    assert sorted(finding.what for finding in bad) == sorted(what for what, _ in named), list(map(str, bad))
    for what, word in named:
        assert any(finding.what == what and word in str(finding) for finding in bad), (what, word, list(map(str, bad)))
    assert all(finding.do for finding in bad)


async def test_each_fault_of_an_edge_is_named_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {*FAULTS, SHORT_LINES, BAD_TLS} == set(NAMED)
    monkeypatch.setattr(heartbeat, "ANSWER_S", scaled(1))
    wishes = Wishes(hold_s=1.3)
    async with node(CALLS__ALLOW="[]") as n, Proxy(n.app.public_port, answered=without_pongs) as deaf:
        with nginx(tmp_path, n.app.public_port) as (process, ports):
            await process.port(ports["nothing"])
            urls = {name: f"{'wss' if name == BAD_TLS else 'ws'}://127.0.0.1:{port}" for name, port in ports.items()}
            urls["no control heartbeat"] = f"ws://127.0.0.1:{deaf.port}"
            targets = [msgspec.structs.replace(read(url), client=f"c{i}") for i, url in enumerate(urls.values())]
            found = await asyncio.gather(*(examine(target, None, wishes) for target in targets))
    for name, findings in zip(urls, found, strict=True):
        assert_named(findings, NAMED.get(name, [("control heartbeat", "swallows control frames")]))


async def test_waiting_shows_pings_that_are_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "SPARE_S", 0.8)
    beats = {"HEARTBEAT__WEBSOCKET_PING_INTERVAL": "0.2", "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": "0.5"}
    async with node(**beats) as n, Proxy(n.app.public_port, answered=without_pings) as proxy:
        whole = msgspec.structs.replace(read(f"ws://127.0.0.1:{n.app.public_port}"), client="a")
        deaf = msgspec.structs.replace(whole, port=proxy.port)
        assert_named(await timeouts.wait(whole), [])
        # Nothing is a sign of life any more, so that the node ends what it should keep.
        assert_named(await timeouts.wait(deaf), [("kept connection", "swallows control frames")])


async def test_waiting_shows_pings_that_are_answered_in_the_clients_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "SPARE_S", 0.8)
    beats = {"HEARTBEAT__WEBSOCKET_PING_INTERVAL": "0.2", "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": "0.5"}
    async with node(**beats) as n, Proxy(n.app.public_port, without_pings, pongs) as proxy:
        url = f"ws://127.0.0.1:{proxy.port}"
        named = [("kept connection", "no control ping came"), ("idle timeout", "answers pings in the client's name")]
        assert_named(await timeouts.wait(msgspec.structs.replace(read(url), client="a")), named)


@pytest.mark.parametrize(
    ("metrics", "settings", "found"),
    [
        ("tidegate_edge_trunks 0", {}, [("weak", "no trunk to")]),
        ("tidegate_edge_trunks 2", {}, [("ok", "the edge has 2")]),
        ("tidegate_edge_trunks 0", {"TRUNK__SOCKET": "null"}, []),
        ("tidegate_edge_trunks 0", {"EDGE__TRUNK": "false"}, []),
        ("", {}, []),
    ],
)
async def test_an_edge_without_the_trunks_that_it_may_have_is_named(
    metrics: str, settings: dict[str, str], found: list[tuple[str, str]]
) -> None:
    """Such as one whose workers may not open the node's socket: it relays, and its log alone says so."""
    given = {"TIDEGATE_TRUNK__SOCKET": "/run/tidegate/t.sock"} | {f"TIDEGATE_{key}": settings[key] for key in settings}
    health = {"settings": effective(load(None, given)), "nodes": []}
    text = f'Active connections: 1\ntidegate_edge_info{{variant="openresty"}} 1\n{metrics}\n'

    async def answers(peer: CallsPeer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.answer(text.encode())

    async with serving(answers) as edge:
        findings = await asyncio.to_thread(nodes.edge, health, edge.url.removeprefix("http://"))
    assert findings[0].level == "ok", findings
    told = [finding for finding in findings if finding.what == "trunks"]
    assert [(each.level, word in str(each)) for each, (_, word) in zip(told, found, strict=True)] == [
        (level, True) for level, _ in found
    ]


async def doctor(*args: str) -> tuple[int, list[Finding]]:
    """As one runs it: the exit code, and what was found."""
    ran = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tidegate", "doctor", *args, "--json", stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    said, _ = await ran.communicate()
    answer = msgspec.json.decode(said)
    findings = msgspec.convert(answer["findings"], list[Finding])
    assert answer["ok"] == (ran.returncode == 0)
    return ran.returncode or 0, findings


def deployed(s: Stand, scheme: str = "ws") -> list[str]:
    port = s.edge.port if scheme == "ws" else s.edge.tls_port
    ca = f"{certificates()}/fullchain.pem"
    edge = f"127.0.0.1:{s.edge.internal}"
    return [f"{scheme}://127.0.0.1:{port}", "--api", f"http://127.0.0.1:{s.node.internal}", "--edge", edge, "--ca", ca]


@pytest.mark.slow
async def test_there_is_no_false_alarm_on_the_three_edges_and_what_redis_and_nodes_lack_is_named(
    tmp_path: Path,
) -> None:
    clock = Clock(tmp_path / "clock")
    with RedisServer(appendonly="yes", environ=clock.environ) as redis:
        shared = {"BROKER__KIND": "redis", "BROKER__URL": redis.url}
        async with stand("plain", nodes=2, rest=True, **shared) as plain:
            runs = [doctor(*deployed(plain, "wss"))]
            before = {**shared, "CALLS__URL": f"http://127.0.0.1:{plain.rest_port}"}
            async with (
                stand("njs", behind=plain, **before) as njs,
                stand("openresty", behind=plain, **before) as openresty,
            ):
                runs += [doctor(*deployed(njs)), doctor(*deployed(openresty))]
                for each in (plain, njs, openresty):  # the doctor goes away while something is on its way to it
                    each.edge.provoked("reset by peer. while proxying upgraded connection")
                for code, findings in await asyncio.gather(*runs):
                    assert (code, [str(each) for each in findings if each.level != "ok"]) == (0, [])
                    assert len(findings) > 30
        different = {"LIMITS__GROUPS_PER_CONNECTION": 7}
        async with stand("plain", nodes=2, rest=True, first=different, **shared) as s:
            (reader, _) = (await s.node.call("GET", "/api/nodes")).json["nodes"]
            redis.command("SET", "tidegate:push:lease", f"{reader['node']}:0")
            redis.command("XADD", "tidegate:push", "1-1", "all", "1", "data", "1")
            redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru", "appendonly", "no")
            clock.set(30)

            async def is_off() -> bool:
                nodes = (await s.node.call("GET", "/api/health")).json["nodes"]
                return all((each["health"]["clock_off_ms"] or 0) < -20_000 for each in nodes) and len(nodes) == 2

            await eventually(is_off, 10)
            code, findings = await doctor(*deployed(s))
        assert code == 1
        assert_named(
            findings,
            [
                ("settings", "limits.groups_per_connection is n1"),
                ("clocks", "n2"),
                ("Redis eviction", "allkeys-lru"),
                ("Redis persistence", "none"),
                ("pushes through Redis", "1 wait"),
            ],
        )
