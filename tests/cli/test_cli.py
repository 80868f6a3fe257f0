"""The commands push, tail and token, run as their users run them: as programs, against a node."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import callee
from tests.brokers.contract_words import SPAN
from tests.http.node import Node, node
from tests.peer import Peer
from tests.support import ROOT, Process, eventually, free_port, scaled
from tidegate.auth.tokens import Verifier, sign
from tidegate.cli.main import main
from tidegate.config.auth import AuthSettings

SECRET = "a shared secret of more than 32 bytes"
API_KEY = "a-key-for-the-api-made-for-this-test"

WAITS = "tidegate: waiting for messages of {}; Ctrl-C ends it\n"

StartProcess = Callable[..., Process]


class Ran(NamedTuple):
    code: int
    out: str
    err: str


async def run(*args: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Ran:
    """``tidegate`` with these arguments and ``TIDEGATE_`` settings, to its end."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tidegate", *args],
        input=stdin,
        capture_output=True,
        env=clean | {f"TIDEGATE_{name}": value for name, value in (env or {}).items()},
        cwd=ROOT,
        timeout=scaled(20),
    )
    out, err = ran.stdout.decode(), ran.stderr.decode()
    assert "Traceback" not in err
    return Ran(ran.returncode, out, err)


def url(n: Node) -> str:
    return f"http://{n.host}"


# push


@pytest.mark.parametrize(
    ("address", "stream"),
    [(["--client", "alice"], "client:alice"), (["--group", "news"], "group:news"), (["--all"], "all")],
)
async def test_push_prints_the_position(address: list[str], stream: str) -> None:
    async with node() as n:
        ran = await run("push", *address, '{"n":1}', "--url", url(n))
        epoch = (await n.push("all", 0))["epoch"]
        assert ran == Ran(0, f"{stream} {epoch}:1\n", "")
        ran = await run("push", *address, "-5", "--json", "--url", url(n))
        assert (ran.code, json.loads(ran.out)["stream"]) == (0, stream)


async def test_push_reads_standard_input_and_leaves_the_bytes_as_they_are() -> None:
    async with node() as n:
        ran = await run("push", "--all", "-", "--url", url(n), stdin='{"é" :\n 1e400}'.encode())
        assert ran.code == 0
        assert '"data":{"é" :\n 1e400}}'.encode() in (await n.call("GET", "/api/all/history")).body


async def test_push_with_a_word_says_it() -> None:
    async with node() as n:
        assert (await run("push", "--group", "a", "1", "--conflate", "north", "--url", url(n))).code == 0
        page = await n.app.broker.history("group:a", None, messages=9, size=999)
        assert [(message.data, message.conflate) for message in page.messages] == [(b"1", "north")]


async def test_push_with_a_span_is_traced_with_it() -> None:
    async with node() as n:
        assert (await run("push", "--group", "a", "1", "--traceparent", SPAN, "--url", url(n))).code == 0
        assert f"traceparent {SPAN}" in (await run("trace", "group:a", "1", "--url", url(n))).out


async def test_push_with_a_key_pushes_once() -> None:
    async with node() as n:
        first, second = [await run("push", "--all", "1", "--key", "schlüssel", "--url", url(n)) for _ in range(2)]
        assert first == second
        ran = await run("push", "--all", "2", "--key", "schlüssel", "--url", url(n))
        assert (ran.code, ran.out) == (1, "")
        assert "key_reused" in ran.err


async def test_where_the_service_is_and_its_key_come_from_the_configuration() -> None:
    keys = json.dumps([API_KEY])
    async with node(INTERNAL__API_KEYS=keys, INTERNAL__HOSTS='["push.internal"]') as n:
        where = {"INTERNAL__PORT": str(n.app.internal_port), "INTERNAL__HOSTS": '["push.internal"]'}
        for right in ({"INTERNAL__API_KEYS": keys}, {"API_KEY": API_KEY}):
            assert (await run("push", "--all", "1", env=where | right)).code == 0
        for wrong in ({}, {"API_KEY": "wrong"}, {"API_KEY": "wrong", "INTERNAL__API_KEYS": keys}):
            ran = await run("push", "--all", "1", env=where | wrong)
            assert ran.code == 1
            assert "unauthorized" in ran.err


