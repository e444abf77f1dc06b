"""How cells of a table are written, and what they say: amounts and instants. Pure: text in, text or a CellError out."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

EPOCHS: Final = {"epoch_s": 1, "epoch_ms": 1000}


class MappingError(ValueError):
    """A mapping that cannot be used: which key, why, and what to do about it."""


class Written(Protocol):
    """How a table writes numbers and instants."""

    @property
    def decimal(self) -> str: ...
    @property
    def thousands(self) -> str | None: ...
    @property
    def zone(self) -> ZoneInfo | None: ...
    @property
    def date_format(self) -> str | None: ...


def check_encoding(encoding: str) -> str:
    """A text encoding whose files can be split into lines byte by byte. Raises a ValueError."""
    try:
        plain = '\n,;"a'.encode(encoding).removeprefix(b"\xef\xbb\xbf") == b'\n,;"a'
    except LookupError:
        raise ValueError(f"{encoding!r} is no text encoding; use one such as utf-8 or cp1252") from None
    if not plain:
        raise ValueError(f"{encoding} cannot be split into lines; convert the file to UTF-8 first (iconv)")
    return encoding


def check_zone(name: str) -> str:
    """The name of a time zone. Raises a ValueError."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone; use a name such as Europe/Berlin or UTC") from None
    return name


def check_date_format(form: str) -> str:
    """A format of dates that can be read back. Raises a ValueError."""
    if form in EPOCHS:
        return form
    try:
        day = datetime.strptime(datetime(2026, 11, 22, 10, 30, tzinfo=UTC).strftime(form), form)  # noqa: DTZ007 — only the shape is looked at
    except (ValueError, re.error) as error:
        raise ValueError(f"{form!r} cannot be read back: {error}; write it like %d.%m.%Y %H:%M") from None
    if (day.month, day.day) != (11, 22):
        raise ValueError(f"{form!r} gives no date; write it like %d.%m.%Y %H:%M, or epoch_s or epoch_ms")
    return form


class CellError(ValueError):
    """A cell that cannot be read: a stable code, why, and what to do about it."""

    def __init__(self, code: str, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.code, self.reason, self.remedy = code, reason, remedy


def amount(cell: str, written: Written) -> str:
    """The amount as events have it: ``1.234,50`` under a decimal comma is ``1234.50``. Raises a ValueError."""
    whole, point, places = cell.partition(written.decimal)
    if written.thousands:
        spaced = whole.replace("\u00a0", " ").replace("\u202f", " ") if written.thousands == " " else whole
        if re.fullmatch(rf"[0-9]{{1,3}}(?:{re.escape(written.thousands)}[0-9]{{3}})+", spaced, re.ASCII):
            whole = spaced.replace(written.thousands, "")
    if not re.fullmatch(r"[0-9]+", whole, re.ASCII) or (
        point and not re.fullmatch(r"[0-9]+", places, re.ASCII)
    ):
        example = f"1{written.thousands or ''}234{written.decimal}50"
        raise CellError(
            "money_shape",
            f"{cell!r} is no amount such as {example}",
            "Write it without sign and currency; --decimal and --thousands say how numbers are written",
        )
    return f"{whole}{'.' if point else ''}{places}"


def instant(cell: str, written: Written) -> str:
    """The instant in RFC 3339 with an offset, by the format and time zone. Raises a ValueError."""
    try:
        at = _parsed(cell, written.date_format)
        if at.tzinfo is None:
            at = _placed(at, cell, written.zone)
        return at.astimezone(UTC).isoformat()
    except CellError:
        raise
    except (ValueError, OverflowError, OSError):
        shape = written.date_format or "2026-11-22T10:00:00+01:00"
        raise CellError(
            "instant_shape", f"{cell!r} is not written like {shape}", "Mend it, or say how with --date-format"
        ) from None


def _parsed(cell: str, form: str | None) -> datetime:
    if form in EPOCHS:
        if not re.fullmatch(r"[0-9]{1,15}", cell, re.ASCII):
            raise ValueError(cell)
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(cell) * 1000 // EPOCHS[form])
    if form is not None:
        return datetime.strptime(cell, form)  # noqa: DTZ007 — the caller sees to the zone
    if re.fullmatch(r"[0-9-]+", cell):
        raise CellError(
            "instant_shape",
            f"{cell!r} is a day, not an instant",
            "If midnight is meant, say so with --date-format %Y-%m-%d",
        )
    return datetime.fromisoformat(cell)


def _placed(naive: datetime, cell: str, zone: ZoneInfo | None) -> datetime:
    if zone is None:
        raise CellError(
            "timezone_aware",
            f"{cell!r} has no UTC offset",
            "Say which time zone the file is in with --timezone",
        )
    placed = naive.replace(tzinfo=zone)
    if placed.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != naive:
        raise CellError(
            "instant_skipped", f"{cell!r} does not exist in {zone.key}: clocks were put forward", "Mend it"
        )
    return placed
