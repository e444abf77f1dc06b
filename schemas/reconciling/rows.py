"""One row of a report: its cells read into what can be compared, or the reason why they cannot."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from schemas.cells import EPOCHS
from schemas.event import EARLIEST, LATEST
from schemas.money import MAX_INTEGER_DIGITS, MINOR_DIGITS

LONGEST_ID: Final = 4096
LONGEST_WORD: Final = 200
"""Characters of a name or status that are kept."""
LONGEST_RAW: Final = 1_000
"""Characters of a line that are kept verbatim."""
_SYMBOLS: Final = {"€": "EUR", "£": "GBP", "₹": "INR", "zł": "PLN", "₽": "RUB", "₩": "KRW", "₺": "TRY"}
"""Signs of one currency alone; a dollar sign is that of many."""
_BARE = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,20})?", re.ASCII)
_AROUND = re.compile(
    r"(?P<before>[^0-9.,]*?)(?P<sign>[-\u2212(]?)\s*(?P<mid>[^0-9.,(\u2212-]*?)(?P<number>[0-9.,][0-9.,'\u2019_ \u00a0\u202f]*)(?P<after>.*)",
    re.DOTALL,
)
_TOTAL = re.compile(r"\s*(?:grand\s+|report\s+)?(?:sub)?(?:total|totals|summe|gesamt|sum)\b.*", re.IGNORECASE)


_TOTALS: Final = frozenset("gGrRsStT")
"""Letters that a line of totals begins with."""


@dataclass(frozen=True, slots=True)
class ReadRow:
    """A row as far as it could be read. ``value`` is a bare number as text, ``at`` ISO 8601 with an offset, ``day`` the
    day in the network's zone. With a ``problem`` nothing else counts."""

    line: int
    click_id: str | None = None
    order_id: str | None = None
    name: str | None = None
    status: str | None = None
    value: str | None = None
    currency: str | None = None
    at: str | None = None
    day: str | None = None
    conversions: int | None = None
    raw: str = ""
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Writing:
    """How the report writes: all of it decided."""

    zone: ZoneInfo
    decimal: str = "."
    thousands: str | None = None
    date_format: str | None = None
    currency: str | None = None
    aggregated: bool = False


