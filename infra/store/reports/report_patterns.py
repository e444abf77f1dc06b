"""What the pairs of a report have in common: histograms, so that a million of them are a few hundred numbers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, text

from schemas.reconciling.tokens import Shape


@dataclass(frozen=True, slots=True)
class Patterns:
    """Histograms over all pairs, for what explains most differences at once."""

    dates_only: bool
    days: dict[int, int]
    instants: dict[int, int]
    other_days: int
    ratios: dict[Decimal, int]
    other_values: int
    shape: Shape
    counted_until: datetime | None
    """When the last one was delivered that the report counts."""


def patterns(connection: Connection, zone: str) -> Patterns:
    """What the pairs have in common."""
    days = connection.execute(
        text("""
        SELECT ceil(extract(epoch FROM day::timestamp - (at AT TIME ZONE :zone)) / 900)::integer AS gap, count(*) AS n
        FROM r_compared WHERE day IS NOT NULL AND occurred_at IS NULL GROUP BY 1"""),
        {"zone": zone},
    ).all()
    instants = connection.execute(
        text("""
        SELECT round(extract(epoch FROM occurred_at - at) / 900)::integer AS gap, count(*) AS n
        FROM r_compared WHERE occurred_at IS NOT NULL GROUP BY 1""")
    ).all()
    ratios = connection.execute(
        text("""
        SELECT round(value / our_value, 3) AS ratio, count(*) AS n FROM r_compared
        WHERE our_value <> 0 AND abs(value - our_value) >= 0.01 GROUP BY 1 ORDER BY 2 DESC LIMIT 1000""")
    ).all()
    counts = connection.execute(
        text("""
        SELECT count(*) FILTER (WHERE day <> our_day) AS days,
            count(*) FILTER (WHERE our_value <> 0 AND abs(value - our_value) >= 0.01) AS values,
            max(delivered_at) AS until FROM r_compared""")
    ).one()
    return Patterns(
        dates_only=not instants,
        days={row.gap: row.n for row in days},
        instants={row.gap: row.n for row in instants},
        other_days=counts.days,
        ratios={row.ratio: row.n for row in ratios},
        other_values=counts.values,
        shape=_shape(connection),
        counted_until=counts.until,
    )


def _shape(connection: Connection) -> Shape:
    row = connection.execute(
        text("""
        SELECT count(size) AS counted, count(*) FILTER (WHERE with_period) AS with_period,
            count(*) FILTER (WHERE mixed_case) AS mixed_case, count(*) FILTER (WHERE with_percent) AS with_percent,
            coalesce(min(size), 0) AS shortest FROM r_compared""")
    ).one()
    return Shape(**row._mapping)
