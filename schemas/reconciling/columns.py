"""Which column of a network's report says what: by the options, by what was remembered, or guessed from the headers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from schemas.cells import MappingError

ROW_FIELDS: Final = (
    "click_id",
    "order_id",
    "name",
    "value",
    "currency",
    "occurred_at",
    "status",
)
"""Fields of a report that lists conversions; a row is told by its click id or its order id."""
SUM_FIELDS: Final = ("occurred_at", "conversions", "value", "currency")
"""Fields of an aggregated report: days with counts."""

_HEADERS: Final[dict[str, tuple[str, ...]]] = {
    "click_id": (
        "click id", "clickid", "click", "cid", "sspdata", "kcid", "gclid", "subid", "sub id", "clid", "session id",
        "aff sub", "visitor id", "click token", "external id", "tracking id", "externalid", "request id", "auction id",
    ),
    "order_id": (
        "order id", "orderid", "order", "order number", "order no", "transaction id", "transactionid", "txid", "txn id",
        "transaction", "advertiser reference", "reference", "order ref", "bestellnummer", "adv sub", "conversion order id",
    ),
    "name": ("event", "event name", "goal", "conversion name", "goal name", "conversion type", "event type", "action"),
    "value": (
        "value", "payout", "revenue", "amount", "conversion value", "sale amount", "order value", "total", "price",
        "umsatz", "wert", "betrag", "total conv value", "conv value", "all conv value", "total value", "commission",
    ),
    "currency": ("currency", "currency code", "curr", "währung", "waehrung"),
    "occurred_at": (
        "conversion time", "conversion date", "date", "time", "datetime", "timestamp", "day", "created", "created at",
        "event time", "event date", "conversion timestamp", "date time", "occurred at", "datum", "tag", "zeit",
        "transaction date", "time utc", "date utc", "click time", "click date",
    ),
    "status": ("status", "state", "conversion status", "approval status"),
    "conversions": ("conversions", "conv", "total conversions", "count", "sales", "actions", "all conv", "leads"),
}  # fmt: skip


def normal(header: str) -> str:
    """``Click_ID (raw)`` as ``click id``: what is compared."""
    text = re.sub(r"\(.*?\)|\[.*?\]", " ", header.casefold())
    return " ".join(re.sub(r"[^0-9a-zäöüß]+", " ", text).split())


def guess_columns(
    header: Sequence[str], *, aggregated: bool, click_parameters: Iterable[str] = ()
) -> dict[str, str]:
    """Field → column, as far as headers tell. ``click_parameters`` are the network's own names for its click id."""
    fields = SUM_FIELDS if aggregated else ROW_FIELDS
    names = [normal(each) for each in header]
    own = tuple(normal(each) for each in click_parameters)
    found: dict[str, str] = {}
    taken: set[int] = set()
    for field in fields:
        known = (*own, *_HEADERS[field]) if field == "click_id" else _HEADERS[field]
        for wanted in known:
            place = next((i for i, name in enumerate(names) if name == wanted and i not in taken), None)
            if place is not None and names.count(wanted) == 1:
                found[field] = header[place]
                taken.add(place)
                break
    return found


def looks_like_header(cells: Sequence[str], wanted: Iterable[str]) -> bool:
    """Whether a line of cells is the header: it has a column that was named, or two that are known by heart."""
    given = {cell.strip() for cell in cells}
    asked = set(wanted)
    if asked:
        return asked <= given
    known = {name for names in _HEADERS.values() for name in names}
    return sum(normal(cell) in known for cell in cells) >= min(2, len(cells))


