"""The units are right for systemd, which is asked, and hard to leave; the settings beside them are ones that nodes and
nginx start with. tools/systemd_test.sh starts them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support import ROOT

UNITS = ROOT / "deploy" / "systemd"
SYSTEM = Path("/usr/lib/systemd/system")
# Of systemd-analyze security, from 0 to 10: what systemd 252 says, and docs/deploying.md.
EXPOSURE = {"tidegate@1": 1.2, "tidegate-forward-events": 1.1, "nginx": 2.7}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root folder with Debian's units, ours, and programs that do nothing where they name some."""
    system = tmp_path / "usr" / "lib" / "systemd" / "system"
    system.mkdir(parents=True)
    for pattern in ("*.target", "*.slice", "nginx.service"):
        for unit in SYSTEM.glob(pattern):
            shutil.copy(unit, system, follow_symlinks=False)
    shutil.copytree(UNITS, tmp_path / "etc" / "systemd" / "system", ignore=shutil.ignore_patterns("*.yaml"))
    for name in ("opt/tidegate/bin/tidegate", "usr/sbin/nginx", "bin/sh"):
        program = tmp_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.touch(mode=0o755)
    return tmp_path


def analyze(root: Path, *args: str) -> str:
    done = subprocess.run(
        ["systemd-analyze", *args[:1], f"--root={root}", *args[1:]], capture_output=True, text=True, timeout=30
    )
    return done.stdout + done.stderr


def test_systemd_finds_nothing_wrong_with_the_units(root: Path) -> None:
    names = [f"{unit}.service" for unit in EXPOSURE]
    assert analyze(root, "verify", "--man=no", *names) == ""
    unit = root / "etc" / "systemd" / "system" / "tidegate@.service"
    unit.write_text(unit.read_text().replace("Restart=", "Restrat="))
    assert "Unknown key 'Restrat'" in analyze(root, "verify", "--man=no", *names)


@pytest.mark.parametrize("unit", EXPOSURE)
def test_they_are_no_more_exposed_than_is_said(unit: str, root: Path) -> None:
    said = analyze(root, "security", "--offline=true", "--no-pager", f"{unit}.service")
    (exposure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert float(exposure) <= EXPOSURE[unit]
    assert f"`{unit.replace('@1', '@')}.service` {EXPOSURE[unit]}" in (ROOT / "docs" / "deploying.md").read_text()


def settings(unit: str, instance: str) -> dict[str, str]:
    """What the unit puts into the environment."""
    text = (UNITS / unit).read_text().replace("%i", instance).replace("%l", "host")
    return dict(re.findall(r"\b(TIDEGATE_\w+)=(\S+)", text))


def test_the_settings_are_ones_that_nodes_and_nginx_start_with(tmp_path: Path) -> None:
    """`check` knows all but what is on the machine: of that it warns."""
    for name in ("api", "tokens"):
        (tmp_path / name).write_text(f"{name}-0123456789abcdefghijklmnopqrstuvwxyz")
    text = (UNITS / "config.yaml").read_text().replace("/etc/tidegate/secrets/", f"{tmp_path}/")
    (tmp_path / "config.yaml").write_text(text)
    environ = settings("tidegate@.service", "2") | {"TIDEGATE_CONFIG": str(tmp_path / "config.yaml")}
    done = subprocess.run(
        [sys.executable, "-m", "tidegate", "check"], env=environ | {"PYTHONPATH": str(ROOT / "service")},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert environ["TIDEGATE_SERVER__SOCKET"] in text, "the edge goes where the node listens"


def test_the_wheel_has_them() -> None:
    """tools/dist.sh builds it. The image is built without them, so they are named by patterns."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    for folder in (UNITS, UNITS / "nginx.service.d"):
        patterns = listed[f"share/tidegate/{folder.relative_to(ROOT / 'deploy')}"]
        assert all("*" in pattern for pattern in patterns)
        found = {file for pattern in patterns for file in ROOT.glob(pattern)}
        assert found == {file for file in folder.iterdir() if file.is_file()}
