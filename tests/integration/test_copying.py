"""COPY on the driver's own cursor fails as everything else does, so that callers can tell what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from infra.db.engine import copy_rows
from infra.store.transactions import is_away


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A connection with a table to copy into."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS copied (number integer PRIMARY KEY)"))
    with engine.connect() as connection:
        yield connection


def test_a_row_that_is_there_already_is_an_integrity_error(connection: Connection) -> None:
    """Of SQLAlchemy's classes, not the driver's."""
    with pytest.raises(IntegrityError):
        copy_rows(connection, "copied", ("number",), [("1",), ("1",)])


def test_a_connection_that_was_cut_counts_as_a_database_that_is_away(
    engine: Engine, connection: Connection
) -> None:
    """And it is not given to the next who wants one."""
    pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with engine.begin() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    with pytest.raises(DBAPIError) as caught:
        copy_rows(connection, "copied", ("number",), [("1",)])
    assert is_away(caught.value)
    assert connection.invalidated
