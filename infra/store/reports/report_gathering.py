"""Both sides of a reconciliation, gathered in temporary tables of one connection: ``r_theirs`` and ``r_ours``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Connection, text

from schemas.destination import Contract
from schemas.reconciling.facts import DatedBy

MARGIN = timedelta(days=2)
"""Our log is read so far beyond the report's days: a day shift at its edge is no missing conversion."""
WORK_MEM = "64MB"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which of our postbacks the report is about. ``first`` and ``last`` are days in ``zone``, both included."""

    contract: Contract
    versions: tuple[int, ...]
    zone: str
    dated_by: DatedBy
    first: date | None
    last: date | None

    @property
    def values(self) -> dict[str, Any]:
        names = self.contract.destination.event_names
        return {
            "versions": list(self.versions),
            "zone": self.zone,
            "first": self.first,
            "last": self.last,
            "margin": MARGIN,
            "destination": self.contract.name,
            "network": self.contract.network.slug,
            "shown": list(names),
            "called": list(names.values()),
        }


_DATED: dict[str, str] = {
    "event": "c.occurred_at",
    # What was never delivered is dated by when it was tried first, or is due.
    "delivery": "CASE WHEN p.state = 'delivered' THEN p.settled_at ELSE coalesce(p.first_attempt_at, p.release_at) END",
    "click": "coalesce((c.matched->:destination->>'clicked_at')::timestamptz, (c.event->>'clicked_at')::timestamptz, c.occurred_at)",
}
# A conversion is received after it happened, give or take the clock's tolerance: the index on the receipt prunes.
_RECEIVED = {
    "event": "c.received_at >= CAST(:first AS date)::timestamp AT TIME ZONE :zone - CAST(:margin AS interval) - interval '1 hour'",
    "click": "c.received_at >= CAST(:first AS date)::timestamp AT TIME ZONE :zone - CAST(:margin AS interval) - interval '1 hour'",
    "delivery": "c.received_at < (CAST(:last AS date) + 1)::timestamp AT TIME ZONE :zone + CAST(:margin AS interval)",
}
_SENT = """CASE WHEN c.matched IS NULL AND cardinality(c.click_ids) = 1 AND c.click_ids[1] NOT LIKE 'sha256:%'
    THEN c.click_ids[1] ELSE coalesce(c.matched->:destination->>'token', c.event->'click_ids'->>:destination,
        c.event->'click_ids'->>:network) END"""
_PARTNER = "c.event->>'partner_id'"


def prepare(connection: Connection) -> None:
    """Settings for the length of a reconciliation: large sorts and joins, no end to a statement but its own."""
    for statement in (
        "SET statement_timeout = 0",
        f"SET work_mem = '{WORK_MEM}'",
        "SET temp_buffers = '16MB'",
    ):
        connection.execute(text(statement))


def gather_ours(connection: Connection, scope: Scope) -> int:
    """The destination's postbacks of the report's days, and of a margin around them. Returns how many."""
    at = _DATED[scope.dated_by]
    bounds = ["p.version_id = ANY(:versions)", "p.adjusts IS NULL"]
    inside = ["true"]
    if scope.first is not None:
        start = "CAST(:first AS date)::timestamp AT TIME ZONE :zone"
        bounds += [f"{at} >= {start} - CAST(:margin AS interval)"]
        inside.append(f"{at} >= {start}")
        if scope.dated_by != "delivery":
            bounds.append(_RECEIVED[scope.dated_by])
    if scope.last is not None:
        end = "(CAST(:last AS date) + 1)::timestamp AT TIME ZONE :zone"
        bounds.append(f"{at} < {end} + CAST(:margin AS interval)")
        inside.append(f"{at} < {end}")
        if scope.dated_by == "delivery":
            bounds.append(_RECEIVED["delivery"])
    token = _PARTNER if scope.contract.protocol == "partner" else _SENT
    # Fixed fragments only, every value is bound.
    return make(
        connection,
        "r_ours",
        f"""
        SELECT p.id AS postback_id, p.conversion_id, ({token}) COLLATE "C" AS click_id, c.order_id COLLATE "C" AS order_id,
            coalesce((CAST(:called AS text[]))[array_position(CAST(:shown AS text[]), c.name)], c.name) COLLATE "C" AS name,
            p.state, p.attempts, coalesce(p.reported, c.value) AS value, c.currency, p.retracted_at IS NOT NULL AS retracted,
            CASE WHEN p.state = 'delivered' THEN p.settled_at END AS delivered_at,
            {at} AS at, ({at} AT TIME ZONE :zone)::date AS day, {" AND ".join(inside)} AS in_period
        FROM postbacks p JOIN conversions c ON c.id = p.conversion_id
        WHERE {" AND ".join(bounds)}""",  # noqa: S608 — fixed fragments
        scope.values,
    )


def gather_theirs(connection: Connection, report_id: int, scope: Scope, uncounted: Sequence[str]) -> int:
    """The report's readable rows of its days. Returns how many."""
    return make(
        connection,
        "r_theirs",
        """
        SELECT line, click_id, order_id, name, value, currency, occurred_at, day,
            status IS NULL OR status <> ALL(:uncounted) AS counted
        FROM report_rows WHERE report_id = :report AND problem IS NULL
            AND (day IS NULL OR ((CAST(:first AS date) IS NULL OR day >= :first) AND (CAST(:last AS date) IS NULL OR day <= :last)))""",
        {"report": report_id, "uncounted": list(uncounted), "first": scope.first, "last": scope.last},
    )


def make(connection: Connection, name: str, query: str, values: dict[str, Any]) -> int:
    """A temporary table of what ``query`` gives, analysed. Returns its size."""
    bound = text(f"CREATE TEMP TABLE {name} AS {query}")
    made = connection.execute(bound, {each: values[each] for each in bound.compile().params}).rowcount
    connection.execute(text(f"ANALYZE {name}"))
    return int(made)
