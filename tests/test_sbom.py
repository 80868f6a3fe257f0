"""The bill of materials names what is locked."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

import tidegate
from tests.support import ROOT


@pytest.mark.slow  # its libraries take seconds to load
def test_the_bill_of_materials_has_every_locked_package_with_its_hashes(tmp_path: Path) -> None:
    files = [tmp_path / "one.cdx.json", tmp_path / "other.cdx.json"]
    for file in files:
        subprocess.run([ROOT / "tools/sbom.sh", file], check=True, capture_output=True)
    assert files[0].read_bytes() == files[1].read_bytes()
    bill = json.loads(files[0].read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    about = bill["metadata"]["component"]
    assert (about["name"], about["version"]) == ("tidegate", tidegate.__version__)
    lock = (ROOT / "requirements-image.lock").read_text()
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", lock, re.MULTILINE))
    assert {part["name"]: part["version"] for part in bill["components"]} == locked
    for part in bill["components"]:
        hashes = {one["content"] for reference in part["externalReferences"] for one in reference["hashes"]}
        assert hashes
        assert hashes <= set(re.findall(r"sha256:([0-9a-f]{64})", lock))
