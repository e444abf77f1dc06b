"""Finding things: which conversions an id means, and the listings of postbacks, signals, rejects and unrouted.

Every listing is newest first and comes with the number of all that match, so that nothing is cut off unsaid.
Orders, events and click ids are found by their indexes; the click ids of a conversion are one array (``@>``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine, Row, text

from infra.db.snapshot import snapshot
from infra.store.archived import postback_of_archived
from infra.store.clicks import indexed
from infra.store.evidence import reject_record, signal_record
from infra.store.naming import conversions_named
from infra.store.records import ConversionRecord, FoundPostback, RejectRecord, SignalRecord
from schemas.click import read_matches
from schemas.conversion import attributed
from schemas.event import ConversionEvent, read_stored
from schemas.lifecycle import State
from schemas.signals import names
from schemas.verdict import VerdictKind

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Criteria:
    """What to look for; everything given must hold. ``status_codes`` is an inclusive range, as 500 to 599.

    ``since`` and ``until`` are about the instant of receipt; ``until`` itself is not included.
    """

    states: tuple[State, ...] = ()
    destination: str | None = None
    network: str | None = None
    order_id: str | None = None
    click_id: str | None = None
    event_id: str | None = None
    source: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    status_codes: tuple[int, int] | None = None
    verdict: VerdictKind | None = None
    lost: bool | None = None
    """Only what the network shows wrongly and cannot be told."""
    adjustments: bool | None = None
    """Only corrections of what was delivered."""


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """The newest of ``total`` matches."""

    rows: list[T]
    total: int

    @property
    def more(self) -> int:
        return self.total - len(self.rows)


# Ids first, by their index: together with ORDER BY and LIMIT the planner would rather walk all postbacks from the
# newest on, hoping to meet enough matches soon.
_POINTS = {
    "order_id": "k.order_id = :order_id",
    "click_id": f"k.click_ids @> ARRAY[{indexed('CAST(:click_id AS text)')}]",
    "event_id": "k.event_id = :event_id",
}
_OF_CONVERSIONS = {
    "source": "c.source = :source",
    "since": "c.received_at >= :since",
    "until": "c.received_at < :until",
}
POSTBACK_CRITERIA = {
    **{
        name: f"p.conversion_id = ANY(ARRAY(SELECT k.id FROM conversions k WHERE {condition}))"  # noqa: S608 — fixed fragments
        for name, condition in _POINTS.items()
    },
    "states": "p.state = ANY(:states)",
    "destination": "p.version_id IN (SELECT id FROM destination_versions WHERE destination = :destination)",
    "network": "p.version_id IN (SELECT id FROM destination_versions WHERE contract->'network'->>'slug' = :network)",
    "lost": "p.id = ANY(ARRAY(SELECT l.id FROM postbacks l WHERE l.lost_at IS NOT NULL))",
    "adjustments": "p.adjusts IS NOT NULL",
    **_OF_CONVERSIONS,
}
CONVERSION_CRITERIA = {
    **{
        name: f"c.id = ANY(ARRAY(SELECT k.id FROM conversions k WHERE {condition}))"  # noqa: S608 — fixed fragments
        for name, condition in _POINTS.items()
    },
    **_OF_CONVERSIONS,
}
SIGNAL_CRITERIA = {
    "order_id": "s.order_id = :order_id",
    "event_id": "(s.event_id = :event_id OR s.conversion_event_id = :event_id)",
    "source": "s.source = :source",
    "since": "s.received_at >= :since",
    "until": "s.received_at < :until",
}
REJECT_CRITERIA = {
    "event_id": "r.event_id = :event_id",
    "source": "r.source = :source",
    "since": "r.received_at >= :since",
    "until": "r.received_at < :until",
}
ATTEMPT_CRITERIA = {
    "verdict": "a.verdict = :verdict",
    # The attempt's own code is its last hop's; a redirect that came before is only in the hops.
    "status_codes": """(a.status_code BETWEEN :lowest AND :highest OR EXISTS (
        SELECT FROM hops h WHERE h.attempt_id = a.id AND h.intent_at = a.intent_at
            AND h.status_code BETWEEN :lowest AND :highest))""",
}
"""Both must hold of the same attempt."""


def find_postbacks(engine: Engine, criteria: Criteria, limit: int | None) -> Found[FoundPostback]:
    """Postbacks with their conversions. ``limit`` None lists all."""
    where, values = postback_conditions(criteria)
    columns = """p.id AS postback_id, p.conversion_id, p.state, p.release_at, nullif(p.due_at, 'infinity') AS due_at, p.attempts, p.reason,
        p.adjustment, p.adjusts, p.reported, p.retracted_at, p.lost, p.lost_at,
        v.destination, v.contract->'network'->>'slug' AS network, c.event_id, c.source, c.matched, c.net_value, c.outcomes,
        c.received_at, c.event::text AS event, last.status_code, last.verdict"""
    tables = "postbacks p JOIN conversions c ON c.id = p.conversion_id"
    details = """JOIN destination_versions v ON v.id = p.version_id
        LEFT JOIN LATERAL (SELECT a.status_code, a.verdict FROM attempts a
            WHERE a.postback_id = p.id ORDER BY a.number DESC, a.id DESC LIMIT 1) last ON true"""
    return _list(engine, _Listing(columns, tables, "p.id", where, details), values, limit, _postback)


def postback_conditions(criteria: Criteria) -> tuple[str, dict[str, Any]]:
    """What must hold of ``postbacks p JOIN conversions c``, as SQL, and the values it may bind."""
    where, values = _where(criteria, POSTBACK_CRITERIA)
    attempt, _ = _where(criteria, ATTEMPT_CRITERIA)
    if attempt != "true":
        where += f" AND EXISTS (SELECT FROM attempts a WHERE a.postback_id = p.id AND {attempt})"
    return where, values


def find_unrouted(engine: Engine, criteria: Criteria, limit: int | None) -> Found[ConversionRecord]:
    """Conversions that no destination took, with the reason."""
    where, values = _where(criteria, CONVERSION_CRITERIA)
    columns = (
        "c.id, c.event::text AS event, c.received_at, c.net_value, c.outcomes, c.routed, c.unrouted_reason"
    )
    listing = _Listing(columns, "conversions c", "c.id", f"c.routed = 0 AND {where}")
    return _list(engine, listing, values, limit, _conversion)


def find_signals(engine: Engine, criteria: Criteria, limit: int | None) -> Found[SignalRecord]:
    """Signals with what they came to. ``event_id`` finds the signal's own and its conversion's."""
    where, values = _where(criteria, SIGNAL_CRITERIA)
    columns = "s.id, s.event::text AS event, s.received_at, s.status, s.outcome"
    return _list(engine, _Listing(columns, "signals s", "s.id", where), values, limit, signal_record)


def find_rejects(engine: Engine, criteria: Criteria, limit: int | None) -> Found[RejectRecord]:
    """What could not be taken, duplicates included, verbatim and with the reasons."""
    where, values = _where(criteria, REJECT_CRITERIA)
    columns = "r.id, r.received_at, r.code, r.problems, r.source, r.event_id, r.raw"
    return _list(engine, _Listing(columns, "rejects r", "r.id", where), values, limit, reject_record)


def conversions_matching(engine: Engine, criteria: Criteria) -> list[int]:
    """Ids of all conversions by order, click or event id, oldest first."""
    where, values = _where(criteria, CONVERSION_CRITERIA)
    query = text(f"SELECT c.id FROM conversions c WHERE {where} ORDER BY c.id")  # noqa: S608 — fixed fragments, values are bound
    return _ids(engine, query, values)


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
    """Enough to tell which rows match; also counted."""
    key: str
    where: str
    details: str = ""
    """Joins that only the rows shown need."""


def _where(criteria: Criteria, fragments: dict[str, str]) -> tuple[str, dict[str, Any]]:
    given = [fragments[name] for name in fragments if getattr(criteria, name) not in (None, ())]
    lowest, highest = criteria.status_codes or (None, None)
    values = {name: getattr(criteria, name) for name in Criteria.__dataclass_fields__}
    values |= {"states": list(criteria.states), "lowest": lowest, "highest": highest}
    return " AND ".join(given) or "true", values


def _list(
    engine: Engine,
    listing: _Listing,
    values: dict[str, Any],
    limit: int | None,
    read: Callable[[Row[Any]], T],
) -> Found[T]:
    # Fixed fragments only, every value is bound.
    rows = f"SELECT {listing.columns} FROM {listing.tables} {listing.details} WHERE {listing.where} ORDER BY {listing.key} DESC LIMIT :limit"  # noqa: S608
    count = f"SELECT count(*) AS total FROM {listing.tables} WHERE {listing.where}"  # noqa: S608
    with snapshot(engine) as connection:
        shown = [read(row) for row in _run(connection, rows, values | {"limit": limit})]
        full = limit is None or len(shown) < limit
        total = len(shown) if full else _run(connection, count, values)[0].total
    return Found(shown, total)


def _run(connection: Connection, statement: str, values: dict[str, Any]) -> Sequence[Row[Any]]:
    bound = text(statement)
    return connection.execute(bound, {name: values[name] for name in bound.compile().params}).all()


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


def _postback(row: Row[Any]) -> FoundPostback:
    event = read_stored(row.event)
    assert isinstance(event, ConversionEvent)
    return FoundPostback(
        postback_id=row.postback_id,
        conversion_id=row.conversion_id,
        destination=row.destination,
        network=row.network,
        state=State(row.state),
        source=row.source,
        event_id=row.event_id,
        name=event.name,
        order_id=event.order_id,
        value=event.value,
        net_value=row.net_value,
        currency=event.currency,
        click_ids=attributed(event, read_matches(row.matched)).click_ids,
        occurred_at=event.occurred_at,
        received_at=row.received_at,
        release_at=row.release_at,
        due_at=row.due_at,
        attempts_made=row.attempts,
        status_code=row.status_code,
        verdict=None if row.verdict is None else VerdictKind(row.verdict),
        reason=row.reason,
        outcomes=tuple(row.outcomes),
        adjustment=row.adjustment,
        adjusts=row.adjusts,
        reported=row.reported,
        retracted_at=row.retracted_at,
        lost=row.lost,
        lost_at=row.lost_at,
    )
