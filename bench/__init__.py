"""Programs that load and measure; none of them is part of the service."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
