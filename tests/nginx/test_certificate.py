"""When a certificate ends, as openssl says it too."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tidegate.config.load import load
from tidegate.nginx import certificate, render


def made(folder: Path, days: int, *kind: str) -> Path:
    file = folder / "fullchain.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", *kind, "-days", str(days), "-subj", "/CN=x"]
    subprocess.run([*command, "-keyout", folder / "privkey.pem", "-out", file], check=True, capture_output=True)
    return file


@pytest.mark.parametrize(
    ("days", "kind"),
    [(30, ["rsa:2048"]), (30_000, ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])],  # UTCTime, GeneralizedTime
)
def test_its_end_is_read(days: int, kind: list[str], tmp_path: Path) -> None:
    file = made(tmp_path, days, *kind)
    ends_s = certificate.ends_s(file)
    assert ends_s is not None
    assert abs(ends_s - time.time() - days * 86_400) < 60
    other = tmp_path / "chain.pem"
    other.write_text(f"# said before\n{file.read_text()}\n{file.read_text()}")
    assert certificate.ends_s(other) == ends_s


@pytest.mark.parametrize("end", [0, 100, -60])
def test_what_is_no_certificate_has_no_end(end: int, tmp_path: Path) -> None:
    file = made(tmp_path, 1, "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    file.write_text(file.read_text()[:end])
    assert certificate.ends_s(file) is None
    assert certificate.ends_s(tmp_path / "none.pem") is None


def test_what_is_rendered_says_when_the_certificate_ends_that_was_there(tmp_path: Path) -> None:
    config = load(None, {"TIDEGATE_EDGE__TLS_DIR": "../tls"})
    render.write(config, tmp_path / "edge")
    status = tmp_path / "edge/conf.d/status.inc"
    assert "set $tidegate_certificate_end NaN;" in status.read_text()
    (tmp_path / "edge/tls").mkdir()
    file = made(tmp_path / "edge/tls", 9, "rsa:2048")
    render.write(config, tmp_path / "edge")
    assert f"set $tidegate_certificate_end {certificate.ends_s(file)};" in status.read_text()
