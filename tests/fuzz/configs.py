"""config.yaml and the environment.

An input is a file, and behind a NUL lines of the environment. Secrets are set beside it, and must never be shown; what
is taken must be printable, and must render.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path

from tests.fuzz import corpus
from tidegate import check as checking
from tidegate.config import load as configuration
from tidegate.config.load import ConfigError
from tidegate.core.errors import Unusable

MARK = "hunter2-hunter2-hunter2-hunter2-hunter2"
SECRETS = {
    "TIDEGATE_AUTH__KEY": MARK,
    "TIDEGATE_INTERNAL__API_KEYS": f'["{MARK}"]',
    "TIDEGATE_TRUNK__KEY": MARK,
    "TIDEGATE_BROKER__URL": f"redis://user:{MARK}@127.0.0.1:6379/0",
}
# What is built from settings alone; tokens would read the files that an input names.
BUILDERS = (checking._doors, checking._calls, checking._edge)

_folder = tempfile.TemporaryDirectory(prefix="tidegate-fuzz-", dir=corpus.MEMORY)
_file = Path(_folder.name) / "config.yaml"


def check(data: bytes) -> None:
    text, _, lines = data.partition(b"\0")
    _file.write_bytes(text)
    environ = dict(SECRETS) if MARK.encode() not in data else {}
    for line in lines.replace(b"\0", b"").decode(errors="surrogateescape").split("\n"):
        name, equals, value = line.partition("=")
        if name and equals:
            environ[name] = value
    try:
        config = configuration.load(str(_file), environ)
    except ConfigError as exc:
        assert exc.problems, "refused without a reason"
        for problem in exc.problems:
            assert str(problem).isprintable(), f"not one line: {problem!r}"
            assert MARK not in str(problem) or MARK.encode() in data, f"a secret is shown: {problem}"
        return
    shown = json.dumps(configuration.effective(config)) + "".join(configuration.warnings(config))
    assert MARK not in shown or MARK.encode() in data, "a secret is shown"
    for build in BUILDERS:
        with contextlib.suppress(Unusable):
            build(config)
