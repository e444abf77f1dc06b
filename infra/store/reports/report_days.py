"""Sums by day, of a report that has nothing else and of our log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from sqlalchemy import Connection, text

from schemas.lifecycle import State
from schemas.reconciling.days import Sum


@dataclass(frozen=True, slots=True)
class OurSum:
    """Postbacks of one day, currency and state."""

    day: date
    currency: str | None
    state: State
    retracted: bool
    count: int
    value: Decimal | None


def their_days(
    connection: Connection, report_id: int, first: date | None, last: date | None
) -> dict[tuple[date, str | None], Sum]:
    """By day and currency, what the report sums up; rows of one day are added."""
    rows = connection.execute(
        text("""
        SELECT day, currency, sum(conversions)::bigint AS n, sum(value) AS value FROM report_rows
        WHERE report_id = :id AND problem IS NULL AND (CAST(:first AS date) IS NULL OR day >= :first)
            AND (CAST(:last AS date) IS NULL OR day <= :last) GROUP BY day, currency"""),
        {"id": report_id, "first": first, "last": last},
    )
    return {(row.day, row.currency): Sum(row.n, row.value) for row in rows}


def our_days(connection: Connection) -> list[OurSum]:
    """By day, currency and state, what was gathered of our log."""
    rows = connection.execute(
        text("""
        SELECT day, currency, state, retracted, count(*)::integer AS n, sum(value) AS value
        FROM r_ours WHERE in_period GROUP BY day, currency, state, retracted""")
    )
    return [OurSum(row.day, row.currency, State(row.state), row.retracted, row.n, row.value) for row in rows]


def deliveries_by_quarter(connection: Connection, zone: str) -> dict[int, int]:
    """Deliveries by quarter of an hour since 1970 in ``zone``, those around the report's days included."""
    rows = connection.execute(
        text("""
        SELECT floor(extract(epoch FROM at AT TIME ZONE :zone) / 900)::bigint AS quarter, count(*) AS n
        FROM r_ours WHERE state = 'delivered' AND NOT retracted GROUP BY 1"""),
        {"zone": zone},
    )
    return {row.quarter: row.n for row in rows}


def line_of(connection: Connection, report_id: int, day: date) -> int | None:
    """The first line of the report that is about a day."""
    query = text("SELECT min(line) FROM report_rows WHERE report_id = :id AND day = :day")
    return connection.execute(query, {"id": report_id, "day": day}).scalar_one()  # type: ignore[no-any-return]  # a column's value
