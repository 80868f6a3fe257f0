"""What words of a configuration mean: times, sizes, and the regular expressions of PCRE."""

from __future__ import annotations

import re
import warnings
from functools import lru_cache

_TIME_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "M": 2_592_000, "y": 31_536_000}
_SIZE = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_DIGITS = 15  # of a number; nginx takes no longer ones
_POSIX = {
    "alnum": "A-Za-z0-9",
    "alpha": "A-Za-z",
    "digit": "0-9",
    "lower": "a-z",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\s",
    "upper": "A-Z",
    "word": r"\w",
    "xdigit": "0-9A-Fa-f",
}


def seconds(text: str) -> float | None:
    """What nginx means by a time: 90, 90s, 1m30s, 500ms. None: nginx does not take it."""
    if not re.fullmatch(rf"(?=.)(\d{{1,{_DIGITS}}}(ms|[smhdwMy]) ?)*(\d{{1,{_DIGITS}}})?", text, re.ASCII):
        return None
    parts = re.findall(r"(\d+)(ms|[smhdwMy]?)", text)
    return float(sum(int(number) * _TIME_S[unit or "s"] for number, unit in parts))


def size(text: str) -> int | None:
    """What nginx means by a size: 1024, 8k, 1m. None: nginx does not take it."""
    found = re.fullmatch(rf"(\d{{1,{_DIGITS}}})([kmg]?)", text.lower(), re.ASCII)
    return int(found[1]) * _SIZE[found[2]] if found else None


def number(text: str) -> int | None:
    return int(text) if re.fullmatch(rf"\d{{1,{_DIGITS}}}", text, re.ASCII) else None


@lru_cache(maxsize=4096)
def regex(text: str, *, ignore_case: bool = False) -> re.Pattern[str] | None:
    """PCRE as Python writes it; None where that is not known."""
    text = re.sub(r"\(\?<([A-Za-z_])", r"(?P<\1", text)
    text = re.sub(r"\[:(\w+):\]", lambda found: _POSIX.get(found[1], found[0]), text)
    text = text.replace(r"\z", r"\Z").replace(r"\h", r"[ \t]")
    try:
        with warnings.catch_warnings(action="ignore"):  # of what Python may take for something else one day
            return re.compile(text, re.IGNORECASE if ignore_case else 0)
    except (re.error, OverflowError, RecursionError):
        return None
