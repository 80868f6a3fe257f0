"""One target under atheris: ``python -m tests.fuzz.guided NAME`` and what libFuzzer is told."""

from __future__ import annotations

import sys

import atheris

from tests.fuzz import one
from tests.fuzz.targets import TARGETS


def main() -> None:
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=one.INSTRUMENTED):
        check = TARGETS[name].check()
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
