"""The console's modules that need no page, in Node.js: numbers, rates and data to the letter."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.npm import program

SCRIPT = Path(__file__).parent / "console_modules.mjs"


def test_what_is_shown_is_worked_out_right() -> None:
    done = subprocess.run([program("node"), SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # Taken pushes are those accepted and published; a node that was started anew, or is away, has no rate.
    assert found["rates"] == [None, 3, None, None]
    assert found["connections"] == [0, 3, 0.5, None]
    assert found["heartbeat"] == [None, 15]
    assert found["quantiles"] == [0.0156, 0.02, 0.02]  # within the bucket; beyond the last bound nothing is known
    assert found["labels"] == 'too \\"large\\", {}'
    assert found["values"] == ['{"data":[1,"data"]}', "12345678901234567890", '"\\"}, "']
    assert found["rounded"] == [0.5, 1, 2, 50, 100, 1000]
    assert found["short"] == ["\N{EN DASH}", "0", "0.0728", "12.3", "1,235", "2.5M"]
    assert found["held"] is True