class RowReader:
    """Reads the rows of one report. Pure but for a cache of the dates seen."""

    def __init__(self, places: Mapping[str, int], writing: Writing) -> None:
        self._writing = writing
        get = places.get
        self._click, self._order, self._name = get("click_id"), get("order_id"), get("name")
        self._status, self._value, self._currency = get("status"), get("value"), get("currency")
        self._when, self._conversions = get("occurred_at"), get("conversions")
        self._dated = lru_cache(maxsize=50_000)(self._read_date)
        self._grouped = (
            re.compile(rf"[0-9]{{1,3}}(?:{re.escape(writing.thousands)}[0-9]{{3}})+")
            if writing.thousands
            else None
        )

    def read(self, line: int, cells: Sequence[str], raw: str) -> ReadRow:
        """The row. Raises nothing: what is wrong stands in ``problem``."""
        raw = raw[:LONGEST_RAW]
        try:
            return self._read(line, [cell.strip() for cell in cells], raw)
        except _UnreadableError as error:
            return ReadRow(line, raw=raw, problem=str(error))

    def _read(self, line: int, cells: Sequence[str], raw: str) -> ReadRow:
        click, order = _cell(cells, self._click), _cell(cells, self._order)
        if cells[0][:1] in _TOTALS and _TOTAL.fullmatch(cells[0]) and not (click and order):
            raise _UnreadableError("line: is a total, not a conversion. Nothing is lost by leaving it out")
        if not self._writing.aggregated and click is None and order is None:
            raise _UnreadableError(
                "click_id: is empty, and so is the order id. Nothing tells which conversion it is"
            )
        for name, text in (("click_id", click), ("order_id", order)):
            if text is not None and len(text) > LONGEST_ID:
                raise _UnreadableError(
                    f"{name}: has more than {LONGEST_ID} characters. Check what stands there"
                )
        value, currency = self._money(cells)
        at, day = self._date(cells)
        counts = self._count(cells)
        return ReadRow(
            line,
            click,
            order,
            _short(cells, self._name),
            _short(cells, self._status),
            value,
            currency,
            at,
            day,
            counts,
            raw,
        )

    def _date(self, cells: Sequence[str]) -> tuple[str | None, str | None]:
        cell = _cell(cells, self._when)
        if cell is None:
            if self._writing.aggregated:
                raise _UnreadableError("occurred_at: is empty. A sum of an unknown day cannot be compared")
            return None, None
        return self._dated(cell)

    def _read_date(self, cell: str) -> tuple[str | None, str]:
        form, zone = self._writing.date_format, self._writing.zone
        try:
            when = _parsed(cell, form)
        except (ValueError, OverflowError):
            shape = form or "2026-11-22 or 2026-11-22 10:00:00"
            raise _UnreadableError(
                f"occurred_at: {cell[:60]!r} is not written like {shape}. Say how with --date-format"
            ) from None
        local = when
        if isinstance(when, datetime):
            local = when.replace(tzinfo=zone) if when.tzinfo is None else when.astimezone(zone)
        if not EARLIEST.year <= local.year < LATEST.year:
            raise _UnreadableError(
                f"occurred_at: {cell[:60]!r} lies outside of the years 2000 to 2200. Check the year"
            )
        if not isinstance(local, datetime):
            return None, local.isoformat()
        return local.isoformat(), local.date().isoformat()

    def _money(self, cells: Sequence[str]) -> tuple[str | None, str | None]:
        currency = _cell(cells, self._currency)
        if currency is not None:
            currency = _SYMBOLS.get(currency, currency.upper())
            if currency not in MINOR_DIGITS:
                raise _UnreadableError(
                    f"currency: {currency[:20]!r} is no ISO 4217 code. Map another column, or give --currency"
                )
        else:
            currency = self._writing.currency
        cell = _cell(cells, self._value)
        if cell is None or cell in {"-", "--", "n/a", "N/A", "null", "NULL"}:
            return None, currency
        if self._writing.decimal == "." and _BARE.fullmatch(cell):
            return cell, currency
        return self._written(cell, currency)

    def _written(self, cell: str, currency: str | None) -> tuple[str, str | None]:
        found = _AROUND.fullmatch(cell)
        number = None if found is None else self._number(found["number"].strip())
        if found is None or number is None:
            like = f"1{self._writing.thousands or ''}234{self._writing.decimal}50"
            raise _UnreadableError(
                f"value: {cell[:60]!r} is no amount such as {like}. --decimal and --thousands say how numbers are written"
            )
        around = f"{found['before']} {found['mid']} {found['after']}"
        for word in re.findall(r"[^\s)(+-]+", around):
            currency = _SYMBOLS.get(word, word if word in MINOR_DIGITS else currency)
        negative = (
            found["sign"] != ""
            or found["after"].strip().startswith(("-", "\u2212"))
            or found["before"].strip().endswith("-")
        )
        return (f"-{number}" if negative else number), currency

    def _number(self, text: str) -> str | None:
        whole, point, places = text.partition(self._writing.decimal)
        if self._grouped is not None:
            spaced = (
                whole.replace("\u00a0", " ").replace("\u202f", " ")
                if self._writing.thousands == " "
                else whole
            )
            if self._grouped.fullmatch(spaced):
                whole = spaced.replace(self._writing.thousands or "", "")
        if not re.fullmatch(r"[0-9]*", whole, re.ASCII) or (
            point and not re.fullmatch(r"[0-9]*", places, re.ASCII)
        ):
            return None
        if not whole and not places:
            return None
        if len(whole.lstrip("0")) > MAX_INTEGER_DIGITS or len(places) > 20:
            return None
        return f"{whole or '0'}.{places}" if places else whole

    def _count(self, cells: Sequence[str]) -> int | None:
        if not self._writing.aggregated:
            return None
        cell = _cell(cells, self._conversions)
        if cell is None:
            raise _UnreadableError("conversions: is empty. Write 0 where there were none")
        number = self._number(cell)
        if number is None or not re.fullmatch(r"[0-9]{1,9}(?:\.0*)?", number, re.ASCII):
            raise _UnreadableError(f"conversions: {cell[:40]!r} is no whole number. Map another column")
        return int(number.partition(".")[0])


class _UnreadableError(ValueError):
    """Field, reason and remedy in one sentence, as they are kept with the row."""


def _cell(cells: Sequence[str], place: int | None) -> str | None:
    if place is None:
        return None
    return cells[place] or None


def _short(cells: Sequence[str], place: int | None) -> str | None:
    cell = _cell(cells, place)
    return None if cell is None else cell[:LONGEST_WORD]


def _parsed(cell: str, form: str | None) -> date | datetime:
    """A day where only a day is written."""
    if form in EPOCHS:
        if not re.fullmatch(r"[0-9]{1,15}(?:\.0*)?", cell, re.ASCII):
            raise ValueError(cell)
        milliseconds = int(cell.partition(".")[0]) * 1000 // EPOCHS[form]
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    if form is not None:
        when = datetime.strptime(cell, form)  # noqa: DTZ007 — the caller sees to the zone
        return when if re.search(r"%[HIMScXs]", form) else when.date()
    if len(cell) == 10 and cell[4] == "-":
        return date.fromisoformat(cell)
    if cell.isdigit():
        raise ValueError(cell)
    return datetime.fromisoformat(cell)
