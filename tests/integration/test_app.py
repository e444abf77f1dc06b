"""What a worker process is made of."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from infra.store.firing import database_now
from workers.runtime import Runtime


def test_a_long_lived_process_keeps_to_the_databases_clock(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that has gone wrong since it was last compared is set right by the next comparison."""
    runtime = Runtime(database_url)
    try:
        runtime.now()
        runtime.clock.observe(datetime(2001, 1, 1, tzinfo=UTC))
        monkeypatch.setattr("workers.runtime.CLOCK_KEPT_S", 0.0)
        assert abs((runtime.now() - database_now(runtime.engine)).total_seconds()) < 5
    finally:
        runtime.close()


def test_an_error_of_the_database_does_not_quote_what_was_sent_to_it(database_url: str) -> None:
    """What a task raises ends in the log; a statement's values are click ids and events."""
    runtime = Runtime(database_url)
    try:
        with pytest.raises(DBAPIError) as failed, runtime.engine.connect() as connection:
            connection.execute(text("SELECT 1 / 0, CAST(:token AS text)"), {"token": "a-click-id"})
        assert "a-click-id" not in str(failed.value)
    finally:
        runtime.close()