@pytest.mark.parametrize(
    "args",
    [
        ["push", "1"],
        ["push", "--all"],
        ["push", "--all", "--client", "a", "1"],
        ["push", "--all", "hello"],
        ["push", "--all", '1,"key":2'],
        ["push", "--all", ""],
        ["push", "--client", "a/b", "1"],
        ["push", "--group", "", "1"],
        ["push", "--all", "1", "--key", ""],
        ["push", "--all", "1", "--conflate", "a b"],
        ["push", "--all", "1", "--traceparent", SPAN.upper()],
        ["push", "--all", "1", "--traceparent", ""],
        ["push", "--all", "1", "--url", "localhost:8001"],
        ["push", "--all", "1", "--url", "http://localhost:port"],
        ["tail"],
        ["tail", "news"],
        ["tail", "group:"],
        ["tail", "all", "--since", "yesterday"],
        ["tail", "all", "--since", "a:-1"],
        ["tail", "all", "--count", "0"],
        ["token"],
        ["token", "--sub", "a b"],
        ["token", "--sub", "a", "--new-key"],
        ["token", "--new-key", "none"],
        ["token", "--sub", "a", "--expires", "soon"],
        ["token", "--sub", "a", "--groups", "a,,b"],
    ],
)
def test_a_wrong_command_line_is_2_in_words(
    args: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["service", *args])
    try:
        code = main()
    except SystemExit as exc:  # argparse
        code = int(str(exc.code))
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err


async def test_a_service_that_is_not_there_is_1_in_words() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    for args in (["push", "--all", "1"], ["tail", "all"], ["tail", "all", "--since", "start"]):
        ran = await run(*args, "--url", nowhere)
        assert (ran.code, ran.out) == (1, "")
        assert f"{nowhere} does not answer (nothing listens there: start the gateway" in ran.err


