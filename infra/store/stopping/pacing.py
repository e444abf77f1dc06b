"""Rate limits that hold across every worker on every machine: the pace of a destination is one row."""

from __future__ import annotations

from sqlalchemy import Engine, text

from schemas.pacing import Admission, Pace, admit


def admit_now(engine: Engine, destination: str, wanted: int, per_second: float) -> Admission:
    """Draw up to ``wanted`` from the destination's rate, under the lock of its row and by the database's clock."""
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO paces (destination) VALUES (:name) ON CONFLICT DO NOTHING"),
            {"name": destination},
        )
        row = connection.execute(
            text("""
            SELECT next_at, tail_at, clock_timestamp() AS now FROM paces WHERE destination = :name FOR UPDATE"""),
            {"name": destination},
        ).one()
        # The clock is read before the lock is granted; an older one only admits less.
        admission = admit(Pace(row.next_at, row.tail_at), wanted, per_second, row.now)
        connection.execute(
            text("UPDATE paces SET next_at = :next_at, tail_at = :tail_at WHERE destination = :name"),
            {"name": destination, "next_at": admission.pace.next_at, "tail_at": admission.pace.tail_at},
        )
    return admission
