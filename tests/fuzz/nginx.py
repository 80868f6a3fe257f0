"""Anybody's nginx configuration, as ``tidegate check`` judges it: it answers, in words, and soon.

An input is a file, or what ``nginx -T`` prints where it begins as that does.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path

import msgspec

from tests.fuzz import corpus
from tidegate.config.settings import Config
from tidegate.nginx import check as nginx_check
from tidegate.nginx.files import NginxError

_config = Config()
_folder = tempfile.TemporaryDirectory(prefix="tidegate-fuzz-", dir=corpus.MEMORY)
_file = Path(_folder.name) / "nginx.conf"
_elsewhere = re.compile(rb"include\s[^;]*/")  # a file of this machine, which may be anything, /dev/zero too


def check(data: bytes) -> None:
    """What the command catches may be raised, and nothing else; what it prints must be printable."""
    with contextlib.suppress(NginxError):
        if data.startswith(b"# configuration file /"):
            findings = nginx_check.check_dump(data.decode(errors="replace"), _config)
        elif not _elsewhere.search(data):
            _file.write_bytes(data)
            findings = nginx_check.check_file(str(_file), _config)
        else:
            return
        for finding in findings:
            assert str(finding), "a finding without a word"
        msgspec.json.encode(findings)