async def test_another_port_than_the_internal_one_is_1_in_words() -> None:
    async with node() as n:
        ran = await run("push", "--all", "1", "--url", f"http://localhost:{n.app.public_port}")
        assert (ran.code, ran.out) == (1, "")
        ran = await run("tail", "all", "--url", f"{url(n)}/metrics")
        assert (ran.code, ran.out) == (1, "")


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"])
async def test_an_answer_that_drips_is_waited_for_no_longer_than_a_whole_one_may_take(
    head: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def drip(peer: callee.Peer) -> None:
        await peer.request()
        await peer.send(head)
        while True:
            await peer.send(b" ")
            await asyncio.sleep(0.01)

    monkeypatch.setattr("tidegate.cli.api_client.WHOLE_S", 0.3)
    async with callee.serving(drip) as server:
        assert await asyncio.to_thread(main, ["push", "--all", "1", "--url", server.url]) == 1
        assert f"{server.url} does not answer (no whole answer within 0.3 s)" in capsys.readouterr().err


# tail


async def test_tail_prints_what_is_kept_and_then_what_comes(start_process: StartProcess) -> None:
    async with node(GROUPS=json.dumps({"chat": {"publish": "anyone"}})) as n:
        await n.push("groups/chat", {"n": 1})
        tail = start_process(
            sys.executable, "-m", "tidegate", "tail", "group:chat", "--since", "start", "--url", url(n)
        )
        line = await tail.line("^1 ")
        assert line.split(" ", 3)[2:] == ["-", '{"n": 1}']
        async with Peer(n.app.public_port, client="bob", groups="chat") as bob:
            await bob.ask(type="publish", id=1, group="chat", data="two\u2028lines\x7f")
        line = await tail.line("^2 ")
        assert line.split(" ", 3)[2:] == ["bob", '"two\\u2028lines\\u007f"']
        tail.signal(signal.SIGINT)
        assert (await tail.ended(), tail.stderr) == (0, WAITS.format("group:chat"))


async def test_tail_begins_now_and_ends_after_the_count(start_process: StartProcess) -> None:
    async with node() as n:
        await n.push("all", "before")
        args = ("tail", "all", "--count", "2", "--json", "--url", url(n))
        tail = start_process(sys.executable, "-m", "tidegate", *args)

        async def ended() -> bool:
            await n.push("all", "after")
            return tail.exit_code is not None

        await eventually(ended, 20)
        assert tail.exit_code == 0
        assert tail.stderr in ("", WAITS.format("all"))
        first, second = map(json.loads, tail.stdout.splitlines())
        assert (first["type"], first["stream"], first["data"]) == ("message", "all", "after")
        assert second["offset"] == first["offset"] + 1 > 2


async def test_tail_reads_more_than_a_page_from_a_position_without_a_repeat() -> None:
    async with node(HISTORY__MESSAGES="5000") as n:
        batch = {"pushes": [{"all": True, "data": number} for number in range(1000)]}
        for _ in range(3):
            answer = await n.call("POST", "/api/push", batch)
        epoch = answer.json["results"][0]["epoch"]
        ran = await run("tail", "all", "--since", f"{epoch}:500", "--count", "2300", "--json", "--url", url(n))
        assert ran.code == 0
        assert [json.loads(line)["offset"] for line in ran.out.splitlines()] == list(range(501, 2801))


async def test_tail_announces_what_is_lost() -> None:
    async with node(HISTORY__MESSAGES="2") as n:
        for number in range(5):
            position = await n.push("all", number)
        since = ("--since", f"{position['epoch']}:1", "--count", "2", "--url", url(n))
        ran = await run("tail", "all", *since)
        assert (ran.code, len(ran.out.splitlines())) == (0, 2)
        assert "messages 2 to 3 are lost (expired)" in ran.err
        ran = await run("tail", "all", *since, "--json")
        gap, *_ = map(json.loads, ran.out.splitlines())
        assert (gap["type"], gap["from"], gap["to"], gap["reason"]) == ("gap", 2, 3, "expired")


async def test_tail_survives_a_restart_of_the_service(start_process: StartProcess) -> None:
    port = free_port()
    settings = {"TIDEGATE_SERVER__PORT": "0", "TIDEGATE_INTERNAL__PORT": str(port), "TIDEGATE_SERVER__DRAIN_S": "0"}

    async def start() -> Process:
        service = start_process(sys.executable, "-m", "tidegate", "serve", env=settings)
        await service.port(port)
        return service

    service = await start()
    assert (await run("push", "--all", '"one"', env={"INTERNAL__PORT": str(port)})).code == 0
    tail = start_process(sys.executable, "-m", "tidegate", "tail", "all", "--since", "start", env=settings)
    await tail.line('"one"')
    assert await service.stop() == 0
    await tail.line("does not answer.*trying again")
    await start()
    await tail.line("answers again")
    assert (await run("push", "--all", '"two"', env={"INTERNAL__PORT": str(port)})).code == 0
    await tail.line('"two"')
    await tail.line("started anew")
    assert tail.stdout.count('"one"') == tail.stdout.count('"two"') == 1
    tail.signal(signal.SIGINT)
    assert await tail.ended() == 0
    assert "Traceback" not in tail.stderr


async def test_tail_ends_quietly_when_nobody_reads_it(start_process: StartProcess) -> None:
    async with node() as n:
        await n.push("all", "one")
        command = f"{sys.executable} -m tidegate tail all --since start --url {url(n)} | head -n 1"
        shell = start_process("bash", "-c", f"{command}; echo ended ${{PIPESTATUS[0]}}")
        await shell.line("one")

        async def ended() -> bool:
            await n.push("all", "two")
            return shell.exit_code is not None

        await eventually(ended, 20)
        assert shell.stdout.splitlines()[-1] == "ended 0"
        assert shell.stderr in ("", WAITS.format("all"))


# token


async def test_a_token_says_who_may_do_what_and_until_when() -> None:
    settings = {"AUTH__MODE": "jwt", "AUTH__KEY": SECRET, "AUTH__ISSUER": "shop", "AUTH__AUDIENCE": "tidegate"}
    ran = await run(
        "token", "--sub", "alice", "--groups", "news,chat.*", "--groups", "x", "--publish", "chat.*", env=settings
    )
    assert (ran.code, ran.err) == (0, "")
    auth = AuthSettings(mode="jwt", key=SECRET, issuer="shop", audience="tidegate")
    grant = Verifier(auth).verify(ran.out.strip(), time.time())
    assert (grant.client, grant.groups, grant.publish) == ("alice", ("news", "chat.*", "x"), ("chat.*",))
    assert grant.expires == pytest.approx(time.time() + 3600, abs=scaled(30))
    async with node(**settings) as n, Peer(n.app.public_port, token=ran.out.strip(), groups="news") as alice:
        assert (await alice.event())["client"] == "alice"


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("30s", 30), ("15m", 900), ("7d", 604800)])
async def test_a_token_ends_when_it_is_told_to(text: str, seconds: int) -> None:
    ran = await run("token", "--sub", "a", "--expires", text, env={"AUTH__KEY": SECRET, "AUTH__MODE": "jwt"})
    grant = Verifier(AuthSettings(mode="jwt", key=SECRET)).verify(ran.out.strip(), time.time())
    assert grant.expires == pytest.approx(time.time() + seconds, abs=scaled(20))
    assert (grant.groups, grant.publish) == ((), ())


