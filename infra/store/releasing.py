"""Claiming what is due, and taking back leases that ran out. The database's clock decides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from infra.store.stopping import parking
from infra.store.stopping.stopping import PAUSED
from schemas.postback import Lease

# State literals stand in the statements: a server-prepared generic plan could not use the partial index.
_CLAIM = text("""
    WITH due AS (
        SELECT id, due_at FROM postbacks
        WHERE due_at <= now() AND NOT parked AND state IN ('held', 'retrying') AND version_id <> ALL(:besides)
        ORDER BY due_at, id LIMIT :limit FOR UPDATE SKIP LOCKED)
    UPDATE postbacks p
    SET state = 'leased', lease_token = :token, due_at = now() + make_interval(secs => :lease_s)
    FROM due WHERE p.id = due.id
    RETURNING p.id, p.version_id, due.due_at""")

_RESCUE_LEASED = text("""
    WITH silent AS (
        SELECT id FROM postbacks
        WHERE due_at <= now() AND NOT parked AND state = 'leased'
        ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    UPDATE postbacks p
    SET state = CASE WHEN attempts = 0 THEN 'held' ELSE 'retrying' END, lease_token = NULL,
        due_at = CASE WHEN attempts = 0 THEN release_at ELSE due_at END
    FROM silent WHERE p.id = silent.id""")


_LET_GO = text("""
    WITH waiting AS (
        SELECT p.id FROM postbacks p JOIN destination_versions v ON v.id = p.version_id
        WHERE p.due_at = 'infinity' AND p.state = 'held' AND p.release_at <= now()
            AND v.destination = coalesce(CAST(:destination AS text), v.destination)
        ORDER BY p.release_at, p.id LIMIT :limit FOR UPDATE OF p SKIP LOCKED)
    UPDATE postbacks p SET due_at = p.release_at FROM waiting WHERE p.id = waiting.id""")

_WAITING = text("""
    SELECT count(*) FROM postbacks p JOIN destination_versions v ON v.id = p.version_id
    WHERE p.due_at = 'infinity' AND p.state = 'held' AND p.release_at <= now()
        AND v.destination = coalesce(CAST(:destination AS text), v.destination)""")

# What a stopped destination keeps waiting is not late: it waits for a person, for its network, or for its own rate.
_BACKLOG = text(f"""
    WITH stopped AS MATERIALIZED (
        SELECT v.id FROM stops s JOIN destination_versions v ON v.destination = s.destination
        WHERE {PAUSED} OR s.breaker <> 'closed' OR s.drains_at > now())
    SELECT count(*) AS due, coalesce(extract(epoch FROM now() - min(due_at)), 0)::float AS oldest_s
    FROM postbacks WHERE ((due_at <= now() AND NOT parked) OR (due_at <= now() AND parked))
        AND state IN ('held', 'retrying') AND version_id NOT IN (SELECT id FROM stopped)""")  # noqa: S608 — literals of ours


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much is due and not yet claimed, and how late the oldest of it is, in seconds; stopped destinations apart."""

    due: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a pass leased, and whether there may be more to lease."""

    leases: list[Lease]
    more: bool


def claim_all(engine: Engine, *, limit: int, lease_s: float, per_lease: int) -> Claimed:
    """Lease what is due, as ``claim``, and from the queues of single destinations what they may fire: one lease each.

    What is due at a stopped destination, or at one whose own queue is not empty yet, is moved to that queue. So nobody
    waits behind it, and it stands behind what was there before.
    """
    with engine.begin() as connection:
        token, queues = parking.look(connection)
        besides = sorted(version for queue in queues for version in queue.versions)
        rows = _claim(connection, token, limit, lease_s, besides)
    leases = _leases(token, rows, per_lease)
    more = len(rows) >= limit
    if besides and parking.park(engine, besides):
        with engine.begin() as connection:
            _, queues = parking.look(connection)
    room = max(1, limit // per_lease)
    for queue in [queue for queue in queues if queue.acts][:room]:
        drawn = parking.draw(engine, queue, limit=min(limit, per_lease), lease_s=lease_s)
        if drawn is not None and drawn.rows:
            leases += _leases(drawn.token, drawn.rows, per_lease)
            more |= drawn.full
    return Claimed(leases, more)


def claim(engine: Engine, *, limit: int, lease_s: float, per_lease: int) -> list[Lease]:
    """Lease up to ``limit`` due postbacks, oldest first, for ``lease_s`` seconds, wherever they go.

    Any number of clocks may do so at once: rows that another one is claiming are skipped. The leases come in
    the order of their oldest postback, at most ``per_lease`` postbacks of one destination version each.
    """
    with engine.begin() as connection:
        token: int = connection.execute(text("SELECT nextval('lease_tokens')")).scalar_one()
        rows = _claim(connection, token, limit, lease_s, ())
    return _leases(token, rows, per_lease)


def _claim(
    connection: Connection, token: int, limit: int, lease_s: float, besides: Sequence[int]
) -> Sequence[Row[Any]]:
    values = {"limit": limit, "token": token, "lease_s": lease_s, "besides": list(besides)}
    return connection.execute(_CLAIM, values).all()


def _leases(token: int, rows: Sequence[Row[Any]], per_lease: int) -> list[Lease]:
    by_version: dict[int, list[tuple[datetime, int]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.due_at, row.id)):
        by_version[row.version_id].append((row.due_at, row.id))
    parts = [
        (due[start], version_id, due[start : start + per_lease])
        for version_id, due in by_version.items()
        for start in range(0, len(due), per_lease)
    ]
    return [
        Lease(token, version_id, tuple(number for _, number in part)) for _, version_id, part in sorted(parts)
    ]


def let_go(engine: Engine, destination: str | None = None, *, limit: int = 5000) -> int:
    """Make up to ``limit`` postbacks due whose window has ended and that waited for a release by hand, oldest first.

    Safe to run twice and side by side: each is let go once. Returns how many; fewer than ``limit`` means all.
    """
    with engine.begin() as connection:
        return connection.execute(_LET_GO, {"destination": destination, "limit": limit}).rowcount


def waiting_for_release(engine: Engine, destination: str | None = None) -> int:
    """How many postbacks ``let_go`` would make due now."""
    with engine.connect() as connection:
        return int(connection.execute(_WAITING, {"destination": destination}).scalar_one())


def rescue_leased(engine: Engine, *, limit: int = 1000) -> int:
    """Give leases that ran out before the gate back to where they came from. Returns how many."""
    with engine.begin() as connection:
        return connection.execute(_RESCUE_LEASED, {"limit": limit}).rowcount


def backlog(engine: Engine) -> Backlog:
    """What is overdue, for ``doctor`` and the metrics."""
    with engine.connect() as connection:
        row = connection.execute(_BACKLOG).one()
        return Backlog(row.due, row.oldest_s)


def waiting_by_destination(engine: Engine) -> dict[str, int]:
    """How many postbacks each destination has under way or on hold, every version counted; none is left out."""
    query = text("""
        SELECT v.destination, sum(p.waiting)::bigint AS waiting FROM (
            SELECT version_id, count(*) AS waiting FROM postbacks
            WHERE (due_at IS NOT NULL AND NOT parked) OR (due_at IS NOT NULL AND parked) GROUP BY version_id) p
        JOIN destination_versions v ON v.id = p.version_id GROUP BY v.destination""")
    with engine.connect() as connection:
        return {row.destination: row.waiting for row in connection.execute(query)}
