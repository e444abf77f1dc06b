"""Listings paged by key, newest first: what came in over HTTP, and what became no postback. Each page is one snapshot.

None counts what matches: a page costs the same among millions. ``before`` is the id of the last row of the page before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Engine, Row, text

from infra.db.snapshot import snapshot
from infra.store.evidence import reject_record, signal_record
from infra.store.records import ConversionRecord, RejectRecord, SignalRecord
from schemas.click import read_matches
from schemas.conversion import attributed
from schemas.event import ConversionEvent, read_stored

T = TypeVar("T")
FAILED = """(CASE WHEN EXISTS (SELECT FROM inbox_runs r WHERE r.inbox_id = i.id)
    THEN (SELECT r.rejected FROM inbox_runs r WHERE r.inbox_id = i.id ORDER BY r.id DESC LIMIT 1)
    ELSE i.rejected END) > 0 AND i.erased_at IS NULL"""


@dataclass(frozen=True, slots=True)
class Sifted:
    """What to list; everything given must hold. What a listing does not know of is not narrowed by.

    ``kind``: of a request (events, hook, click), a reject's code, or a signal's type. ``failed``: of requests, something
    in it was refused and no run of its mapping mended that.
    """

    source: str | None = None
    event_id: str | None = None
    order_id: str | None = None
    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    failed: bool | None = None


@dataclass(frozen=True, slots=True)
class ListedRequest:
    """A request that came in, without its headers and body. ``reasons``: how many were given, ``about``: the first."""

    id: int
    received_at: datetime
    kind: str
    source: str | None
    method: str
    target: str
    peer: str | None
    status_code: int
    accepted: int
    duplicates: int
    rejected: int
    length: int
    answer: dict[str, Any]
    mended: bool
    """Its mapping was run again since, and nothing is refused any more."""


def requests(engine: Engine, sifted: Sifted, *, before: int | None, limit: int) -> list[ListedRequest]:
    """What came in over HTTP."""
    columns = f"""i.id, i.received_at, i.kind, i.source, i.method, i.target, i.peer, i.status_code, i.accepted, i.duplicates,
        i.rejected, octet_length(i.body) AS length, i.answer, i.rejected > 0 AND NOT {FAILED} AS mended"""
    known = _common("i") | {"kind": "i.kind = :kind", "failed": FAILED}
    return _page(engine, "inbox i", "i", columns, known, sifted, before, limit, _request)


def rejects(engine: Engine, sifted: Sifted, *, before: int | None, limit: int) -> list[RejectRecord]:
    """What could not be taken, duplicates included."""
    columns = "r.id, r.received_at, r.code, r.problems, r.source, r.event_id, r.raw"
    known = _common("r") | {"event_id": "r.event_id = :event_id", "kind": "r.code = :kind"}
    return _page(engine, "rejects r", "r", columns, known, sifted, before, limit, reject_record)


def signals(engine: Engine, sifted: Sifted, *, before: int | None, limit: int) -> list[SignalRecord]:
    """Signals and what they came to. ``event_id`` is the signal's own, or its conversion's."""
    columns = "s.id, s.event::text AS event, s.received_at, s.status, s.outcome"
    known = _common("s") | {
        "event_id": "(s.event_id = :event_id OR s.conversion_event_id = :event_id)",
        "order_id": "s.order_id = :order_id",
        "kind": "s.type = :kind",
    }
    return _page(engine, "signals s", "s", columns, known, sifted, before, limit, signal_record)


def unrouted(engine: Engine, sifted: Sifted, *, before: int | None, limit: int) -> list[ConversionRecord]:
    """Conversions that no destination took, with the reason."""
    columns = (
        "c.id, c.event::text AS event, c.received_at, c.net_value, c.outcomes, c.routed, c.unrouted_reason"
    )
    known = _common("c") | {"event_id": "c.event_id = :event_id", "order_id": "c.order_id = :order_id"}
    return _page(
        engine,
        "conversions c",
        "c",
        columns,
        known,
        sifted,
        before,
        limit,
        _conversion,
        always="c.routed = 0",
    )


def reject(engine: Engine, reject_id: int) -> RejectRecord | None:
    """One reject."""
    found = rejects(engine, Sifted(), before=reject_id + 1, limit=1)
    return found[0] if found and found[0].id == reject_id else None


def signal(engine: Engine, signal_id: int) -> SignalRecord | None:
    """One signal."""
    found = signals(engine, Sifted(), before=signal_id + 1, limit=1)
    return found[0] if found and found[0].id == signal_id else None


def _common(alias: str) -> dict[str, str]:
    return {
        "source": f"{alias}.source = :source",
        "since": f"{alias}.received_at >= :since",
        "until": f"{alias}.received_at < :until",
    }


def _page(  # noqa: PLR0913, PLR0917 — what a listing is made of
    engine: Engine,
    tables: str,
    alias: str,
    columns: str,
    known: Mapping[str, str],
    sifted: Sifted,
    before: int | None,
    limit: int,
    read: Callable[[Row[Any]], T],
    always: str = "true",
) -> list[T]:
    given = {name: value for name, value in asdict(sifted).items() if value and name in known}
    where = [always, *(known[name] for name in given)]
    values = given | {"limit": limit}
    if before is not None:
        where.append(f"{alias}.id < :before")
        values["before"] = before
    query = text(
        f"SELECT {columns} FROM {tables} WHERE {' AND '.join(where)} ORDER BY {alias}.id DESC LIMIT :limit"  # noqa: S608 — our own words
    )
    with snapshot(engine) as connection:
        bound = {name: values[name] for name in query.compile().params}
        return [read(row) for row in connection.execute(query, bound)]


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


def _request(row: Row[Any]) -> ListedRequest:
    return ListedRequest(**dict(row._mapping))


def click_ids_of(engine: Engine, postback_ids: Sequence[int]) -> dict[int, tuple[str, ...]]:
    """The click ids of these postbacks' conversions, sent in or found: what a policy may have to mask in words about them."""
    query = text("""
        SELECT p.id, c.event::text AS event, c.matched FROM postbacks p JOIN conversions c ON c.id = p.conversion_id
        WHERE p.id = ANY(:ids)""")
    found = {}
    with snapshot(engine) as connection:
        for row in connection.execute(query, {"ids": list(postback_ids)}):
            event = read_stored(row.event)
            assert isinstance(event, ConversionEvent)
            found[row.id] = tuple(attributed(event, read_matches(row.matched)).click_ids.values())
    return found
