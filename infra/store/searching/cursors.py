"""The orders in which a search is listed, and the place in one of them where a page ended."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

from sqlalchemy import Row

from infra.store.searching.criteria import Criteria

_VERSION = 1
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.\d{1,6})?\+00")
_MOVING = {"since", "until"}
"""What an age is read as moves with the clock from page to page; only that there is one belongs to the search."""


class Sort(StrEnum):
    """Each is total, so that a page can be told from the next by one key."""

    NEWEST = "newest"
    """The postback made last first."""
    OLDEST = "oldest"
    DUE = "due"
    """Whose turn it is next first; then what waits for a hand, oldest first; then what waits for nothing, newest first."""
    VALUE = "value"
    """The highest value first, whatever its currency, and what has none last; of equal ones the newest."""


ORDERS = {
    Sort.NEWEST: "p.id DESC",
    Sort.OLDEST: "p.id",
    Sort.DUE: "p.due_at NULLS LAST, CASE WHEN p.due_at IS NULL THEN -p.id ELSE p.id END",
    Sort.VALUE: "c.value DESC NULLS LAST, p.conversion_id DESC, p.id DESC",
}
"""Of ``postbacks p JOIN conversions c``."""


@dataclass(frozen=True, slots=True)
class Key:
    """Where a postback stands in every order. ``due`` is its ``due_at`` as PostgreSQL writes it, for it may be infinite.

    An ``id`` of 0 stands behind all postbacks of the conversion where ids run down.
    """

    id: int
    conversion: int = 0
    value: Decimal | None = None
    due: str | None = None

    @classmethod
    def of(cls, row: Row[Any]) -> Key:
        """Of a row with ``id, conversion_id, value`` and ``due_at`` as text."""
        return cls(row.id, row.conversion_id, row.value, row.due)


def behind(sort: Sort, key: Key | None) -> tuple[str, dict[str, Any]]:
    """The condition that a postback comes later in the order than ``key``, and what it binds."""
    if key is None:
        return "true", {}
    names = {"key_id": key.id, "key_due": key.due, "key_conversion": key.conversion, "key_value": key.value}
    where = _BEHIND_VALUELESS if sort is Sort.VALUE and key.value is None else _BEHIND[sort]
    if sort is Sort.DUE and key.due is None:
        where = _BEHIND_WAITING
    return where, {name: value for name, value in names.items() if f":{name}" in where}


_LOWER = "(p.conversion_id, p.id) < (:key_conversion, :key_id)"
_DUE = "CAST(:key_due AS timestamptz)"
_BEHIND = {
    Sort.NEWEST: "p.id < :key_id",
    Sort.OLDEST: "p.id > :key_id",
    Sort.DUE: f"(p.due_at > {_DUE} OR (p.due_at = {_DUE} AND p.id > :key_id) OR p.due_at IS NULL)",
    Sort.VALUE: f"(c.value < :key_value OR (c.value = :key_value AND {_LOWER}) OR c.value IS NULL)",
}
_BEHIND_WAITING = "p.due_at IS NULL AND p.id < :key_id"
_BEHIND_VALUELESS = f"c.value IS NULL AND {_LOWER}"


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page ended: the last row shown, or how far was looked in vain.

    ``first`` says that it ended among what the text searched for is an id of, which is shown before all else.
    A cursor belongs to one search under one order.
    """

    sort: Sort
    search: str
    key: Key
    first: bool = False

    def encode(self) -> str:
        """Opaque text of letters, digits, ``-`` and ``_``, as it can stand in a URL."""
        key = self.key
        value = None if key.value is None else str(key.value)
        fields = [_VERSION, self.sort, self.search, self.first, key.id, key.conversion, value, key.due]
        text = json.dumps(fields, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """Raises ValueError when ``text`` is none of ours."""
        try:
            fields = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
            version, sort, search, first, number, conversion, value, due = fields
            key = Key(
                int(number),
                int(conversion),
                None if value is None else Decimal(value),
                None if due is None else str(due),
            )
            if due not in {None, "infinity", "-infinity"}:
                datetime.fromisoformat(_INSTANT.fullmatch(due)[1])  # type: ignore[index]  # refused below
            known = (
                version == _VERSION
                and max(key.id, key.conversion) < 2**63
                and min(key.id, key.conversion) >= 0
            )
            cursor = cls(Sort(sort), str(search), key, bool(first))
        except (ValueError, TypeError, InvalidOperation, binascii.Error, RecursionError):
            known = False
        if not known:
            raise ValueError(f"{text[:40]!r} is no place in a search; begin the search anew without it")
        return cursor


def search_mark(criteria: Criteria) -> str:
    """A short mark of what is searched for, the same from page to page."""
    asked = {
        name: "given" if name in _MOVING else repr(getattr(criteria, name))
        for name in sorted(criteria.given())
    }
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]
