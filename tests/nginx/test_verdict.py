"""``check --nginx`` against a real nginx: each of ``configurations/`` is started in front of a real gateway, and a
handshake is the judge. What breaks is what does not upgrade, echo and last; and nothing else.

The head of each file says what is meant: the verdict (``works``, or ``breaks`` and by which rule), how clients come
(port, name, path, tls; several are several lines), and for how many seconds they say nothing.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.nginx.judge import Client, Stand, Started, handshake, stand
from tidegate.config.settings import Config
from tidegate.nginx.check import check_file

FILES = sorted((Path(__file__).parent / "configurations").glob("*.conf"))
BROWSER_RULES = {"host", "origin"}  # what pages alone meet


class Case:
    """One configuration, and what its head says."""

    def __init__(self, name: str, nginx: Started) -> None:
        self.name = name
        self.nginx = nginx
        self.verdict, *self.rules = self._said("verdict")[0].split()
        self.idle_s = float((self._said("idle") or ["0"])[0])
        self.clients = [self._client(line) for line in self._said("client") or [str(nginx.ports["PORT"])]]

    def _said(self, name: str) -> list[str]:
        return re.findall(rf"^# {name}: (.*)$", self.nginx.text, re.MULTILINE)

    @staticmethod
    def _client(line: str) -> Client:
        words = line.split()
        host, path, tls = [*words[1:], *("localhost", "/ws-notifications/", "")[len(words) - 1 :]]
        return Client(int(words[0]), host, path, tls == "tls")


async def judged(case: Case, config: Config) -> list[str]:
    """What the verdict says otherwise than nginx does."""
    try:
        for port in {client.port for client in case.clients}:
            await case.nginx.process.port(port)
    except AssertionError as exc:  # it did not start, or its port was taken
        return [f"{case.name}: {exc}"]
    programs = (handshake(client, case.idle_s) for client in case.clients)
    browsers = (handshake(client._replace(is_page=True), 0) for client in case.clients)
    failures, pages = await asyncio.gather(asyncio.gather(*programs), asyncio.gather(*browsers))
    findings = check_file(str(case.nginx.file), config)
    broken = [finding for finding in findings if finding.level == "breaks"]
    wrong = []
    if any(failures) != bool(broken):
        wrong.append(f"the handshake: {failures}; the verdict: {[str(finding) for finding in broken]}")
    elif not any(failures) and any(pages) != any(
        finding.level == "harden" and finding.rule in BROWSER_RULES for finding in findings
    ):
        wrong.append(f"a page's handshake: {pages}; the verdict: {[str(finding) for finding in findings]}")
    said = {finding.rule for finding in broken}
    if said != set(case.rules) or (case.verdict == "works") != (not broken):
        wrong.append(f"{case.verdict} {case.rules} was meant, and {[str(finding) for finding in broken]} is said")
    for finding in broken:
        if not re.match(rf"{re.escape(str(case.nginx.file))}:\d+\Z", finding.where):
            wrong.append(f"no place: {finding}")
    return [f"{case.name}: {text}" for text in wrong]


async def wrongly_judged(s: Stand, files: list[Path]) -> list[str]:
    started = s.start(*(file.read_text() for file in files))
    cases = [Case(file.stem, nginx) for file, nginx in zip(files, started, strict=True)]
    wrong = await asyncio.gather(*(judged(case, s.config) for case in cases))
    return [line for each in wrong for line in each]


@pytest.mark.slow
async def test_what_breaks_is_what_a_real_nginx_breaks() -> None:
    assert len(FILES) >= 40
    async with stand() as s:
        lines = await wrongly_judged(s, FILES)
        # Once more, each by itself: another test may have taken a port, and a busy machine cuts.
        again = [file for file in FILES if any(line.startswith(f"{file.stem}: ") for line in lines)]
        lines = [line for file in again for line in await wrongly_judged(s, [file])]
    assert not lines, "\n" + "\n".join(lines)
