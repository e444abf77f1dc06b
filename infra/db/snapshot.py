"""Reading everything as of one instant while others go on writing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text

from infra.db.partitions import PARTITIONED

_PARENTS = ", ".join(f"ONLY {table}" for table in PARTITIONED)


@contextmanager
def snapshot(engine: Engine, *, timeout_s: float | None = None, months: bool = False) -> Iterator[Connection]:
    """A read-only connection on which every query sees the same instant.

    Keep it short: what a snapshot can still see, vacuum cannot clear away. ``timeout_s`` bounds each statement;
    without it the engine's own bound stands. ``months``: no month of evidence leaves meanwhile. A dropped partition is
    gone for older snapshots too, which would still see its archive as not yet written.
    """
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        if months:
            # Before the first query: only then does the snapshot begin with the lock.
            connection.execute(text(f"LOCK TABLE {_PARENTS} IN ACCESS SHARE MODE"))
        if timeout_s is not None:
            connection.execute(
                text("SELECT set_config('statement_timeout', :ms, true)"),
                {"ms": str(round(timeout_s * 1000))},
            )
        yield connection
