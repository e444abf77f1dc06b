"""Destinations that are stopped: paused by a person, or by their circuit breaker. Nothing of theirs is fired meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Row, text

from infra.store import audit
from infra.store.transactions import retried

STOP_LOCK = (
    0x53746F70  # "Stop": the class of advisory locks between the fire gate and a pause, one a destination
)

KNOWN_WITHIN_S = 2.0
"""Within so many seconds every process has read that a breaker is open. No cooldown is shorter."""

Kind = Literal["paused", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Stop:
    """Why nothing is fired at a destination. ``paused``: by a person; ``open``, ``half_open``: by its breaker.

    ``until``: when it goes on by itself; of an open breaker, when it is tried again. ``who`` is None for a breaker.
    """

    kind: Kind
    since: datetime
    until: datetime | None
    who: str | None
    reason: str

    @property
    def words(self) -> str:
        """Why and until when, as it reads after the destination's name and a verb."""
        reason = "".join(char if char.isprintable() else "·" for char in self.reason)
        if self.kind == "paused":
            who = "".join(char if char.isprintable() else "·" for char in self.who or "")
            end = "" if self.until is None else f" until {_at(self.until)}"
            return f"paused by {who} since {_at(self.since)}{end}: {reason}"
        if self.until is None:
            return f"being tried by its breaker, which opened at {_at(self.since)}: {reason}"
        return f"stopped by its breaker since {_at(self.since)}, tried again at {_at(self.until)}: {reason}"


def _at(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits at a destination: ``due`` already, ``until`` becoming due until then, ``expires`` passing its network's
    age limit by then, ``first_expiry`` the earliest age limit of all that wait."""

    due: int
    until: int
    expires: int
    first_expiry: datetime | None


PAUSED = "(s.paused_at IS NOT NULL AND (s.paused_until IS NULL OR s.paused_until > now()))"
"""Whether the row ``s`` of ``stops`` is of a destination that is paused now."""

STOPPED_VERSIONS = f"""SELECT sv.id FROM stops s JOIN destination_versions sv ON sv.destination = s.destination
    WHERE {PAUSED} OR s.breaker <> 'closed'"""  # noqa: S608 — literals of ours
"""Versions of destinations that are stopped now."""

_STOPS = text(f"""
    SELECT s.*, {PAUSED} AS paused, now() AS now FROM stops s
    WHERE {PAUSED} OR s.breaker <> 'closed' ORDER BY s.destination""")  # noqa: S608 — literals of ours

_WAITING = text("""
    SELECT count(*) FILTER (WHERE p.due_at <= now() OR p.state = 'leased') AS due,
        count(*) FILTER (WHERE p.due_at <= CAST(:until AS timestamptz) AND p.due_at > now() AND p.state <> 'leased') AS until,
        count(*) FILTER (WHERE p.expires_at <= CAST(:until AS timestamptz)) AS expires, min(p.expires_at) AS first_expiry
    FROM postbacks p JOIN destination_versions v ON v.id = p.version_id
    WHERE v.destination = :destination AND p.due_at IS NOT NULL AND p.state IN ('held', 'leased', 'retrying')""")

_PAUSE = text("""
    INSERT INTO stops (destination, paused_at, paused_until, paused_by, pause_reason)
    VALUES (:destination, clock_timestamp(), :until, :who, :reason)
    ON CONFLICT (destination) DO UPDATE SET paused_at = excluded.paused_at, paused_until = excluded.paused_until,
        paused_by = excluded.paused_by, pause_reason = excluded.pause_reason""")

END_PAUSE = text("""
    UPDATE stops SET paused_at = NULL, paused_until = NULL, paused_by = NULL, pause_reason = NULL, drains_at = now()
    WHERE destination = :destination""")


# Every process knows by then that it is not closed, and tells the answers to its probes.
_TRY_NOW = text(f"""
    UPDATE stops SET breaker_until = greatest(now(), breaker_since + make_interval(secs => {KNOWN_WITHIN_S}))
    WHERE destination = :destination""")  # noqa: S608 — a number of ours


def stops(engine: Engine) -> dict[str, Stop]:
    """Every destination that is stopped now, by name."""
    with engine.connect() as connection:
        return read_stops(connection)


def read_stops(connection: Connection) -> dict[str, Stop]:
    """As ``stops``, within a transaction."""
    return {row.destination: _stop(row) for row in connection.execute(_STOPS)}


def _stop(row: Row[Any]) -> Stop:
    if row.paused:
        return Stop("paused", row.paused_at, row.paused_until, row.paused_by, row.pause_reason)
    tried = row.breaker == "half_open" or (row.breaker_until is not None and row.breaker_until <= row.now)
    until = None if tried else row.breaker_until
    return Stop("half_open" if tried else "open", row.breaker_since, until, None, row.says)


def waiting(engine: Engine, destination: str, until: datetime | None = None) -> Waiting:
    """What a pause until then would hold up."""
    with engine.connect() as connection:
        row = connection.execute(_WAITING, {"destination": destination, "until": until}).one()
        return Waiting(row.due, row.until, row.expires, row.first_expiry)


def pause(engine: Engine, destination: str, who: str, reason: str, until: datetime | None = None) -> None:
    """Stop firing at a destination, until an instant or until ``resume``. Raises ``KeyError`` for one there is none of.

    Once this returns no intent is recorded there any more, by any worker: the fire gate holds the same lock, shared. What
    was recorded before is on the wire and ends as it does. One that is paused already is paused anew.
    """

    def run(connection: Connection) -> None:
        _known(connection, destination)
        _keep_gates_away(connection, destination)
        values = {"destination": destination, "who": who, "reason": reason, "until": until}
        connection.execute(_PAUSE, values)
        detail = {"destination": destination, "reason": reason, "until": until and until.isoformat()}
        audit.write(connection, who=who, action="destination.pause", detail=detail)

    retried(engine, run)


def resume(engine: Engine, destination: str, who: str, reason: str = "") -> Stop | None:
    """Go on with a destination: end its pause, or try it now if its breaker is open. What is due goes oldest first.

    Returns the stop that it ended, or None if there was none. Raises ``KeyError`` for a destination there is none of.
    """

    def run(connection: Connection) -> Stop | None:
        _known(connection, destination)
        lock = text("SELECT destination FROM stops WHERE destination = :destination FOR UPDATE")
        connection.execute(lock, {"destination": destination})
        ended = read_stops(connection).get(destination)
        if ended is None:
            return None
        try_now = text("UPDATE stops SET breaker_until = now() WHERE destination = :destination")
        connection.execute(END_PAUSE if ended.kind == "paused" else try_now, {"destination": destination})
        detail = {"destination": destination, "reason": reason, "ended": ended.kind}
        audit.write(connection, who=who, action="destination.resume", detail=detail)
        return ended

    return retried(engine, run)


def _known(connection: Connection, destination: str) -> None:
    query = text("SELECT EXISTS (SELECT FROM destination_versions WHERE destination = :destination)")
    if not connection.execute(query, {"destination": destination}).scalar_one():
        raise KeyError(destination)


def _keep_gates_away(connection: Connection, destination: str) -> None:
    """Wait for the gates that are open at this destination; those that come later see what is committed here."""
    connection.execute(
        text("SELECT pg_advisory_xact_lock(:lock, hashtext(:destination))"),
        {"lock": STOP_LOCK, "destination": destination},
    )
