"""How instants, durations and foreign text are written for people. Pure: the instant it is now is an argument."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from schemas.money import plain
from schemas.signals import VoidReason

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def clock(instant: datetime) -> str:
    """``2026-12-06 09:00:01.250``, in UTC. Always to the millisecond, so that columns of them line up."""
    return instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def offset(since: datetime, instant: datetime) -> str:
    """How long after ``since``: ``+14d 00:00:01``, ``-00:00:03``, ``+00:00:00``; fractions are cut off."""
    sign = "-" if instant < since else "+"
    seconds = int(abs(instant - since).total_seconds())
    days, rest = divmod(seconds, 86_400)
    time = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{sign}{days}d {time}" if days else f"{sign}{time}"


def span(duration: timedelta) -> str:
    """A duration in the two units that matter: ``13 d 4 h``, ``3 h 12 min``, ``5.2 s``, ``80 ms``."""
    seconds = abs(duration.total_seconds())
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if seconds < 60:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    for (unit, size), (finer, finer_size) in pairwise(_UNITS):
        if whole >= size:
            count, rest = divmod(whole, size)
            finer_count = rest // finer_size
            return f"{count} {unit} {finer_count} {finer}" if finer_count else f"{count} {unit}"
    raise AssertionError("a minute is at least a minute")


def ordinal(number: int) -> str:
    """``1st``, ``2nd``, ``3rd``, ``4th``, ``11th``, ``21st``."""
    ending = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def milliseconds(value: float | None) -> str:
    """``1.2 ms``, ``45 ms``, ``2.50 s``; a dash where it was not reached."""
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def money(amount: Decimal | None, currency: str | None) -> str:
    return "no value" if amount is None else f"{plain(amount)} {currency}"


def taken_back(void_reason: str | None) -> str:
    """Why something is voided, as it reads after that word: ``as refunded``, ``by hand``."""
    if void_reason == VoidReason.BY_HAND:
        return "by hand"
    return f"as {void_reason}".replace("_", " ")


def visible(text: str) -> str:
    r"""``text`` on one line, with what cannot be printed written as the ``\xNN`` of its UTF-8 bytes.

    Nothing is lost: backslashes in front of an ``x`` or an escape are doubled, so an odd number of them is an escape.
    What comes from outside must not steer a terminal, and a right-to-left mark must not turn evidence round.
    """
    if text.isprintable() and "\\x" not in text:
        return text
    return _escaped(text, "utf-8")


def visible_bytes(raw: bytes) -> str:
    """The same for bytes of a header: read as Latin-1, which gives every byte one character."""
    return _escaped(raw.decode("latin-1"), "latin-1")


def _escaped(text: str, encoding: str) -> str:
    doubled = re.sub(
        r"(?s)(\\+)(?=(.))",
        lambda found: found[1] if found[2].isprintable() and found[2] != "x" else found[1] * 2,
        text,
    )
    errors = "surrogatepass" if encoding == "utf-8" else "strict"
    return "".join(
        one if one.isprintable() else "".join(f"\\x{byte:02x}" for byte in one.encode(encoding, errors))
        for one in doubled
    )


def sha256(text: str) -> str:
    """Hexadecimal SHA-256 of the text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()
