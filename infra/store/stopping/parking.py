"""The queues of single destinations. What is due at one that is stopped is parked there, and drawn from it in order later.

All that is due stands in one queue, oldest first. A stopped destination's share of it would be claimed and given back in
circles, or be read past at every tick; so it is moved aside, once, and nothing else about it changes. When the destination
goes on, its own queue is drawn from first: what becomes due meanwhile stands behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from infra.store import audit
from infra.store.destinations import read_version
from infra.store.stopping.breaking import keep_breaker, read_breaker
from infra.store.stopping.stopping import END_PAUSE, PAUSED
from schemas.breaker import PROBES, BreakerState, send_probes
from schemas.breaker import look as after_time
from schemas.destination import DestinationVersion

PARK_LIMIT = 8000
"""Postbacks parked by a pass: a fifth of a second. Until all is parked each claim reads past the rest, so it should not take long."""
_PARK_LOCK = 0x5061726B  # "Park": one pass at a time; side by side they would only share the processors
DRAW_EVERY_S = 0.25
"""So much of a destination's rate is drawn from its queue at a time."""
PAUSE_ENDED = "holdfire"
"""Who ended a pause that had an end, in the audit."""

# A stopped destination's row stays in the table of stops, so nothing can be parked elsewhere. An index is asked once a
# version, for its first entry: with EXISTS PostgreSQL reads all that are parked. Where nothing was ever stopped, the table
# is empty. With the token of the pass, in one round trip.
_LOOK = text(f"""
    SELECT nextval('lease_tokens') AS token, (SELECT json_agg(q ORDER BY q.drains_at) FROM (
        SELECT s.destination, s.drains_at, {PAUSED} OR s.breaker <> 'closed' AS stopped,
            s.drains_at <= now() AS drains, s.paused_at IS NOT NULL AND NOT {PAUSED} AS pause_ended,
            s.breaker <> 'closed' AND coalesce(s.breaker_until <= now(), s.probes = 0) AS tries,
            array_agg(v.id ORDER BY v.id) AS versions, coalesce(bool_or(w.due), false) AS due,
            coalesce(bool_or(w.expired), false) AS expired
        FROM stops s JOIN destination_versions v ON v.destination = s.destination
            CROSS JOIN LATERAL (SELECT
                (SELECT min(p.due_at) FROM postbacks p WHERE p.parked AND p.version_id = v.id AND p.due_at IS NOT NULL)
                    <= now() AS due,
                (SELECT min(p.expires_at) FROM postbacks p WHERE p.parked AND p.version_id = v.id
                    AND p.due_at IS NOT NULL AND p.expires_at IS NOT NULL) < now() AS expired) w
        GROUP BY s.destination) q) AS queues""")  # noqa: S608 — literals of ours

_PARK = text("""
    WITH met AS (
        SELECT id FROM postbacks
        WHERE due_at <= now() AND NOT parked AND state IN ('held', 'retrying') AND version_id = ANY(:versions)
        ORDER BY due_at, id LIMIT :limit FOR UPDATE SKIP LOCKED)
    UPDATE postbacks p SET parked = true FROM met WHERE p.id = met.id""")

# One index range a version, merged: over all of them at once PostgreSQL would sort the whole queue.
_DRAW = """
    WITH due AS (
        SELECT p.id, p.due_at FROM unnest(CAST(:versions AS integer[])) AS v(id), LATERAL (
            SELECT id, due_at FROM postbacks
            WHERE parked AND version_id = v.id AND due_at <= now() AND state IN ('held', 'retrying'){also}
            ORDER BY {place}, id LIMIT :limit FOR UPDATE SKIP LOCKED) p
        ORDER BY p.due_at, p.id LIMIT :limit)
    UPDATE postbacks p
    SET state = 'leased', parked = false, lease_token = :token, due_at = now() + make_interval(secs => :lease_s)
    FROM due WHERE p.id = due.id
    RETURNING p.id, p.version_id, due.due_at"""
_DRAW_ANY = text(_DRAW.format(also="", place="due_at"))
# What cannot be answered by the network says nothing of it.
_DRAW_PROBES = text(_DRAW.format(also=" AND (expires_at IS NULL OR expires_at > now())", place="due_at"))
_DRAW_EXPIRED = text(_DRAW.format(also=" AND expires_at < now()", place="expires_at"))

_LOCK = text(f"""
    SELECT s.*, {PAUSED} AS paused, now() AS now FROM stops s
    WHERE s.destination = :destination FOR UPDATE SKIP LOCKED""")  # noqa: S608 — literals of ours

_KEEP_DRAINING = text("""
    UPDATE stops SET drains_at = greatest(drains_at, now()) + make_interval(secs => :wait_s)
    WHERE destination = :destination""")

_WAIT = text("""
    UPDATE stops SET drains_at = greatest(drains_at, now() + make_interval(secs => :wait_s))
    WHERE destination = :destination""")

# As a lease that ran out: one never attempted has its window's end as its place, any other goes behind.
_PARK_LEASED = text("""
    UPDATE postbacks
    SET state = CASE WHEN attempts = 0 THEN 'held' ELSE 'retrying' END, lease_token = NULL, parked = true,
        due_at = CASE WHEN attempts = 0 THEN release_at ELSE now() END
    WHERE id = ANY(:ids) AND state = 'leased' AND lease_token = :token""")

_OWN_QUEUE = text(f"""
    SELECT s.destination FROM postbacks p JOIN destination_versions v ON v.id = p.version_id
        JOIN stops s ON s.destination = v.destination
    WHERE p.id = :id AND ({PAUSED} OR s.breaker <> 'closed' OR EXISTS (
        SELECT FROM postbacks w WHERE w.parked AND w.version_id = p.version_id AND w.due_at <= now()))""")  # noqa: S608 — literals of ours


