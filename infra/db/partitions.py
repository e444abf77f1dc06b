"""Monthly partitions of the evidence, made ahead of time. Apart from the migrations: every worker needs these alone."""

from __future__ import annotations

from datetime import date

from sqlalchemy import Connection, text

PARTITIONED = ("intents", "attempts", "hops", "checks")
MONTHS_AHEAD = 2
TABLES_LOCK = 0x486F6C64  # "Hold": one key for all that changes the tables


def make_partitions(connection: Connection) -> list[str]:
    """Monthly partitions of the evidence for this month and the next ``MONTHS_AHEAD``; names of the new ones.

    What falls outside of every month lands in the table's default partition: nothing is refused for its date.
    Processes that come at the same time wait for each other until their transactions end.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": TABLES_LOCK})
    today: date = connection.execute(text("SELECT CURRENT_DATE")).scalar_one()
    made = []
    for ahead in range(MONTHS_AHEAD + 1):
        start, end = _month(today, ahead), _month(today, ahead + 1)
        for table in PARTITIONED:
            name = f"{table}_{start:%Y_%m}"
            if _may_make(connection, table, name, start, end):
                connection.execute(
                    text(f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ('{start}') TO ('{end}')")
                )
                refuse_truncate(connection, name)
                made.append(name)
    return made


def refuse_truncate(connection: Connection, table: str) -> None:
    """Evidence goes with its whole partition or not at all. Unlike a row's trigger this one is not inherited."""
    connection.execute(
        text(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    )


def _may_make(connection: Connection, table: str, name: str, start: date, end: date) -> bool:
    """Not there yet, and the default partition holds no row of that month (PostgreSQL would refuse)."""
    if connection.execute(text("SELECT to_regclass(:name)"), {"name": name}).scalar_one() is not None:
        return False
    stray = text(
        f"SELECT EXISTS (SELECT FROM {table}_rest WHERE intent_at >= :start AND intent_at < :end)"  # noqa: S608 — one of PARTITIONED
    )
    return not connection.execute(stray, {"start": start, "end": end}).scalar_one()


def _month(today: date, ahead: int) -> date:
    months = today.year * 12 + today.month - 1 + ahead
    return date(months // 12, months % 12 + 1, 1)
