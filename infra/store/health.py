"""What ``holdfire doctor`` asks the store. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, text

from infra.db.partitions import PARTITIONED
from schemas.lifecycle import State


@dataclass(frozen=True, slots=True)
class Server:
    """The PostgreSQL at the other end. ``at`` is its clock when it answered; ``durable`` whether commits survive
    a power cut."""

    version: str
    version_number: int
    at: datetime
    durable: bool
    relaxed: tuple[str, ...]
    """Settings that give up durability, as ``name = value``."""


@dataclass(frozen=True, slots=True)
class Standstill:
    """What waits for something that does not come by itself. ``lost_leases``: ended over a minute ago, not rescued."""

    by_state: dict[State, int]
    lost_leases: int
    waiting_signals: int
    rejects_today: int
    unrouted_today: int


def server(engine: Engine) -> Server:
    query = text("""
        SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number,
            clock_timestamp() AS at, current_setting('fsync') AS fsync,
            current_setting('synchronous_commit') AS synchronous_commit,
            current_setting('full_page_writes') AS full_page_writes""")
    with engine.connect() as connection:
        row = connection.execute(query).one()
    relaxed = tuple(
        f"{name} = off"
        for name in ("fsync", "synchronous_commit", "full_page_writes")
        if row._mapping[name] == "off"
    )
    return Server(row.version.split()[0], row.number, row.at, not relaxed, relaxed)


def missing_partitions(engine: Engine) -> list[str]:
    """Partitions of the evidence for this month and the next that are not there."""
    query = text("""
        SELECT name FROM (
            SELECT t || to_char(date_trunc('month', now()) + make_interval(months => ahead), '_YYYY_MM') AS name
            FROM unnest(CAST(:tables AS text[])) t, generate_series(0, 1) ahead) wanted
        WHERE to_regclass(name) IS NULL ORDER BY name""")
    with engine.connect() as connection:
        return list(connection.execute(query, {"tables": list(PARTITIONED)}).scalars())


def standstill(engine: Engine) -> Standstill:
    with engine.connect() as connection:
        states = connection.execute(
            text("""SELECT state, count(*) AS postbacks FROM postbacks
                    WHERE state IN ('in_doubt', 'dead', 'rejected') GROUP BY state""")
        )
        row = connection.execute(
            text("""
            SELECT (SELECT count(*) FROM postbacks WHERE state IN ('leased', 'firing')
                    AND NOT parked AND due_at < now() - interval '1 minute') AS lost_leases,
                (SELECT count(*) FROM signals WHERE status = 'waiting') AS waiting_signals,
                (SELECT count(*) FROM rejects WHERE code <> 'duplicate'
                    AND received_at > now() - interval '1 day') AS rejects_today,
                (SELECT count(*) FROM conversions WHERE unrouted_reason IS NOT NULL
                    AND received_at > now() - interval '1 day') AS unrouted_today""")
        ).one()
        by_state = {State(state.state): state.postbacks for state in states}
    return Standstill(by_state, row.lost_leases, row.waiting_signals, row.rejects_today, row.unrouted_today)
