"""``python -m tidegate``: the command ``tidegate``."""

from __future__ import annotations

import sys

from tidegate.cli.main import main

sys.exit(main())
