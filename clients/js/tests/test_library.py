"""The JavaScript library by itself: its unit tests, its types, its size, and what npm packs of it."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import tidegate
from clients.js.tests.node import LIBRARY, TESTS, application, node, run, tool
from tests.brokers.contract_words import SPAN
from tests.browser.chromium import Service
from tests.callee import answering, serving
from tests.support import ROOT, Process

MOST_BYTES = 8192  # minified and gzipped

pytestmark = pytest.mark.timeout(seconds=180)  # the first run installs packages


def test_the_unit_tests_pass() -> None:
    run([node(), "--test", "--test-timeout=30000", *sorted((TESTS / "unit").glob("*.test.mjs"))])


def test_it_is_small(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.js"
    options = ["--bundle", "--minify", "--format=esm", "--target=es2022", "--log-level=warning"]
    run([tool("esbuild"), LIBRARY / "src" / "index.js", *options, f"--outfile={bundle}"])
    size = len(gzip.compress(bundle.read_bytes(), 9))
    assert size <= MOST_BYTES, f"{size} bytes"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An application with the library in it."""
    return application(tmp_path_factory.mktemp("application"))


def test_what_npm_packs_installs_and_works_by_itself(installed: Path) -> None:
    exports = (
        "import * as it from 'tidegate-client';"
        "console.log(JSON.stringify([Object.keys(it), typeof window, import.meta.resolve('tidegate-client')]))"
    )
    names, window, where = json.loads(run([node(), "--input-type=module", "-e", exports], installed))
    assert names == ["NotAllowed", "Tidegate", "TidegateError", "UnknownOutcome"]
    assert window == "undefined"
    assert str(installed) in where


def test_npm_packs_the_sources_their_types_and_the_licence(installed: Path) -> None:
    package = installed / "node_modules" / "tidegate-client"
    packed = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    sources = {f"src/{path.name}" for path in (LIBRARY / "src").iterdir()}
    assert packed == sources | {"LICENSE", "README.md", "package.json"}
    for library in (LIBRARY, ROOT / "clients" / "python"):
        assert (library / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    described = json.loads((package / "package.json").read_text())["exports"]
    assert {name.removeprefix("./") for entry in described.values() for name in entry.values()} <= packed


@pytest.mark.slow  # a type checker takes its time
def test_its_types_are_those_that_an_application_needs(installed: Path) -> None:
    shutil.copy(TESTS / "types.ts", installed)
    options = json.loads((TESTS / "tsconfig.json").read_text())
    del options["compilerOptions"]["paths"]
    (installed / "tsconfig.json").write_text(json.dumps(options))
    run([tool("tsc"), "-p", installed])


def test_its_version_is_that_of_the_gateway() -> None:
    package = json.loads((LIBRARY / "package.json").read_text())
    assert package["version"] == tidegate.__version__
    assert "dependencies" not in package


async def test_a_call_brings_the_application_its_span(start_process: Callable[..., Process], installed: Path) -> None:
    async with serving(answering(b"1")) as application:
        service = Service(start_process, {"TIDEGATE_CALLS__URL": application.url})
        await service.start()
        program = installed / "call.js"
        program.write_text(
            "import { Tidegate } from 'tidegate-client';"
            f"const url = 'ws://127.0.0.1:{service.public}/ws-notifications/';"
            "const tidegate = new Tidegate(url, { client: 'alice' });"
            f"const {{ data }} = await tidegate.call('echo', 1, {{ traceparent: '{SPAN}' }});"
            "const wrong = await tidegate.call('echo', 1, { traceparent: '00-1' }).catch(({ code }) => code);"
            "console.log(data, wrong); tidegate.close();"
        )
        process = start_process(node(), program)
        assert await process.ended() == 0, process
        assert process.lines() == ["1 bad_request"]
        assert [request.headers["traceparent"] for request in application.requests] == [SPAN]


async def test_ten_lines_lead_to_a_first_message(start_process: Callable[..., Process], installed: Path) -> None:
    """Those of the README, as they stand there."""
    service = Service(start_process, {})
    await service.start()
    [text] = [part.partition("```")[0] for part in (LIBRARY / "README.md").read_text().split("```js first.mjs\n")[1:]]
    assert len(text.strip().splitlines()) <= 10
    program = installed / "first.js"
    program.write_text(text.replace("localhost:8000", f"127.0.0.1:{service.public}"))
    process = start_process(node(), program)
    await process.line("listening")
    await service.push("groups/news", {"title": "Tide turns"})
    assert "Tide turns" in await process.line("Tide")
