"""TLS: whether clients trust the certificate, how long it lasts, and which versions are spoken."""

from __future__ import annotations

import asyncio
import ssl
import warnings
from datetime import UTC, datetime

from tidegate.doctor.link import TIMEOUT_S
from tidegate.doctor.report import Finding, ok, unknown, weak, wrong
from tidegate.doctor.target import Target, credulous, trusting

SOON_DAYS = 21
_OLD = (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)
_NEW = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
_NAMES = {
    ssl.TLSVersion.TLSv1: "TLS 1.0",
    ssl.TLSVersion.TLSv1_1: "TLS 1.1",
    ssl.TLSVersion.TLSv1_2: "TLS 1.2",
    ssl.TLSVersion.TLSv1_3: "TLS 1.3",
}


async def examine(target: Target) -> list[Finding]:
    """Nothing where there is no TLS."""
    if not target.secure:
        return []
    return [await _trust(target), await _end(target), await _versions(target)]


async def _trust(target: Target) -> Finding:
    try:
        await _connect(target, trusting(target))
    except ssl.SSLCertVerificationError as exc:
        return wrong(
            "certificate",
            f"clients do not trust it: {exc.verify_message or exc.reason}",
            "one for this name, whole (fullchain.pem), from an authority that clients know; --ca FILE: one of your own",
        )
    except (OSError, TimeoutError) as exc:
        return unknown("certificate", str(exc) or type(exc).__name__)
    return ok("certificate", f"is trusted for {target.host}")


async def _end(target: Target) -> Finding:
    try:
        raw = await _connect(target, credulous())
    except (OSError, TimeoutError) as exc:
        return unknown("certificate's end", str(exc) or type(exc).__name__)
    from cryptography import x509  # here: where there is no TLS it costs nothing

    try:
        shown = x509.load_der_x509_certificate(raw or b"")
    except ValueError as exc:
        return unknown("certificate's end", f"the certificate cannot be read: {exc}")
    return judge_end(shown.not_valid_before_utc, shown.not_valid_after_utc, datetime.now(UTC))


def judge_end(begin: datetime, end: datetime, now: datetime) -> Finding:
    """One that is renewed by itself is younger, short-lived ones too."""
    days = (end - now).total_seconds() / 86400
    day = end.date().isoformat()
    if days < 0:
        return wrong("certificate's end", f"it has ended on {day}", "renew it, and reload nginx")
    if days < min(SOON_DAYS, (end - begin).days / 4):
        return weak("certificate's end", f"{day}, in {days:.0f} days", "renew it, reload nginx, and see why nobody did")
    return ok("certificate's end", f"{day}, in {days:.0f} days")


async def _versions(target: Target) -> Finding:
    spoken = [version for version in (*_OLD, *_NEW) if await _speaks(target, version)]
    names = ", ".join(_NAMES[version] for version in spoken) or "none"
    if any(version in _OLD for version in spoken):
        return wrong("TLS versions", f"{names}: the old ones can be broken", "nginx: ssl_protocols TLSv1.2 TLSv1.3;")
    if not any(version in _NEW for version in spoken):
        return unknown("TLS versions", "none that this machine speaks")
    return ok("TLS versions", names)


async def _speaks(target: Target, version: ssl.TLSVersion) -> bool:
    context = credulous()
    if version in _OLD:
        context.set_ciphers("ALL:@SECLEVEL=0")  # else this machine would not even offer it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # old ones are what is looked for
            context.minimum_version = context.maximum_version = version
        await _connect(target, context)
    except (OSError, TimeoutError, ValueError):
        return False
    return True


async def _connect(target: Target, context: ssl.SSLContext) -> bytes | None:
    """The certificate that is shown, as DER. Raises OSError and TimeoutError."""
    async with asyncio.timeout(TIMEOUT_S):
        _, writer = await asyncio.open_connection(target.host, target.port, ssl=context, server_hostname=target.host)
    try:
        shown: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return shown
    finally:
        writer.transport.abort()
