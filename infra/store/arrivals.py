"""Which request brought a conversion, and the other way round: the two are kept apart, so it is looked for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine, text

from infra.db.snapshot import snapshot
from infra.store.deliveries import Kept
from infra.store.records import ConversionRecord

# What comes over HTTP is taken in within moments, unless intake was behind; each look is bounded by its number of rows.
_LOOKS = (timedelta(seconds=5), timedelta(minutes=10))
_MOST_ROWS = 300
_LARGEST_BYTES = 262_144
_SHORTEST_NAME = 4
"""Characters: a shorter part of an event id stands in any body."""

_BROUGHT = text("""
    SELECT id, received_at, kind, method, target, status_code FROM (
        SELECT id, received_at, kind, source, method, target, status_code, body, accepted FROM inbox
        WHERE received_at > :since AND received_at <= :until AND kind <> 'click' AND octet_length(body) <= :largest
        LIMIT :most) near
    WHERE accepted > 0 AND (position(CAST(:event_id AS bytea) IN body) > 0
        OR (kind = 'hook' AND source = :source AND position(CAST(:named AS bytea) IN body) > 0))
    ORDER BY id LIMIT 1""")


@dataclass(frozen=True, slots=True)
class Brought:
    """The request that a conversion came in, most likely: the first before it that names it and had events taken."""

    id: int
    received_at: datetime
    kind: str
    method: str
    target: str
    status_code: int


def brought_by(engine: Engine, conversion: ConversionRecord) -> Brought | None:
    """The request that names the conversion by its event id; of a vendor's hook, by the last part of that.

    None for what came another way, for a body that came compressed or with hundreds of events, and for one that intake was
    long behind with.
    """
    event = conversion.event
    if conversion.erased_at is not None:
        return None  # nobody is to find the way back
    last = event.event_id.rpartition(":")[2]
    named = last if len(last) >= _SHORTEST_NAME else event.event_id
    values = {
        "until": conversion.received_at,
        "event_id": event.event_id.encode("utf-8", "surrogatepass"),
        "named": named.encode("utf-8", "surrogatepass"),
        "source": event.source,
        "most": _MOST_ROWS,
        "largest": _LARGEST_BYTES,
    }
    with snapshot(engine) as connection:
        for back in _LOOKS:
            row = connection.execute(
                _BROUGHT, values | {"since": conversion.received_at - back}
            ).one_or_none()
            if row is not None:
                return Brought(**row._mapping)
    return None


_CAME = text("""
    SELECT id, event_id FROM (
        SELECT id, event_id, source FROM conversions
        WHERE received_at >= :since AND received_at <= :until ORDER BY received_at LIMIT :most) near
    WHERE position(convert_to('"' || event_id || '"', 'UTF8') IN CAST(:body AS bytea)) > 0
        OR (:hook AND source = :source
            AND position(convert_to(split_part(event_id, ':', -1), 'UTF8') IN CAST(:body AS bytea)) > 0)
    ORDER BY id""")


def came_of(engine: Engine, kept: Kept) -> list[tuple[int, str]]:
    """Ids and event ids of the conversions that a request brought, as far as its body names them; see ``brought_by``."""
    if not kept.accepted:
        return []
    values = {
        "since": kept.received_at,
        "until": kept.received_at + _LOOKS[-1],
        "most": _MOST_ROWS,
        "body": kept.body,
        "hook": kept.kind == "hook",
        "source": kept.source,
    }
    with snapshot(engine) as connection:
        return [(row.id, row.event_id) for row in connection.execute(_CAME, values)]
