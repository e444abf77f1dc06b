"""Bring the database's tables to this version, safely from any number of processes at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

PARTITIONED = ("intents", "attempts", "hops")
MONTHS_AHEAD = 2
_LOCK = 0x486F6C64  # "Hold": one key for all that changes the tables


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """``at`` is None for an empty database."""

    at: str | None
    wanted: str

    @property
    def current(self) -> bool:
        return self.at == self.wanted


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def status(engine: Engine) -> MigrationStatus:
    """Which revision the database is at. Changes nothing."""
    wanted = ScriptDirectory.from_config(_config()).get_current_head()
    assert wanted is not None
    with engine.connect() as connection:
        return MigrationStatus(MigrationContext.configure(connection).get_current_revision(), wanted)


def migrate(engine: Engine) -> MigrationStatus:
    """Upgrade to the newest revision and make the coming months' partitions. Safe to run again."""
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        command.upgrade(_config(connection), "head")
        make_partitions(connection)
    return status(engine)


def make_partitions(connection: Connection) -> list[str]:
    """Monthly partitions of the evidence for this month and the next ``MONTHS_AHEAD``; names of the new ones.

    What falls outside of every month lands in the table's default partition: nothing is refused for its date.
    """
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
                made.append(name)
    return made


def _may_make(connection: Connection, table: str, name: str, start: date, end: date) -> bool:
    """Not there yet, and the default partition holds no row of that month (PostgreSQL would refuse)."""
    if connection.execute(text("SELECT to_regclass(:name)"), {"name": name}).scalar_one() is not None:
        return False
    stray = text(f"SELECT EXISTS (SELECT FROM {table}_rest WHERE intent_at >= :start AND intent_at < :end)")
    return not connection.execute(stray, {"start": start, "end": end}).scalar_one()


def _month(today: date, ahead: int) -> date:
    months = today.year * 12 + today.month - 1 + ahead
    return date(months // 12, months % 12 + 1, 1)
