"""When a certificate ends. No more of it is read than leads there: nginx judges the rest."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import NamedTuple

_END = "-----END CERTIFICATE-----"
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


class _Element(NamedTuple):
    """One of DER (X.690): its tag, what is in it, and what follows it."""

    tag: int
    content: bytes
    rest: bytes


def ends_s(chain: Path) -> int | None:
    """Unix time at which the first certificate of a PEM file ends; None where it cannot be read, or is none."""
    try:
        first, end, _ = chain.read_text("ascii").partition(_END)
        return _not_after_s(ssl.PEM_cert_to_DER_cert(first[first.index("-----BEGIN") :] + end))
    except (OSError, ValueError, IndexError):
        return None


def _not_after_s(certificate: bytes) -> int:
    """Of a certificate in DER (RFC 5280, 4.1). Raises ValueError or IndexError for what is none."""
    signed = _element(_element(certificate, _SEQUENCE).content, _SEQUENCE).content
    if signed[0] == _VERSION:
        signed = _element(signed).rest
    for _ in ("serial number", "signature algorithm", "issuer"):
        signed = _element(signed).rest
    validity = _element(signed, _SEQUENCE).content
    not_after = _element(_element(validity).rest)
    text = not_after.content.decode("ascii")
    if not_after.tag == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    elif not_after.tag != _GENERALIZED_TIME:
        raise ValueError("no time")
    return int(datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC).timestamp())


def _element(der: bytes, tag: int | None = None) -> _Element:
    """The first of ``der``; it must have ``tag``."""
    if tag is not None and der[0] != tag:
        raise ValueError("another tag")
    size, begin = der[1], 2
    if size >= 0x80:
        begin += size - 0x80
        size = int.from_bytes(der[2:begin], "big")
    return _Element(der[0], der[begin : begin + size], der[begin + size :])