def place_columns(header: Sequence[str], columns: Mapping[str, str], *, aggregated: bool) -> dict[str, int]:
    """Field → place. Raises MappingError for a column that is not there or there twice, and where a row has no key."""
    fields = SUM_FIELDS if aggregated else ROW_FIELDS
    places: dict[str, int] = {}
    for field, column in columns.items():
        if field not in fields:
            near = difflib.get_close_matches(field, fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"use {', '.join(fields)}"
            raise MappingError(f"--map: {field!r} is no field of a report; {hint}")
        found = [place for place, name in enumerate(header) if name.strip() == column.strip()]
        if len(found) != 1:
            raise MappingError(_no_column(header, column, field, len(found)))
        places[field] = found[0]
    needed = ("occurred_at", "conversions") if aggregated else ()
    lacking = [field for field in needed if field not in places]
    if not aggregated and "click_id" not in places and "order_id" not in places:
        lacking = ["click_id"]
    if lacking:
        listed = ", ".join(repr(name) for name in header[:30])
        raise MappingError(
            f"no column is known to be {lacking[0]}; say which with --map {lacking[0]}=COLUMN. The report has {listed}"
        )
    return places


def _no_column(header: Sequence[str], column: str, field: str, times: int) -> str:
    if times:
        return f"--map {field}: the report has {times} columns {column!r}; give them different names"
    near = difflib.get_close_matches(column, header, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(repr(name) for name in header[:30])}"
    return f"--map {field}: the report has no column {column!r}; {hint}"


def guess_numbers(cells: Iterable[str]) -> tuple[str, str | None]:
    """Decimal sign and thousands separator that sample amounts are written with; a point where nothing tells."""
    votes = {",": 0, ".": 0}
    grouped: set[str] = set()
    for cell in cells:
        number = re.sub(r"[^0-9.,'\u2019 \u00a0\u202f]", "", cell).strip()
        signs = [one for one in number if one in ".,"]
        if not signs:
            continue
        last = signs[-1]
        places = len(number) - number.rindex(last) - 1
        if len(set(signs)) == 2:
            votes[last] += 10
            grouped |= set(signs) - {last}
        elif len(signs) > 1:
            votes["," if last == "." else "."] += 10
            grouped.add(last)
        elif places != 3:
            votes[last] += 10
        if re.search(r"[0-9][ \u00a0\u202f][0-9]{3}", number):
            grouped.add(" ")
        if re.search(r"[0-9]['\u2019][0-9]{3}", number):
            grouped.add("'" if "'" in number else "\u2019")
    decimal = "," if votes[","] > votes["."] else "."
    separators = sorted(grouped - {decimal})
    return decimal, separators[0] if separators else ("," if decimal == "." else ".")


_DAYS = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%y", "%Y%m%d", "%b %d, %Y", "%d %b %Y",
         "%B %d, %Y", "%d %B %Y", "%d-%b-%Y", "%m/%d/%y", "%d/%m/%y")  # fmt: skip
_TIMES = ("", " %H:%M:%S", " %H:%M", " %I:%M:%S %p", " %I:%M %p", ", %H:%M:%S", " %H:%M:%S.%f", "T%H:%M:%S")
FORMATS: Final = tuple(f"{day}{time}" for day in _DAYS for time in _TIMES)


MOST_DATES: Final = 0.5
"""Share of the sample dates that a format must fit: a cell that is no date must not decide for all."""


def guess_dates(cells: Sequence[str]) -> str | None:
    """The format that sample dates are written in; None for ISO 8601, which needs none.

    Raises MappingError where day and month could be either way round, or nothing fits most of them.
    """
    sample = [cell for cell in dict.fromkeys(cell.strip() for cell in cells) if cell][:500]
    enough = MOST_DATES * len(sample)
    if not sample or sum(map(_is_iso, sample)) >= enough:
        return None
    for form, digits in (("epoch_s", r"1[0-9]{9}"), ("epoch_ms", r"1[0-9]{12}")):
        if sum(re.fullmatch(digits, cell) is not None for cell in sample) >= enough:
            return form
    fits = {form: [cell for cell in sample if _fits(cell, form)] for form in FORMATS}
    most = max(map(len, fits.values()))
    if most < enough:
        raise MappingError(
            f"--date-format: the dates are written like {sample[0]!r}, which is not known; say how, such as %d.%m.%Y"
        )
    fitting = [form for form, found in fits.items() if len(found) == most]
    meanings = {tuple(datetime.strptime(cell, form) for cell in fits[form]) for form in fitting}  # noqa: DTZ007 — only the shapes are compared
    if len(meanings) > 1:
        raise MappingError(
            f"--date-format: {sample[0]!r} could be {' or '.join(fitting[:2])}; say which of them it is"
        )
    return fitting[0]


def _is_iso(cell: str) -> bool:
    try:
        datetime.fromisoformat(cell)
    except ValueError:
        return False
    return not cell.isdigit()


def _fits(cell: str, form: str) -> bool:
    try:
        datetime.strptime(cell, form)  # noqa: DTZ007 — only the shape is looked at
    except ValueError:
        return False
    return True


NOT_COUNTED: Final = re.compile(
    r"reject|declin|refus|cancel|invalid|fraud|void|revers|trash|fail|duplicate|not\s*approved|disapprov|storn|abgelehnt",
    re.IGNORECASE,
)
"""Words of a status that says that the network does not count the row."""


def uncounted(statuses: Iterable[str], counted: Sequence[str]) -> list[str]:
    """Those of a report's ``statuses`` that do not count: all but ``counted`` if these are given, else by their words."""
    if counted:
        kept = {each.casefold() for each in counted}
        return [each for each in statuses if each.casefold() not in kept]
    return [each for each in statuses if NOT_COUNTED.search(each)]
