"""The HTTP API of a running service, by requests that schemathesis makes of its description: such as it takes, and such
as it should not. Each answer must be one that the description has, and no fault of ours."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, cast

import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS

from tests.support import Process, free_ports

KEY = "a-key-for-the-api-made-for-fuzzing"
EXAMPLES = 25  # of an operation, before the next one has its turn
# What a request may be answered with, whether it was as described or not. `positive_data_acceptance` is not among them:
# a group that was never described, or one limit too many, is refused rightly.
NAMES = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance",
)  # fmt: skip
REFUSED = "negative_data_rejection"
BATCH = "POST /api/push"  # says of each item what is wrong with it, in a 200


def requests(seconds: float, seed: int) -> tuple[int, str]:
    """How many were made, and what is wrong with an answer."""
    public, internal = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="tidegate-fuzz-") as folder:
        env = {
            "TIDEGATE_SERVER__PORT": str(public),
            "TIDEGATE_INTERNAL__PORT": str(internal),
            "TIDEGATE_INTERNAL__API_KEYS": json.dumps([KEY]),
            "TIDEGATE_LIMITS__BATCH_PUSHES": "5",
        }
        service = Process(sys.executable, "-m", "tidegate", "serve", folder=Path(folder), env=env)
        try:
            asyncio.run(service.port(internal))
            return _ask(f"http://127.0.0.1:{internal}", seconds, seed, service)
        finally:
            service.kill()


def _ask(url: str, seconds: float, seed: int, service: Process) -> tuple[int, str]:
    with urllib.request.urlopen(f"{url}/api/openapi.json") as answer:
        document = json.load(answer)
    operations = [cast(Any, result).ok() for result in schemathesis.openapi.from_dict(document).get_all_operations()]
    until_s, asked = time.monotonic() + seconds, itertools.count()

    def run(operation: Any, mode: GenerationMode, number: int) -> None:
        checks: Any = CHECKS.get_by_names([*NAMES, *(() if operation.label == BATCH else (REFUSED,))])

        @hypothesis.seed(number)
        @hypothesis.settings(
            max_examples=EXAMPLES, database=None, deadline=None, phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def each(case: Case) -> None:
            next(asked)
            answer = case.call(base_url=url, headers={"Authorization": f"Bearer {KEY}"})
            case.validate_response(answer, checks=checks)

        each()

    for number in itertools.count(seed):
        for operation in operations:
            for mode in GenerationMode:
                try:
                    run(operation, mode, number)
                except hypothesis.errors.Unsatisfiable:
                    pass  # an operation that takes nothing can be asked nothing wrong
                except BaseException as exc:  # a group of failures
                    return next(asked), f"{operation.label}: {exc}"
                if any(line.startswith("{") and '"level":"error"' in line for line in service.stderr.splitlines()):
                    return next(asked), f"{operation.label}: {service.stderr[-2000:]}"
                if time.monotonic() > until_s:
                    return next(asked), ""
    raise AssertionError