@dataclass(frozen=True, slots=True)
class Queue:
    """A destination with a queue of its own: it is ``stopped``, or what was parked is not fired yet."""

    destination: str
    versions: tuple[int, ...]
    stopped: bool
    acts: bool
    """Whether there is something to draw from it now, or its stop has ended."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Postbacks leased from a destination's own queue, oldest first; ``full``: there may be more."""

    token: int
    rows: Sequence[Row[Any]]
    full: bool


def look(connection: Connection) -> tuple[int, list[Queue]]:
    """A fresh token for leases, and every destination with a queue of its own, the one drawn from longest ago first."""
    row = connection.execute(_LOOK).one()
    return row.token, [
        Queue(
            found["destination"],
            tuple(found["versions"]),
            found["stopped"],
            found["pause_ended"]
            or found["expired"]
            or (found["due"] and (found["tries"] if found["stopped"] else found["drains"])),
        )
        for found in row.queues or ()
        if found["stopped"] or found["due"] or found["pause_ended"]
    ]


def park(engine: Engine, versions: Sequence[int], *, limit: int = PARK_LIMIT) -> int:
    """Move up to ``limit`` due postbacks of these versions to their own queue, oldest first.

    Returns how many: 0 also while another pass is at it.
    """
    with engine.begin() as connection:
        lock = text("SELECT pg_try_advisory_xact_lock(:lock)")
        if not connection.execute(lock, {"lock": _PARK_LOCK}).scalar_one():
            return 0
        return connection.execute(_PARK, {"versions": list(versions), "limit": limit}).rowcount


def draw(engine: Engine, queue: Queue, *, limit: int, lease_s: float) -> Drawn | None:
    """Lease what may be fired of a destination's own queue: all in order, a few probes, or only what has expired.

    None while another clock is at it. What has expired passes the gate also where its destination is stopped, for
    nothing is sent.
    """
    with engine.begin() as connection:
        row = connection.execute(_LOCK, {"destination": queue.destination}).one_or_none()
        if row is None:
            return None
        token: int = connection.execute(text("SELECT nextval('lease_tokens')")).scalar_one()
        lease = _Lease(connection, queue, token, lease_s)
        if row.paused_at is not None and not row.paused:
            _end_pause(connection, queue.destination, row)
        if row.paused:
            return lease.take(_DRAW_EXPIRED, limit)
        breaker = after_time(read_breaker(row), row.now)
        if breaker.state is BreakerState.CLOSED:
            return _drain(lease, row, limit)
        if not breaker.wants_probes:
            return lease.take(_DRAW_EXPIRED, limit)
        return _probe(lease, row)


@dataclass(frozen=True, slots=True)
class _Lease:
    """A lease in the making."""

    connection: Connection
    queue: Queue
    token: int
    lease_s: float

    def take(self, statement: Any, limit: int) -> Drawn:
        rows = self.connection.execute(
            statement,
            {
                "versions": list(self.queue.versions),
                "limit": limit,
                "token": self.token,
                "lease_s": self.lease_s,
            },
        ).all()
        return Drawn(
            self.token, sorted(rows, key=lambda found: (found.due_at, found.id)), full=len(rows) == limit
        )

    def version(self) -> DestinationVersion:
        """The newest of the destination's."""
        return read_version(self.connection, self.queue.versions[-1])


def _drain(lease: _Lease, row: Row[Any], limit: int) -> Drawn:
    """No more than the destination's rate takes: what it could not take would only be given back."""
    if row.drains_at > row.now:
        return lease.take(_DRAW_EXPIRED, limit)
    per_second = lease.version().contract.destination.limits.per_second
    taken = limit if per_second is None else max(1, min(limit, int(per_second * DRAW_EVERY_S)))
    drawn = lease.take(_DRAW_ANY, taken)
    wait_s = 0.0 if per_second is None else len(drawn.rows) / per_second
    lease.connection.execute(_KEEP_DRAINING, {"destination": lease.queue.destination, "wait_s": wait_s})
    return drawn


def _probe(lease: _Lease, row: Row[Any]) -> Drawn:
    """A few attempts; they are waited for as long as they may take, should their worker die over them."""
    drawn = lease.take(_DRAW_PROBES, PROBES)
    patience = lease.version().contract.destination.limits.deadline + timedelta(seconds=lease.lease_s)
    breaker = send_probes(after_time(read_breaker(row), row.now), len(drawn.rows), row.now, patience)
    keep_breaker(lease.connection, lease.queue.destination, breaker, lease.token if drawn.rows else None)
    return Drawn(drawn.token, drawn.rows, full=False)


def _end_pause(connection: Connection, destination: str, row: Row[Any]) -> None:
    connection.execute(END_PAUSE, {"destination": destination})
    reason = f"it was paused by {row.paused_by} until {row.paused_until:%Y-%m-%d %H:%M:%S} UTC"
    detail = {"destination": destination, "reason": reason, "ended": "paused"}
    audit.write(connection, who=PAUSE_ENDED, action="destination.resume", detail=detail)


def park_leased(connection: Connection, token: int, postback_ids: Sequence[int]) -> int:
    """Give leased postbacks back to their destination's own queue. Returns how many."""
    return connection.execute(_PARK_LEASED, {"ids": list(postback_ids), "token": token}).rowcount


def own_queue(connection: Connection, postback_id: int) -> str | None:
    """The destination of a postback, if it has a queue of its own now."""
    found: str | None = connection.execute(_OWN_QUEUE, {"id": postback_id}).scalar_one_or_none()
    return found


def wait(connection: Connection, destination: str, wait_s: float) -> None:
    """Draw nothing from the destination's own queue for so long: its limits take no more."""
    connection.execute(_WAIT, {"destination": destination, "wait_s": wait_s})
