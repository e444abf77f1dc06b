"""The evidence's tables: what is in them stays, and there is always a month for what comes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from infra.db.migrate import migrate
from infra.db.partitions import PARTITIONED, make_partitions
from infra.sink import SinkThread
from tests.integration.ground import Ground, cleared, contract, conversion, generic_url, until
from workers.pruning import make_room

MONTH_AFTER_NEXT = "to_char(CURRENT_DATE + interval '2 months', 'YYYY_MM')"
KEPT = ("intents", "attempts", "hops", "audit", "receipts")


@pytest.fixture(scope="module")
def ground(engine: Engine) -> Ground:
    """One conversion, fired: a row in every table of the evidence."""
    ground = cleared(engine)
    with SinkThread() as sink:
        ground.apply(contract("d", generic_url(sink.url)))
        ground.take(conversion("e"))
        with ground.firing() as gun:
            gun.fire()
    return ground


@pytest.mark.parametrize("table", KEPT)
@pytest.mark.parametrize("statement", ["UPDATE {0} SET {1} = {1}", "DELETE FROM {0}", "TRUNCATE {0}"])
def test_evidence_is_neither_changed_nor_removed(table: str, statement: str, ground: Ground) -> None:
    """Every row is refused, and so is emptying the table."""
    column = "attempt_id" if table in {"intents", "hops"} else "message_id" if table == "receipts" else "who"
    if table == "attempts":
        column = "verdict"
    with pytest.raises(DBAPIError, match="append-only evidence"):
        ground.run(statement.format(table, column))


def test_a_single_month_of_evidence_is_not_emptied_either(ground: Ground) -> None:
    """Nor is the partition for what falls outside of every month."""
    month = ground.one("SELECT to_char(CURRENT_DATE, 'YYYY_MM')")
    for table in PARTITIONED:
        for part in (month, "rest"):
            with pytest.raises(DBAPIError, match="append-only evidence"):
                ground.run(f"TRUNCATE {table}_{part}")


def test_two_processes_that_make_the_same_month_do_not_trip_over_each_other(ground: Ground) -> None:
    """The second waits for the first one's commit and finds the month made."""
    month = ground.one(f"SELECT {MONTH_AFTER_NEXT}")
    ground.run(f"DROP TABLE hops_{month}")
    with ThreadPoolExecutor(1) as threads:
        with ground.engine.begin() as first:
            assert make_partitions(first) == [f"hops_{month}"]
            second = threads.submit(make_room, ground.engine)
            until(lambda: ground.one("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        assert second.result(10) == []


def test_migrating_waits_as_long_as_it_takes(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit of everyday statements would end the migration of a large table halfway."""
    limits: list[str] = []

    def look(connection: object) -> list[str]:
        limits.append(connection.execute(text("SHOW statement_timeout")).scalar_one())  # type: ignore[attr-defined]
        return []

    monkeypatch.setattr("infra.db.migrate.make_partitions", look)
    migrate(ground.engine)
    assert limits == ["0"]
