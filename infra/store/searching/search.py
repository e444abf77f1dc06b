"""Finding things: which conversions an id means, and the listings of postbacks, signals, rejects and unrouted.

Every listing is newest first and comes with the number of all that match, so that nothing is cut off unsaid: exactly up
to ``COUNTED``, and beyond that or when counting would take long as "more than". What finds postbacks is in ``paging``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Engine, Row, text

from infra.db.snapshot import snapshot
from infra.store.evidence import reject_record, signal_record
from infra.store.keeping.archived import postback_of_archived
from infra.store.naming import conversions_named
from infra.store.records import ConversionRecord, FoundPostback, RejectRecord, SignalRecord
from infra.store.searching.criteria import (
    ATTEMPT_CRITERIA,
    CONVERSION_CRITERIA,
    KNOWN,
    POSTBACK_CRITERIA,
    REJECT_CRITERIA,
    SIGNAL_CRITERIA,
    Criteria,
    Range,
    bound,
    conditions,
    postback_conditions,
    run,
)
from infra.store.searching.cursors import Cursor, Sort
from infra.store.searching.paging import Search, SearchPage, search_all, search_page, search_pages, searching
from schemas.event import ConversionEvent, read_stored
from schemas.signals import names

__all__ = [
    "ATTEMPT_CRITERIA", "CONVERSION_CRITERIA", "COUNTED", "KNOWN", "POSTBACK_CRITERIA", "REJECT_CRITERIA",
    "SIGNAL_CRITERIA", "Criteria", "Cursor", "Found", "Range", "SearchPage", "Sort", "conversion_of_postback",
    "conversions_matching", "conversions_of_signal", "find_postbacks", "find_rejects", "find_signals",
    "find_unrouted", "is_conversion", "postback_conditions", "postback_of_attempt", "postback_of_check", "search_all", "search_page",
    "search_pages",
]  # fmt: skip

T = TypeVar("T")
COUNTED = 10_000
"""So many are counted exactly."""
_COUNTING_S = 2.0


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """The newest of ``total`` matches, or of more than ``total`` if ``beyond``."""

    rows: list[T]
    total: int
    beyond: bool = False

    @property
    def more(self) -> int:
        """How many are left out, at least."""
        return self.total - len(self.rows)


def find_postbacks(
    engine: Engine,
    criteria: Criteria,
    limit: int | None,
    progress: Callable[[SearchPage], None] = lambda _: None,
) -> Found[FoundPostback]:
    """Postbacks with their conversions. ``limit`` None lists all. Looks until it has them, however long that takes.

    ``progress`` hears of each page, and how far it looked.
    """
    rows: list[FoundPostback] = []
    after: Cursor | None = None
    while limit is None or len(rows) < limit:
        room = COUNTED if limit is None else limit - len(rows)
        page = search_page(engine, criteria, after=after, limit=min(room, 500), budget_s=_COUNTING_S)
        rows += page.rows
        after = page.next
        if after is None:
            return Found(rows, len(rows))
        progress(page)
    with searching(engine) as connection:
        tally = Search(connection, criteria, Sort.NEWEST).count(COUNTED, time.monotonic() + _COUNTING_S)
    return Found(rows, max(tally.count, len(rows)), tally.more)


def find_unrouted(engine: Engine, criteria: Criteria, limit: int | None) -> Found[ConversionRecord]:
    """Conversions that no destination took, with the reason."""
    where = conditions(criteria, CONVERSION_CRITERIA)
    columns = (
        "c.id, c.event::text AS event, c.received_at, c.net_value, c.outcomes, c.routed, c.unrouted_reason"
    )
    listing = _Listing(columns, "conversions c", "c.id", f"c.routed = 0 AND {where}")
    return _list(engine, listing, bound(criteria), limit, _conversion)


def find_signals(engine: Engine, criteria: Criteria, limit: int | None) -> Found[SignalRecord]:
    """Signals with what they came to. ``event_id`` finds the signal's own and its conversion's."""
    where = conditions(criteria, SIGNAL_CRITERIA)
    columns = "s.id, s.event::text AS event, s.received_at, s.status, s.outcome"
    return _list(engine, _Listing(columns, "signals s", "s.id", where), bound(criteria), limit, signal_record)


def find_rejects(engine: Engine, criteria: Criteria, limit: int | None) -> Found[RejectRecord]:
    """What could not be taken, duplicates included, verbatim and with the reasons."""
    where = conditions(criteria, REJECT_CRITERIA)
    columns = "r.id, r.received_at, r.code, r.problems, r.source, r.event_id, r.raw"
    return _list(engine, _Listing(columns, "rejects r", "r.id", where), bound(criteria), limit, reject_record)


def conversions_matching(engine: Engine, criteria: Criteria) -> list[int]:
    """Ids of all conversions by order, click or event id, oldest first."""
    where = conditions(criteria, CONVERSION_CRITERIA)
    query = text(f"SELECT c.id FROM conversions c WHERE {where} ORDER BY c.id")  # noqa: S608 — fixed fragments, values are bound
    return _ids(engine, query, bound(criteria))


def is_conversion(engine: Engine, conversion_id: int) -> bool:
    query = text("SELECT id FROM conversions WHERE id = :id")
    return bool(_ids(engine, query, {"id": conversion_id}))


def conversion_of_postback(engine: Engine, postback_id: int) -> int | None:
    query = text("SELECT conversion_id FROM postbacks WHERE id = :id")
    return next(iter(_ids(engine, query, {"id": postback_id})), None)


def postback_of_check(engine: Engine, check_id: int) -> int | None:
    query = text("SELECT postback_id FROM checks WHERE id = :id")
    return next(iter(_ids(engine, query, {"id": check_id})), None) or _postback_of_archived(engine, check_id)


def postback_of_attempt(engine: Engine, attempt_id: int) -> int | None:
    """Also for an attempt whose outcome was never written."""
    query = text(
        "SELECT postback_id FROM intents WHERE attempt_id = :id UNION SELECT postback_id FROM attempts WHERE id = :id"
    )
    return next(iter(_ids(engine, query, {"id": attempt_id})), None) or _postback_of_archived(
        engine, attempt_id
    )


def _postback_of_archived(engine: Engine, attempt_id: int) -> int | None:
    with engine.connect() as connection:
        return postback_of_archived(connection, attempt_id)


def conversions_of_signal(engine: Engine, signal_id: int) -> list[int]:
    """Ids of the conversions a signal names, oldest first; none while it waits for the first."""
    query = text("SELECT event::text AS event FROM signals WHERE id = :id")
    with snapshot(engine) as connection:
        row = connection.execute(query, {"id": signal_id}).one_or_none()
        signal = None if row is None else read_stored(row.event)
        if signal is None or isinstance(signal, ConversionEvent):
            return []
        return [each.id for each in conversions_named(connection, [signal]) if names(signal, each)]


@dataclass(frozen=True, slots=True)
class _Listing:
    columns: str
    tables: str
    key: str
    where: str


def _list(
    engine: Engine,
    listing: _Listing,
    values: dict[str, Any],
    limit: int | None,
    read: Callable[[Row[Any]], T],
) -> Found[T]:
    # Fixed fragments only, every value is bound.
    rows = f"SELECT {listing.columns} FROM {listing.tables} WHERE {listing.where} ORDER BY {listing.key} DESC LIMIT :limit"  # noqa: S608
    count = f"SELECT count(*) AS total FROM (SELECT FROM {listing.tables} WHERE {listing.where} LIMIT :most) AS first"  # noqa: S608
    with snapshot(engine) as connection:
        shown = [read(row) for row in run(connection, rows, values | {"limit": limit})]
        if limit is None or len(shown) < limit:
            return Found(shown, len(shown))
        total = run(connection, count, values | {"most": max(COUNTED, limit) + 1})[0].total
    most = max(COUNTED, limit)
    return Found(shown, min(total, most), total > most)


def _ids(engine: Engine, query: Any, values: dict[str, Any]) -> list[int]:
    with engine.connect() as connection:
        wanted = {name: values[name] for name in query.compile().params}
        return list(connection.execute(query, wanted).scalars())


def _conversion(row: Row[Any]) -> ConversionRecord:
    event = read_stored(row.event)
    assert isinstance(event, ConversionEvent)
    return ConversionRecord(
        row.id,
        event,
        row.received_at,
        row.net_value,
        row.routed,
        row.unrouted_reason,
        tuple(row.outcomes),
    )
