"""The keeping policy as it was applied, and which months of evidence there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta

import orjson
from sqlalchemy import Connection, Engine, text

from infra.catalogue import policy_of
from infra.db.partitions import PARTITIONED
from infra.store import audit
from infra.store.keeping.archiving import PART_COLUMNS, Part, part_of
from schemas.destination import Contract
from schemas.keeping import NOTHING, Keeping, Policy, read_policy

RETAIN_LOCK = 0x4B656570  # "Keep": one retention at a time


class KeepingElsewhereError(RuntimeError):
    """Another process is at it."""


@contextmanager
def alone(engine: Engine) -> Iterator[None]:
    """One retention or erasure at a time. The lock ends with the process: a killed run leaves nothing behind."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if not connection.execute(
            text("SELECT pg_try_advisory_lock(:key)"), {"key": RETAIN_LOCK}
        ).scalar_one():
            raise KeepingElsewhereError(
                "another process retains or erases at this moment; let it end, then run it again"
            )
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": RETAIN_LOCK})


def applied(engine: Engine) -> Policy:
    """The policy that holds; before one was applied, that all is kept."""
    with engine.connect() as connection:
        return _applied(connection)


def apply(engine: Engine, keeping: Keeping, contracts: Mapping[str, Contract], *, who: str) -> bool:
    """Make what a file says the policy that holds; whether it differs from the one before. It is audited."""
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": RETAIN_LOCK + 1})
        before = _applied(connection)
        policy = _following(before, keeping, contracts)
        if policy == before:
            return False
        connection.execute(
            text("INSERT INTO keeping_policies (policy, applied_by) VALUES (:policy, :who)"),
            {"policy": orjson.dumps(policy.wire()).decode(), "who": who},
        )
        audit.write(connection, who=who, action="keeping.apply", detail=policy.wire())
    return True


def differs(engine: Engine, keeping: Keeping, contracts: Mapping[str, Contract]) -> bool:
    """Whether ``apply`` would change the policy."""
    before = applied(engine)
    return _following(before, keeping, contracts) != before


def _following(before: Policy, keeping: Keeping, contracts: Mapping[str, Contract]) -> Policy:
    """A destination that is no longer named keeps the age it had: what it fired is still there."""
    wanted = policy_of(keeping, contracts)
    retired = {name: age for name, age in before.by_destination.items() if name not in contracts}
    return Policy(keeping, {**retired, **wanted.by_destination})


def _applied(connection: Connection) -> Policy:
    query = text("SELECT policy FROM keeping_policies ORDER BY id DESC LIMIT 1")
    stored = connection.execute(query).scalar_one_or_none()
    return NOTHING if stored is None else read_policy(stored)


def months(connection: Connection) -> list[date]:
    """Every month that has a partition, or a row in the partition for what fell outside of all months; oldest first."""
    named = text("""
        SELECT DISTINCT to_date(substring(c.relname FROM '_([0-9]{4}_[0-9]{2})$'), 'YYYY_MM') AS month
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = ANY(ARRAY(SELECT to_regclass(t) FROM unnest(CAST(:tables AS text[])) t))
            AND c.relname ~ '_[0-9]{4}_[0-9]{2}$'""")
    found = set(connection.execute(named, {"tables": list(PARTITIONED)}).scalars())
    for table in PARTITIONED:
        stray = text(f"SELECT DISTINCT date_trunc('month', intent_at)::date FROM {table}_rest")  # noqa: S608 — one of PARTITIONED
        found |= set(connection.execute(stray).scalars())
    return sorted(found)


def begin_retention(engine: Engine, who: str) -> int:
    with engine.begin() as connection:
        query = text("INSERT INTO retentions (who) VALUES (:who) RETURNING id")
        number: int = connection.execute(query, {"who": who}).scalar_one()
        return number


def end_retention(engine: Engine, number: int, detail: Mapping[str, object]) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE retentions SET ended_at = clock_timestamp(), detail = :detail WHERE id = :id"),
            {"id": number, "detail": orjson.dumps(detail).decode()},
        )


def retention_is_due(engine: Engine, every: timedelta) -> bool:
    """Whether none has begun for so long."""
    query = text("""
        SELECT NOT EXISTS (SELECT FROM retentions WHERE begun_at > now() - CAST(:every AS interval))""")
    with engine.connect() as connection:
        return connection.execute(query, {"every": every}).scalar_one() is True


def last_retention(engine: Engine) -> timedelta | None:
    """How long ago the last one began."""
    with engine.connect() as connection:
        found: timedelta | None = connection.execute(
            text("SELECT now() - max(begun_at) FROM retentions")
        ).scalar_one()
        return found


def archives_there(engine: Engine) -> list[Part]:
    """Archives whose files should be there, oldest first."""
    query = text(f"SELECT {PART_COLUMNS} FROM archives WHERE expired_at IS NULL ORDER BY month, id")  # noqa: S608 — our own words
    with engine.connect() as connection:
        return [part_of(row) for row in connection.execute(query)]
