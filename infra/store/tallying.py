"""Counting attempts and postbacks beside the hot path, so that nobody has to count millions to see how things stand.

Attempts are tallied by the order of their ids, up to a watermark: each exactly once. An id is given out in the gate's
transaction and its row written when it is settled, so the watermark moves only past ids of which no more can come: the
transactions that can have drawn one have ended (``candidate_xid``), and none of theirs is on the wire any more.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text

BUCKET_S = 300
"""What a tally is about: attempts whose intent lies in the same five minutes."""
KEPT_DAYS = 92
BATCH = 100_000
FINEST_S = 0.001
GRADE = 1.1
"""How late first attempts were is counted in grades, each a tenth longer than the one before: within 5 % of the truth."""
_COUNTS_EVERY_S = 60.0
_COUNTING_SHARE = 50
"""States are counted no more often than it takes 1/50 of the time."""

BUCKET = f"date_bin(make_interval(secs => {BUCKET_S}), a.intent_at, CAST('epoch' AS timestamptz))"
LATE_GRADE = f"""CAST(ceil(ln(greatest(extract(epoch FROM a.intent_at - greatest(p.release_at, c.received_at)), {FINEST_S}) / {FINEST_S}) / ln({GRADE}))
    AS smallint)"""
FIRST = "a.number = 1 AND a.trigger = 'release'"
"""Attempts of which it counts how late they were."""

_LOCK = text("""
    SELECT attempt_id, candidate_id, candidate_xid <= pg_snapshot_xmin(pg_current_snapshot()) AS settled
    FROM tallied FOR UPDATE SKIP LOCKED""")
_OPEN = text("""
    SELECT min(attempt_id) FROM postbacks
    WHERE filed IS NULL AND state = 'firing' AND attempt_id > :after AND attempt_id <= :upto""")
_TALLY = text(f"""
    INSERT INTO tallies (bucket_at, version_id, verdict, state, attempts)
    SELECT {BUCKET}, a.version_id, a.verdict, a.state, count(*)
    FROM attempts a WHERE a.id > :after AND a.id <= :upto GROUP BY 1, 2, 3, 4
    ON CONFLICT (bucket_at, version_id, verdict, state) DO UPDATE SET attempts = tallies.attempts + excluded.attempts""")  # noqa: S608 — literals of ours
_GRADE = text(f"""
    INSERT INTO latenesses (bucket_at, version_id, grade, attempts)
    SELECT {BUCKET}, a.version_id, {LATE_GRADE}, count(*) FROM attempts a JOIN postbacks p ON p.id = a.postback_id
        JOIN conversions c ON c.id = p.conversion_id
    WHERE a.id > :after AND a.id <= :upto AND {FIRST} GROUP BY 1, 2, 3
    ON CONFLICT (bucket_at, version_id, grade) DO UPDATE SET attempts = latenesses.attempts + excluded.attempts""")  # noqa: S608 — literals of ours
_CANDIDATE = text("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM attempt_ids")
# In a transaction of its own, whose number is higher than that of each which may have drawn an id up to the candidate:
# the gate holds row locks, and so has a number, before it draws. (A snapshot's xmax is not: it ends at what completed.)
_PROPOSE = text("""
    UPDATE tallied SET candidate_id = :candidate, candidate_xid = pg_current_xact_id() WHERE candidate_id < :candidate""")
_DUE = text("""
    SELECT counted_at IS NULL OR counted_at < clock_timestamp() - make_interval(
        secs => greatest(:every_s, :share * took_ms / 1000.0)) FROM tallied FOR UPDATE SKIP LOCKED""")
COUNT_STATES = """
    SELECT version_id, filed AS state, count(*) AS postbacks FROM postbacks
    WHERE filed IS NOT NULL GROUP BY version_id, filed
    UNION ALL
    SELECT version_id, state, count(*) FROM postbacks WHERE filed IS NULL GROUP BY version_id, state"""


@dataclass(frozen=True, slots=True)
class Tallied:
    """What a pass did: attempts it moved the watermark past (ids, some of which never became an attempt), and whether
    there was more than one pass may count."""

    ids: int
    more: bool


def tally(engine: Engine, *, batch: int = BATCH) -> Tallied:
    """Count attempts that have ended since the last pass, ``batch`` at most. Any number of processes may: one does."""
    candidate: int | None = None
    with engine.begin() as connection:
        row = connection.execute(_LOCK).one_or_none()
        if row is None:
            return Tallied(0, more=False)
        upto: int = (
            _upto(connection, row.attempt_id, row.candidate_id, batch) if row.settled else row.attempt_id
        )
        if upto > row.attempt_id:
            span = {"after": row.attempt_id, "upto": upto}
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            connection.execute(_TALLY, span)
            connection.execute(_GRADE, span)
            connection.execute(text("UPDATE tallied SET attempt_id = :upto"), {"upto": upto})
        if upto >= row.candidate_id:
            candidate = connection.execute(_CANDIDATE).scalar_one()
    if candidate is not None and candidate > row.candidate_id:
        with engine.begin() as connection:
            connection.execute(_PROPOSE, {"candidate": candidate})
    return Tallied(upto - row.attempt_id, more=upto - row.attempt_id == batch)


def _upto(connection: Connection, after: int, candidate: int, batch: int) -> int:
    """How far may be counted: to the candidate, but not past what is on the wire."""
    upto = max(after, min(candidate, after + batch))
    first_open: int | None = connection.execute(_OPEN, {"after": after, "upto": upto}).scalar_one()
    return upto if first_open is None else first_open - 1


def count_states(engine: Engine, *, every_s: float = _COUNTS_EVERY_S) -> bool:
    """Count postbacks by version and state anew, if it is time to; returns whether it was.

    A minute passes between two counts, or fifty times what the last one took.
    """
    with engine.begin() as connection:
        due = connection.execute(
            _DUE, {"every_s": every_s, "share": _COUNTING_SHARE if every_s else 0}
        ).scalar()
        if not due:
            return False
        started = time.monotonic()
        _count(connection)
        took_ms = round((time.monotonic() - started) * 1000)
        connection.execute(
            text("UPDATE tallied SET counted_at = transaction_timestamp(), took_ms = :took_ms"),
            {"took_ms": took_ms},
        )
        for table in ("tallies", "latenesses"):
            connection.execute(
                text(f"DELETE FROM {table} WHERE bucket_at < now() - make_interval(days => :days)"),  # noqa: S608 — one of two
                {"days": KEPT_DAYS},
            )
        return True


def _count(connection: Connection) -> None:
    for setting in ("enable_seqscan", "enable_bitmapscan"):
        connection.execute(text(f"SET LOCAL {setting} = off"))
    connection.execute(text("DELETE FROM state_counts"))
    connection.execute(text(f"INSERT INTO state_counts (version_id, state, postbacks) {COUNT_STATES}"))
