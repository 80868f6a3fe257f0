"""What every edge does that the service alone does not: TLS, limits, logs, metrics, several nodes, reload and stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import ssl
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.brokers.server import RedisServer
from tests.edges.contract import PATH, UPGRADE, Contract
from tests.edges.edge import Stand, ask, certificates, stand
from tests.http.node import Answer, Link, head
from tests.peer import PING, Peer, Refusal, frame
from tests.scripted import server
from tests.support import eventually
from tidegate.doctor import nodes
from tidegate.nginx import certificate


async def ask_tls(port: int, context: ssl.SSLContext) -> tuple[Answer, str]:
    """An answer over TLS to what is no handshake, and the version of TLS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        version = writer.get_extra_info("ssl_object").version()
        answer = await Link(reader, writer).ask(head("GET", PATH + "?client=a", {"Host": f"127.0.0.1:{port}"}))
        return answer, version
    finally:
        await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):  # the other side does not say goodbye to TLS
        await writer.wait_closed()


def tls_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=f"{certificates()}/fullchain.pem")


class EdgeContract(Contract):
    close_code_at_stop: int | None = None  # with which sessions end that are open when nginx stops, if with any

    # TLS

    async def test_wss_is_the_same_session(self, s: Stand, name: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.edge.tls_port, ssl=tls_context())
        host = f"127.0.0.1:{s.edge.tls_port}"
        origin = {"Host": host, "Origin": f"https://{host}"}
        writer.write(head("GET", f"{PATH}?client={name}", UPGRADE | origin))
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 ")
        first, length = await reader.readexactly(2)
        assert (first, length) == (0x81, 126)
        welcome = json.loads(await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big")))
        assert welcome["client"] == name
        writer.write(frame(PING, b"x"))
        assert await reader.readexactly(3) == b"\x8a\x01x"
        await _close(writer)

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    async def test_tls_1_2_and_1_3_are_spoken(self, s: Stand, version: ssl.TLSVersion) -> None:
        context = tls_context()
        context.minimum_version = context.maximum_version = version
        answer, spoken = await ask_tls(s.edge.tls_port, context)
        assert answer.status == 426
        assert spoken.replace(".", "_") == version.name
        assert "strict-transport-security" not in answer.headers

    async def test_older_tls_and_ciphers_without_forward_secrecy_are_refused(self, s: Stand) -> None:
        old = tls_context()
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        weak = tls_context()
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers("ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA:@SECLEVEL=0")
        for context in (old, weak):
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await ask_tls(s.edge.tls_port, context)

    async def test_plain_http_on_the_tls_port_is_400(self, s: Stand) -> None:
        answer = await ask(s.edge.tls_port, "GET", PATH)
        assert (answer.status, answer.code) == (400, "bad_request")

    # Limits

    async def check_limited(self, s: Stand, refused: int) -> None:
        """So many of the edge's answers were 429: whether its metrics know."""

    async def test_one_address_has_its_limits(self, s: Stand) -> None:
        limits = {
            "EDGE__CONNECTIONS_PER_ADDRESS": 3,
            "EDGE__HANDSHAKES_PER_SECOND": 1,
            "EDGE__HANDSHAKES_BURST": 5,
            "EDGE__HSTS_S": 600,
        }
        async with stand(self.variant, behind=s, edge=limits) as s:
            peers = [s.peer(f"p{n}") for n in range(3)]
            for peer in peers:
                await peer.connect()
                await peer.event()
            refusals = []
            for _ in range(4):
                with pytest.raises(Refusal) as info:
                    await s.peer("late").connect()
                refusals.append(info.value)
            for refusal in refusals:
                assert (refusal.status, refusal.code) == (429, "too_many_connections")
                assert int(refusal.headers["retry-after"]) > 0
                assert "strict-transport-security" not in refusal.headers  # not over plain HTTP
            log = s.edge.process.stderr
            assert "limiting connections by zone" in log
            assert "limiting requests" in log
            await self.check_limited(s, len(refusals))
            for peer in peers:
                await peer.cut()
            answer, _ = await ask_tls(s.edge.tls_port, tls_context())
            assert answer.headers["strict-transport-security"] == "max-age=600"

    async def test_slow_headers_are_cut_and_large_ones_and_bodies_refused(self, s: Stand) -> None:
        async with stand(self.variant, behind=s, edge={"SERVER__HEADER_TIMEOUT_S": 0.3}) as s:
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
            writer.write(b"GET /ws-notifications/?client=a HTTP/1.1\r\nHost: localhost\r\n")
            begun = time.monotonic()
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            assert time.monotonic() - begun >= 0.25
            writer.close()
            answer = await ask(s.port, "GET", PATH + "?x=" + "x" * 13_000, UPGRADE)
            assert (answer.status, answer.code) == (414, "bad_request")
            answer = await ask(s.port, "GET", PATH, {**UPGRADE, "Cookie": "x" * 13_000})
            assert (answer.status, answer.code) == (400, "bad_request")
            s.provoked("client intended to send too large body")
            answer = await ask(s.port, "GET", PATH, {**UPGRADE, "Content-Length": "2000"})
            assert (answer.status, answer.code) == (413, "too_large")
            answer = await ask(s.port, "BAD\x01", PATH)
            assert (answer.status, answer.code) == (400, "bad_request")

    async def test_a_trusted_proxy_says_where_a_client_is(self, s: Stand, name: str) -> None:
        async with s.peer(name, headers={"X-Forwarded-For": "192.0.2.1"}) as peer:
            await peer.event()
        assert (await s.edge.logged(client=name))["address"] == "127.0.0.1"
        async with stand(self.variant, behind=s, edge={"EDGE__TRUSTED_PROXIES": ["127.0.0.0/8"]}) as trusting:
            async with trusting.peer(name, headers={"X-Forwarded-For": "198.51.100.7, 192.0.2.1"}) as peer:
                await peer.event()
            assert (await trusting.edge.logged(client=name))["address"] == "192.0.2.1"

    # Monitoring

    async def test_the_log_has_a_line_for_each_websocket_and_no_token(self, s: Stand, name: str) -> None:
        with pytest.raises(Refusal):
            await s.peer(name, token="secret", cursor="secret").connect()
        async with s.peer(name, unknown="secret") as peer:
            await peer.event()
            connection = peer.answer_headers["tidegate-connection"]
            for _ in range(100):
                peer.send_text("ping")
            for _ in range(100):
                await peer.raw()
            peer.close(1000)
            await peer.ended()
        line = await s.edge.logged(client=name)
        assert (line["status"], line["path"], line["conn"]) == (101, PATH, connection)
        assert line["upstream"] != ""
        assert line["bytes_in"] > 1000
        assert line["bytes_out"] > 600
        assert line["duration_s"] >= 0
        assert line["close_code"] in (None, 1000)
        assert "secret" not in s.edge.access_log.read_text()

    async def test_the_log_is_utf_8_whatever_a_client_sends(self, s: Stand, name: str) -> None:
        async with s.peer(name, headers={"User-Agent": "\xff\xfe bytes"}) as peer:
            await peer.event()
        assert (await s.edge.logged(client=name))["agent"] == "(not ASCII)"
        async with s.peer(name + "2", headers={"User-Agent": 'a "plain" one'}) as peer:
            await peer.event()
        assert (await s.edge.logged(client=name + "2"))["agent"] == 'a "plain" one'
        for target in ("/%ff%fe", f"{PATH}%ff", "/%c3%28/../x%80", "/\xff"):
            await ask(s.port, "GET", target, {"User-Agent": "\xff"})
        with pytest.raises(Refusal):
            await s.peer("\udcff".encode(errors="surrogateescape").decode("latin-1"), groups="\xff").connect()
        await ask(s.port, "\xff", "/")
        async with s.peer(name + "3") as peer:
            await peer.event()
        await s.edge.logged(client=name + "3")
        s.edge.access_log.read_bytes().decode()  # and each line is JSON, or it would not have been found

    async def test_it_tells_its_health_and_counts_websockets(self, s: Stand, name: str) -> None:
        assert (await ask(s.edge.internal, "GET", "/healthz")).json == {"status": "ok"}

        async def count() -> int:
            return self.websockets((await ask(s.edge.internal, "GET", "/metrics")).body.decode())

        await eventually(lambda: _is(count, 0), 20)  # of other tests
        async with s.peer(name), s.peer(name):
            await eventually(lambda: _is(count, 2))
        await eventually(lambda: _is(count, 0))

    async def test_its_metrics_tell_what_it_is_and_when_its_certificate_ends(self, s: Stand) -> None:
        text = (await ask(s.edge.internal, "GET", "/metrics")).body.decode()
        samples: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples[sample.name] = sample.value
                if sample.name == "tidegate_edge_info":
                    assert sample.labels["variant"] == s.edge.variant
                    assert re.match(r"[0-9]+\.", sample.labels["nginx"])
        edge = s.edge.config.edge
        assert samples["tidegate_edge_connections_limit"] == edge.workers * edge.worker_connections
        ends_s = certificate.ends_s(Path(edge.tls_dir) / "fullchain.pem")
        assert samples["tidegate_edge_certificate_end_seconds"] == ends_s

    async def test_the_doctor_measures_it_by_its_own_connections(self, s: Stand) -> None:
        """A node's settings, which the doctor has from its API, may be those of another machine."""
        theirs = {"internal": f"127.0.0.1:{s.edge.internal}", "workers": 1, "worker_connections": 1, "trunk": False}
        health = {"settings": {"edge": theirs, "trunk": {}}, "nodes": [{"trunks": []}]}
        (finding,) = await asyncio.to_thread(nodes.edge, health, None)
        edge = s.edge.config.edge
        assert finding.level == "ok"
        assert finding.how.endswith(f" of {edge.workers * edge.worker_connections} are used")

    def websockets(self, metrics: str) -> int:
        """Live WebSockets, from what ``/metrics`` said."""
        raise NotImplementedError

    async def test_a_node_hears_where_a_client_is_and_by_which_id_the_log_has_it(self, s: Stand) -> None:
        heard: list[str] = []

        async def node(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.extend((await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n"))
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

        headers = {"X-Forwarded-For": "192.0.2.1", "X-Request-Id": "mine", "Sec-WebSocket-Extensions": "x"}
        async with server(node) as port:
            async with stand(self.variant, behind=s, edge={"EDGE__UPSTREAMS": [f"127.0.0.1:{port}"]}) as s:
                with pytest.raises(Refusal):
                    await s.peer("a", headers=headers).connect()
                line = await s.edge.logged(status=403)
        assert {"x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http"} <= set(heard)
        assert f"x-request-id: {line['request_id']}" in heard
        assert f"host: 127.0.0.1:{s.port}" in heard
        assert not [field for field in heard if field.startswith("sec-websocket-extensions")]

    # Several nodes (tests/edges/test_edge_nodes.py has more)

    @pytest.mark.parametrize("path", ["/.probe", "/.probed", "/.refused/204", "/.refused/502"])
    async def test_what_an_edge_asks_itself_is_not_served(self, s: Stand, path: str) -> None:
        answer = await ask(s.port, "GET", path)
        assert (answer.status, answer.code) == (404, "not_found")

    async def test_the_node_with_the_fewest_is_next_and_a_dead_or_draining_one_is_passed_over(self) -> None:
        async with stand(self.variant, nodes=3, SERVER__DRAIN_S=3) as s:
            s.provoked("Connection refused|prematurely closed|reset by peer")
            peers = [s.peer(f"p{n}") for n in range(9)]
            for peer in peers:
                await peer.connect()
                await peer.event()
            nodes = [peer.seen[0]["node"] for peer in peers]
            assert sorted(nodes.count(node) for node in set(nodes)) == [3, 3, 3]

            one, other, _ = sorted(set(nodes))
            for peer in [*_of(peers, one)[:2], _of(peers, other)[0]]:
                await peer.cut()
                await s.edge.logged(client=peer.seen[0]["client"])
            more = [s.peer(f"more{n}") for n in range(3)]
            for peer in more:
                await peer.connect()
                await peer.event()
            assert sorted(peer.seen[0]["node"] for peer in more) == [one, one, other]  # in turn, each would have one

            s.nodes[0].process.signal(signal.SIGTERM)
            await eventually(lambda: s.nodes[0].process.logged("drain.started"))
            s.nodes[1].process.kill()
            for n in range(20):  # where two have equally few, chance decides who is asked first
                async with s.peer(f"late{n}") as late:
                    assert (await late.event())["node"].startswith("n3")
            await self.check_passed_over(s)
            for peer in peers + more:
                await peer.cut()

    async def check_passed_over(self, s: Stand) -> None:
        """The first two of three nodes took no handshake: whether its metrics know."""

    async def test_a_rolling_restart_loses_nothing_and_needs_no_stickiness(self) -> None:
        with RedisServer() as redis:
            async with stand(self.variant, nodes=2, BROKER__KIND="redis", BROKER__URL=redis.url) as s:
                s.provoked("Connection refused|prematurely closed|reset by peer")
                cursor: dict[str, str] = {}
                for number, (restarted, other) in enumerate(zip(s.nodes, s.nodes[::-1], strict=True)):
                    async with s.peer("alice", **cursor) as alice:
                        node = (await alice.event())["node"]
                        cursor = {"cursor": (await alice.ask(type="ping", id=1))["cursor"]}
                        draining = restarted.process
                        draining.signal(signal.SIGTERM)
                        await draining.line("drain.started")
                        for n in range(10):
                            await other.push("clients/alice", [number, n])
                        if node.startswith(restarted.name) and self.closes_at_drain:
                            assert await alice.ended() == 1012
                    async with s.peer("alice", **cursor) as alice:
                        assert (await alice.event())["node"].startswith(other.name)
                        assert [event["data"] for event in await alice.events(10)] == [[number, n] for n in range(10)]
                        cursor = {"cursor": (await alice.ask(type="ping", id=1))["cursor"]}
                    assert await draining.ended() == 0
                    restarted.start()
                    await restarted.ready()

    # Reload and stop

    async def test_a_reload_takes_new_sessions_at_once_and_lets_old_ones_go_on_for_a_while(self, s: Stand) -> None:
        async with stand(self.variant, behind=s, edge={"EDGE__SHUTDOWN_TIMEOUT_S": 2}) as s:
            async with s.peer("old") as old:
                await old.event()
                await s.edge.reload()
                async with s.peer("new") as new:
                    await new.event()
                    if self.close_code_at_stop is None:
                        await s.node.push("clients/old", "still here")
                        assert (await old.event())["data"] == "still here"
                    assert await old.ended(10) == self.close_code_at_stop
                    await s.node.push("clients/new", 1)
                    assert (await new.event())["data"] == 1
            await eventually(lambda: len(s.edge.workers()) == 1)

    async def test_a_stop_ends_sessions_in_time(self, s: Stand) -> None:
        edge = {"EDGE__SHUTDOWN_TIMEOUT_S": 1}
        async with stand(self.variant, behind=s, edge=edge) as s, s.peer("alice") as alice:
            await alice.event()
            s.edge.process.signal(signal.SIGQUIT)
            assert await alice.ended() == self.close_code_at_stop
            assert await s.edge.process.ended() == 0

    async def test_a_fast_stop_cuts_everybody_at_once(self, s: Stand) -> None:
        edge = {"EDGE__SHUTDOWN_TIMEOUT_S": 60}
        async with stand(self.variant, behind=s, edge=edge) as s, s.peer("alice") as alice:
            await alice.event()
            s.edge.process.signal(signal.SIGTERM)
            assert await alice.ended() is None
            assert await s.edge.process.ended() == 0


async def _is(count: object, wanted: int) -> bool:
    return bool(await count() == wanted)  # type: ignore[operator]


def _of(peers: list[Peer], node: str) -> list[Peer]:
    """Those whose session is on this node."""
    return [peer for peer in peers if peer.seen[0]["node"] == node]
