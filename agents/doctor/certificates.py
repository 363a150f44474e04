"""Until when certificates are valid."""

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agents.doctor.finding import Finding, error, ok, warning

SOON = timedelta(days=14)
"""Renewals come in good time: one that hasn't come by then may have stopped."""

PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

SEQUENCE, CONTEXT_0, UTC_TIME = 0x30, 0xA0, 0x17


def validity(subject: str, file: Path, now: datetime) -> Iterator[Finding]:
    """Until when the certificates of a file are valid: of several, the first that expires counts."""
    try:
        text = file.read_text("ascii", errors="replace")
    except OSError as failure:
        yield error(subject, f"{file} can't be read: {failure.strerror}; check the path and its rights")
        return
    try:
        ends = [not_after(ssl.PEM_cert_to_DER_cert(each)) for each in PEM.findall(text)]
    except ValueError:
        ends = []
    if not ends:
        yield error(subject, f"{file} holds no certificate in PEM; write one there")
        return
    end = min(ends)
    when, left = f"{end:%Y-%m-%d %H:%M} UTC", end - now
    if left <= timedelta():
        yield error(subject, f"{file} has expired on {when}; renew it")
    elif left < SOON:
        yield warning(subject, f"{file} expires on {when}, in {left.days} days; see that it is renewed")
    else:
        yield ok(subject, f"{file} is valid until {when}")


def not_after(der: bytes) -> datetime:
    """The end of a certificate's validity (RFC 5280 §4.1.2.5). Raises ValueError for what is none."""
    certificate, _ = _element(der, SEQUENCE)
    fields, _ = _element(certificate, SEQUENCE)
    if fields[:1] == bytes([CONTEXT_0]):
        _, fields = _element(fields, CONTEXT_0)  # its version
    for _ in ("serial number", "signature algorithm", "issuer"):
        _, fields = _element(fields)
    times, _ = _element(fields, SEQUENCE)
    _, rest = _element(times)
    text = _element(rest)[0].decode("ascii")
    if rest[0] == UTC_TIME:  # years from 1950 on, of two digits
        text = ("20" if text[:2] < "50" else "19") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _element(der: bytes, tag: int | None = None) -> tuple[bytes, bytes]:
    """The contents of the first element, and what follows it."""
    if len(der) < 2 or (tag is not None and der[0] != tag):
        raise ValueError("no such element")
    size, start = der[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(der[2:start])
    if len(der) < start + size:
        raise ValueError("cut off")
    return der[start : start + size], der[start + size :]
