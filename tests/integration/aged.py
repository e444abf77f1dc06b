"""Evidence that is old: what was fired a moment ago, moved back by months, with partitions to stand in."""

from __future__ import annotations

from datetime import date

from sqlalchemy import Engine, text

from infra.db.partitions import PARTITIONED, refuse_truncate
from schemas.keeping import month_after


def make_month(engine: Engine, month: date) -> None:
    """The partitions of a month that is long past."""
    with engine.begin() as connection:
        for table in PARTITIONED:
            name = f"{table}_{month:%Y_%m}"
            if connection.execute(text("SELECT to_regclass(:name)"), {"name": name}).scalar_one() is None:
                bounds = f"FROM ('{month}') TO ('{month_after(month)}')"
                connection.execute(text(f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES {bounds}"))
                refuse_truncate(connection, name)


def age(engine: Engine, months: int = 15) -> date:
    """Move everything that was fired in this month back; the month it now stands in.

    Only a superuser may: the trigger that refuses it is switched off.
    """
    with engine.connect() as connection:
        query = text(f"SELECT (date_trunc('month', now()) - interval '{months} months')::date")
        month: date = connection.execute(query).scalar_one()
    make_month(engine, month)
    since = "date_trunc('month', now()) - interval '1 month'"
    day = "(CAST(:month AS date) + interval '{0} days' + ({1} - date_trunc('day', {1})))"
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        # Received and due on the 10th, fired on the 15th, settled on the 20th: in this order every month has them.
        for table, key, days in MOVED:
            moves = ", ".join(f"{column} = {day.format(number, column)}" for column, number in days.items())
            connection.execute(text(f"UPDATE {table} SET {moves} WHERE {key} >= {since}"), {"month": month})
    return month


MOVED = (
    ("conversions", "received_at", {"received_at": 9, "occurred_at": 9}),
    ("signals", "received_at", {"received_at": 9, "occurred_at": 9}),
    ("postbacks", "release_at", {"release_at": 9, "first_attempt_at": 14, "settled_at": 19}),
    ("attempts", "intent_at", {"intent_at": 14, "ended_at": 14}),
    ("checks", "intent_at", {"intent_at": 14, "ended_at": 14}),
    ("hops", "intent_at", {"intent_at": 14, "started_at": 14}),
    ("intents", "intent_at", {"intent_at": 14}),
)
