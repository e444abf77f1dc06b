"""Dropping a whole month of evidence once all of it is in archives.

PostgreSQL can detach a partition without a lock only where there is no default partition, and ours is what lets no row
be refused for its date. So the parents are locked, for as long as it takes to change the catalogue, and waited for only
a moment at a time: behind the wait every worker would queue. In exchange the month leaves, and is counted as gone, in
one instant.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date

from psycopg2.errors import DeadlockDetected, LockNotAvailable
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from infra.db.partitions import PARTITIONED

LOCK_WAIT_MS = 200
"""How long firing may queue behind one try."""
PATIENCE_S = 120.0


class MonthBusyError(RuntimeError):
    """A month that could not be dropped, for something reads the evidence all the time; nothing was changed."""


def drop_month(
    engine: Engine,
    month: date,
    *,
    patience_s: float = PATIENCE_S,
    pause: Callable[[float], None] = time.sleep,
) -> bool:
    """Drop a month's partitions if every row in them is in an archive; whether it was so. Raises MonthBusyError."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            with engine.begin() as connection:
                return _drop(connection, month)
        except DBAPIError as error:
            if not isinstance(error.orig, LockNotAvailable | DeadlockDetected):
                raise
            if time.monotonic() >= deadline:
                raise MonthBusyError(
                    f"{month:%Y-%m} could not be dropped: long queries read the evidence; run `holdfire retain` again"
                ) from error
        pause(0.5)


def _drop(connection: Connection, month: date) -> bool:
    names = {
        table: name
        for table in PARTITIONED
        if connection.execute(
            text("SELECT to_regclass(:name)"), {"name": (name := f"{table}_{month:%Y_%m}")}
        ).scalar_one()
        is not None
    }
    if not names:
        return False
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    # Nothing is added to the month from here on; reading goes on. Counting it holds nobody up.
    connection.execute(text("SET LOCAL lock_timeout = '10s'"))
    connection.execute(text(f"LOCK TABLE {', '.join(names.values())} IN SHARE MODE"))
    if not _all_archived(connection, month, names):
        return False
    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_WAIT_MS}ms'"))
    parents = ", ".join(f"ONLY {table}" for table in PARTITIONED)
    connection.execute(text(f"LOCK TABLE {parents} IN ACCESS EXCLUSIVE MODE"))
    for table, name in names.items():
        connection.execute(text(f"ALTER TABLE {table} DETACH PARTITION {name}"))
        connection.execute(text(f"DROP TABLE {name}"))
    connection.execute(
        text("""
        UPDATE archives SET blocks_gone = blocks, gone_intents = intents, gone_attempts = attempts, gone_hops = hops,
            gone_checks = checks, gone_at = now() WHERE month = :month AND gone_at IS NULL"""),
        {"month": month},
    )
    return True


def _all_archived(connection: Connection, month: date, names: dict[str, str]) -> bool:
    left = connection.execute(
        text("""
        SELECT coalesce(sum(intents - gone_intents), 0) AS intents, coalesce(sum(attempts - gone_attempts), 0) AS attempts,
            coalesce(sum(hops - gone_hops), 0) AS hops, coalesce(sum(checks - gone_checks), 0) AS checks
        FROM archives WHERE month = :month AND gone_at IS NULL"""),
        {"month": month},
    ).one()
    return all(
        connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() == left._mapping[table]  # noqa: S608 — a partition's name
        for table, name in names.items()
    )
