"""Raw figures as a file: JSON, compressed, because each round of each case is in it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

NAME = "raw.json.gz"


def write(folder: Path, figures: dict[str, Any]) -> None:
    """The same figures make the same bytes: the time is left out of the file."""
    text = json.dumps(figures, indent=1) + "\n"
    (folder / NAME).write_bytes(gzip.compress(text.encode(), mtime=0))


def read(folder: Path) -> Any:
    """Raises OSError or ValueError where there are none."""
    try:
        return json.loads(gzip.decompress((folder / NAME).read_bytes()))
    except EOFError as exc:  # cut short
        raise ValueError(str(exc)) from exc
