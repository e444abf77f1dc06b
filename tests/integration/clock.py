"""The database's clock, stopped, and set by a test: all of Holdfire asks the database what time it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, make_url, text

# A function of this schema is found before PostgreSQL's own of the same name, so no statement of ours is another one
# under test. Columns' defaults were bound when their tables were made: they keep the real time.
_STOP = """
    CREATE SCHEMA stopped;
    CREATE TABLE stopped.clock (instant timestamptz NOT NULL);
    INSERT INTO stopped.clock VALUES (pg_catalog.now());
    CREATE FUNCTION stopped.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT instant FROM stopped.clock';
    CREATE FUNCTION stopped.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
        AS 'SELECT instant FROM stopped.clock';"""


@dataclass
class StoppedClock:
    """The clock of one database, for every connection that is made to it from now on. It cannot be started again."""

    engine: Engine

    def __post_init__(self) -> None:
        database = make_url(self.engine.url).database
        with self.engine.begin() as connection:
            connection.exec_driver_sql(_STOP)
            connection.exec_driver_sql(
                f"ALTER DATABASE {database} SET search_path = stopped, pg_catalog, public"
            )
        self.engine.dispose()

    def set(self, instant: datetime) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("UPDATE stopped.clock SET instant = :instant"), {"instant": instant})
