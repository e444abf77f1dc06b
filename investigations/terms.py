"""The fields of the one search box: how what stands behind each colon is read, and written again."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from infra.filters import AskingError, iso_instant, read_value, show_codes, show_instant, show_range
from schemas.durations import parse as parse_duration
from schemas.lifecycle import State
from schemas.money import plain
from schemas.verdict import VerdictKind

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_STATUS = re.compile(r"[1-5](xx|[0-9]{2})")
_LONGEST_TRUTH = {"yes": True, "no": False}
_TRUTH = {"yes": True, "no": False}
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)

Reader = Callable[[str, datetime], dict[str, Any]]
"""From what stands behind the colon, and the instant it is now, to fields of ``Criteria``. Raises AskingError."""


def _one(name: str) -> Reader:
    return lambda value, _: {name: value}


def _states(value: str, _: datetime) -> dict[str, Any]:
    states = tuple(_word("state", each, State) for each in value.split(","))
    return {"states": tuple(dict.fromkeys(states))}


def _verdict(value: str, _: datetime) -> dict[str, Any]:
    return {"verdict": _word("verdict", value, VerdictKind)}


def _word(field: str, value: str, kinds: Any) -> Any:
    try:
        return kinds(value)
    except ValueError:
        near = difflib.get_close_matches(value, list(kinds), n=1)
        meant = f"did you mean {near[0]}? There are" if near else "there are"
        raise AskingError(f"{field}:{value} is none; {meant} {', '.join(kinds)}") from None


def _status(value: str, _: datetime) -> dict[str, Any]:
    if not _STATUS.fullmatch(value):
        raise AskingError(f"status:{value} is no HTTP status; write status:503 or status:5xx")
    lowest = int(value.replace("x", "0"))
    return {"status_codes": (lowest, lowest + 99 if "x" in value else lowest)}


def _truth(field: str, name: str) -> Reader:
    def read(value: str, _: datetime) -> dict[str, Any]:
        if value not in _TRUTH:
            raise AskingError(f"{field}:{value} is neither yes nor no; write {field}:yes or {field}:no")
        return {name: _TRUTH[value]}

    return read


def _value(value: str, _: datetime) -> dict[str, Any]:
    return read_value("value", value)


def _since(value: str, now: datetime) -> dict[str, Any]:
    return {"since": _instant("since", value, now)}


def _until(value: str, now: datetime) -> dict[str, Any]:
    return {"until": _instant("until", value, now)}


def _received(value: str, now: datetime) -> dict[str, Any]:
    """A day, or a range whose last day is included; an instant ends it just before."""
    low, dots, high = value.partition("..")
    first = _instant("received", low, now) if low else None
    if not (low or high) or (not dots and not _DAY.fullmatch(value)):
        raise AskingError(f"received:{value} is no day and no range; write received:2026-11-01..2026-11-03")
    last = high if dots else low
    end = _instant("received", last, now) if last else None
    if end is not None and _DAY.fullmatch(last):
        end += timedelta(days=1)
    if first is not None and end is not None and first >= end:
        raise AskingError(f"received:{value} ends before it begins; write received:{high}..{low}")
    return {name: at for name, at in (("since", first), ("until", end)) if at is not None}


def _instant(field: str, value: str, now: datetime) -> datetime:
    try:
        return now - parse_duration(value)
    except ValueError:
        pass
    try:
        instant = iso_instant(value)
        if _EARLIEST <= instant <= _LATEST:
            return instant
    except ValueError:
        pass
    raise AskingError(
        f"{field}:{value} is neither an age nor an instant; write {field}:2h, {field}:3d or"
        f" {field}:2026-11-22T10:00:00Z"
    )


FIELDS: dict[str, Reader] = {
    "state": _states,
    "destination": _one("destination"),
    "network": _one("network"),
    "source": _one("source"),
    "order": _one("order_id"),
    "click": _one("click_id"),
    "event": _one("event_id"),
    "status": _status,
    "verdict": _verdict,
    "error": _one("error"),
    "value": _value,
    "since": _since,
    "until": _until,
    "received": _received,
    "text": _one("text"),
    "lost": _truth("lost", "lost"),
    "adjustments": _truth("adjustments", "adjustments"),
    "matched": _truth("matched", "matched"),
}
"""What may stand before a colon."""
EXAMPLES: dict[str, str] = {
    "state": "state:dead,in_doubt", "destination": "destination:xandr-main", "network": "network:xandr",
    "source": "source:shop", "order": "order:1234", "click": "click:nym1CJ…", "event": "event:shopify:order:1234",
    "status": "status:5xx", "verdict": "verdict:retry", "error": "error:timeout", "value": "value:10..50",
    "since": "since:2h", "until": "until:2026-11-01", "received": "received:2026-11-01..2026-11-03",
    "text": 'text:"success=false"', "lost": "lost:yes", "adjustments": "adjustments:yes", "matched": "matched:no",
}  # fmt: skip


def quoted(value: str) -> str:
    """``value`` as it can stand behind a colon; in quotes only where it must."""
    if value and '"' not in value and "\\" not in value and not re.search(r"\s", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


WRITERS: dict[str, Callable[[Any], str]] = {
    "states": lambda states: "state:" + ",".join(states),
    "destination": lambda value: f"destination:{quoted(value)}",
    "network": lambda value: f"network:{quoted(value)}",
    "source": lambda value: f"source:{quoted(value)}",
    "order_id": lambda value: f"order:{quoted(value)}",
    "click_id": lambda value: f"click:{quoted(value)}",
    "event_id": lambda value: f"event:{quoted(value)}",
    "status_codes": lambda ends: f"status:{show_codes(ends)}",
    "verdict": lambda value: f"verdict:{value}",
    "error": lambda value: f"error:{quoted(value)}",
    "value": lambda ends: f"value:{show_range(ends)}",
    "above": lambda value: f"value:>{plain(value)}",
    "below": lambda value: f"value:<{plain(value)}",
    "since": lambda at: f"since:{show_instant(at)}",
    "until": lambda at: f"until:{show_instant(at)}",
    "text": lambda value: f"text:{quoted(value)}",
    "lost": lambda value: f"lost:{'yes' if value else 'no'}",
    "adjustments": lambda value: f"adjustments:{'yes' if value else 'no'}",
    "matched": lambda value: f"matched:{'yes' if value else 'no'}",
}
"""By field of ``Criteria``: the term that is read as its value."""
