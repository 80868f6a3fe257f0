"""What is installed with an extra, or says so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def of_extra(extra: str, package: str) -> Iterator[None]:
    """Around an import of what imports ``package``. Raises ModuleNotFoundError that says what to install."""
    try:
        yield
    except ModuleNotFoundError as exc:
        if exc.name != package:
            raise
        raise ModuleNotFoundError(f"{package} is missing: install tidegate-client[{extra}]", name=package) from None