async def test_a_token_without_a_key_is_1_in_words_and_one_without_use_is_noted() -> None:
    ran = await run("token", "--sub", "a")
    assert (ran.code, ran.out) == (1, "")
    assert "auth.key" in ran.err
    assert "tidegate token --new-key" in ran.err
    ran = await run("token", "--sub", "a", env={"AUTH__KEY": SECRET})
    assert (ran.code, ran.out.count(".")) == (0, 2)
    assert "auth.mode is none" in ran.err


async def test_a_new_key_signs_what_the_service_takes(tmp_path: Path) -> None:
    """As the service is told to want one: a configuration without a key cannot be read."""
    made = await run("token", "--new-key", env={"AUTH__MODE": "jwt"})
    assert made.code == 0
    assert "auth.key" in made.err
    assert made.out.strip() not in made.err
    settings = {"AUTH__MODE": "jwt", "AUTH__KEY": made.out.strip()}
    ran = await run("token", "--sub", "alice", "--json", env=settings)
    answer = json.loads(ran.out)
    assert (answer["client"], ran.err) == ("alice", "")
    grant = Verifier(AuthSettings(mode="jwt", key=made.out.strip())).verify(answer["token"], time.time())
    assert (grant.client, grant.expires) == ("alice", answer["expires"])


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_new_key_is_of_the_algorithm_that_is_asked_for(
    algorithm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", "--new-key", algorithm]) == 0
    private = tmp_path / "private.pem"
    private.write_text(capsys.readouterr().out)
    public = subprocess.run(["openssl", "pkey", "-in", private, "-pubout"], capture_output=True, text=True, check=True)
    auth: Any = {"mode": "jwt", "algorithm": algorithm, "key": public.stdout}
    claims = {"sub": "alice", "exp": int(time.time()) + 60}
    token = sign(AuthSettings(**auth), claims, key_file=str(private))
    assert Verifier(AuthSettings(**auth)).verify(token, time.time()).client == "alice"


async def test_render_says_as_json_what_it_wrote_and_names_what_it_cannot_write(tmp_path: Path) -> None:
    ran = await run("render", "--out", str(tmp_path / "edge"), "--json")
    written = {Path(path) for path in json.loads(ran.out)["written"]}
    assert written == {path for path in (tmp_path / "edge").rglob("*.*") if path.name != "conf.d"}
    (tmp_path / "file").touch()
    ran = await run("render", "--out", str(tmp_path / "file"))
    assert (ran.code, ran.out) == (1, "")
    assert f"--out {tmp_path}/file: cannot write {tmp_path}/file" in ran.err


@pytest.mark.parametrize(("stdout", "said"), [("/dev/full", "cannot write the answer"), ("gone", "")])
async def test_an_answer_that_cannot_be_written_is_a_failure_without_a_traceback(
    start_process: StartProcess, stdout: str, said: str
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        stdout = stdout.replace("gone", f"/proc/{os.getpid()}/fd/{writing}")
        process = start_process("sh", "-c", 'exec "$@" >>"$0"', stdout, sys.executable, "-m", "tidegate", "check")
        assert await process.ended() == 1
    finally:
        os.close(writing)
    assert said in process.stderr
    assert "Traceback" not in process.stderr
    assert "ignored" not in process.stderr
