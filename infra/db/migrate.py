"""Bring the database's tables to this version, safely from any number of processes at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from infra.db.partitions import TABLES_LOCK, make_partitions


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
        # A large table takes its time, and so does waiting for another process that migrates it.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": TABLES_LOCK})
        command.upgrade(_config(connection), "head")
        make_partitions(connection)
    return status(engine)
