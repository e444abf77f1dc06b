"""The newest attempts as they are settled, for whoever watches. A view, not evidence: it may leave some out, and says so."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, text

from infra.db.snapshot import snapshot
from schemas.lifecycle import State
from schemas.verdict import VerdictKind

BEHIND = 2_000
"""Ids are given when an attempt begins and it is seen when it ends, so newer ones may be seen first: by so many."""
MOST = 500
"""Rows of one look."""


@dataclass(frozen=True, slots=True)
class TailedAttempt:
    """One settled attempt, in short."""

    id: int
    number: int
    postback_id: int
    conversion_id: int
    destination: str
    network: str
    name: str
    order_id: str | None
    event_id: str
    ended_at: datetime
    took_s: float
    status_code: int | None
    verdict: VerdictKind
    rule: str
    state: State
    error_class: str | None


@dataclass(frozen=True, slots=True)
class Look:
    """``attempts``: new ones, oldest first; ``left_out``: there were more. ``floor``: where to look on from."""

    attempts: list[TailedAttempt]
    left_out: bool
    floor: int


# Old partitions are left out by the instant, so that a look costs the same however much there is.
_NEW = text("""
    SELECT a.id, a.number, a.postback_id, p.conversion_id, v.destination, v.contract->'network'->>'slug' AS network,
        c.name, c.order_id, c.event_id, a.ended_at, extract(epoch FROM a.ended_at - a.intent_at) AS took_s, a.status_code,
        a.verdict, a.rule, a.state, a.error_class
    FROM (SELECT * FROM attempts WHERE id > :floor AND id <> ALL(:seen) AND intent_at > now() - interval '2 days'
          ORDER BY id DESC LIMIT :most) a
        JOIN postbacks p ON p.id = a.postback_id
        JOIN conversions c ON c.id = p.conversion_id
        JOIN destination_versions v ON v.id = a.version_id
    ORDER BY a.id""")
_LAST = text("""
    SELECT coalesce((SELECT max(id) FROM attempts WHERE intent_at > now() - interval '2 days'), 0) AS last,
        (SELECT min(attempt_id) FROM postbacks WHERE due_at IS NOT NULL AND state = 'firing') AS first_in_flight""")


def look(engine: Engine, floor: int, seen: Collection[int], *, most: int = MOST) -> Look:
    """Attempts settled since, but for those already ``seen`` above ``floor``; begin with a floor of ``beginning``."""
    with snapshot(engine) as connection:
        values = {"floor": floor, "seen": list(seen), "most": most + 1}
        rows = connection.execute(_NEW, values).all()
        edge = connection.execute(_LAST).one()
    behind = max(edge.last - BEHIND, 0)
    next_floor = behind if edge.first_in_flight is None else min(behind, edge.first_in_flight - 1)
    # An attempt that hangs must not keep everything after it in mind for ever.
    next_floor = max(next_floor, floor, edge.last - 20 * BEHIND)
    return Look([_tailed(row) for row in rows[-most:]], len(rows) > most, next_floor)


def beginning(engine: Engine, *, rows: int = 100) -> int:
    """The floor from which the last ``rows`` attempts are new."""
    query = text("""
        SELECT coalesce(min(id), 0) - 1 FROM (SELECT id FROM attempts WHERE intent_at > now() - interval '2 days'
            ORDER BY id DESC LIMIT :rows) newest""")
    with snapshot(engine) as connection:
        return int(connection.execute(query, {"rows": rows}).scalar_one())


def _tailed(row: Row[Any]) -> TailedAttempt:
    values = dict(row._mapping)
    values |= {
        "took_s": float(row.took_s),
        "verdict": VerdictKind(row.verdict),
        "state": State(row.state),
    }
    return TailedAttempt(**values)
