"""Circuit breakers, shared by every worker: a destination's is one row, moved on by ``schemas.breaker`` under its lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from infra.db.engine import as_json
from infra.store import audit
from infra.store.transactions import retried
from schemas.breaker import Breaker, BreakerPolicy, BreakerState, Heard, Tally, advance

BREAKER = "breaker"
"""Who opened and closed it, in the audit."""

_LOCK = text("SELECT *, clock_timestamp() AS now FROM stops WHERE destination = :destination FOR UPDATE")

_BEGIN = text("INSERT INTO stops (destination) VALUES (:destination) ON CONFLICT DO NOTHING")

_KEEP = text("""
    UPDATE stops SET breaker = :state, breaker_since = :since, breaker_until = :until, trips = :trips,
        probes = :probes, failed = :failed, recent = :recent, says = :says, probe_token = :token
    WHERE destination = :destination""")

_TROUBLED = text("SELECT destination FROM stops WHERE breaker <> 'closed' OR json_array_length(recent) > 0")


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What a process's latest attempts at one destination came to: ``down`` and ``up``, after ``up_before`` that it had
    not told of, the last of them ``before_s`` seconds ago. ``by_token``: down and up by lease token."""

    down: int
    up: int
    up_before: int = 0
    before_s: float = 0.0
    by_token: Mapping[int, tuple[int, int]] | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A breaker before and after something was told of its destination."""

    before: Breaker
    after: Breaker


def troubled(engine: Engine) -> frozenset[str]:
    """Destinations whose breaker is not closed, or has heard of failures lately: of these every outcome is told."""
    with engine.connect() as connection:
        return frozenset(connection.execute(_TROUBLED).scalars())


def tell(engine: Engine, destination: str, outcomes: Outcomes, policy: BreakerPolicy | None) -> Change:
    """Tell the breaker of a destination what became of attempts; ``policy`` None means that it has none."""

    def run(connection: Connection) -> Change:
        row = connection.execute(_LOCK, {"destination": destination}).one_or_none()
        if row is None:
            connection.execute(_BEGIN, {"destination": destination})
            row = connection.execute(_LOCK, {"destination": destination}).one()
        before = read_breaker(row)
        after = advance(before, _heard(outcomes, row), row.now, policy)
        if after != before:
            token = row.probe_token if after.state is BreakerState.HALF_OPEN else None
            keep_breaker(connection, destination, after, token)
            _note(connection, destination, before, after)
        return Change(before, after)

    return retried(engine, run)


def read_breaker(row: Row[Any]) -> Breaker:
    """The breaker of a row of ``stops``."""
    recent = tuple(Tally(datetime.fromtimestamp(at, UTC), down, up) for at, down, up in row.recent)
    return Breaker(
        state=BreakerState(row.breaker),
        since=row.breaker_since,
        until=row.breaker_until,
        trips=row.trips,
        probes=row.probes,
        failed=row.failed,
        recent=recent,
        says=row.says,
    )


def keep_breaker(connection: Connection, destination: str, breaker: Breaker, token: int | None) -> None:
    """Write a breaker down; its row is locked. ``token``: the lease of its probes."""
    connection.execute(
        _KEEP,
        {
            "destination": destination,
            "state": breaker.state,
            "since": breaker.since,
            "until": breaker.until,
            "trips": breaker.trips,
            "probes": breaker.probes,
            "failed": breaker.failed,
            "recent": _recent(breaker.recent),
            "says": breaker.says,
            "token": token,
        },
    )


def _recent(recent: Sequence[Tally]) -> str:
    return as_json([[tally.at.timestamp(), tally.down, tally.up] for tally in recent])


def _heard(outcomes: Outcomes, row: Row[Any]) -> Heard:
    before = Tally(row.now - timedelta(seconds=outcomes.before_s), 0, outcomes.up_before)
    down, up = (outcomes.by_token or {}).get(row.probe_token, (0, 0))
    return Heard((before, Tally(row.now, outcomes.down, outcomes.up)), down, up)


def _note(connection: Connection, destination: str, before: Breaker, after: Breaker) -> None:
    """Opening and closing stand in the audit beside what people do; failing probes in between do not."""
    opens = after.state is BreakerState.OPEN and before.state is BreakerState.CLOSED
    closes = after.state is BreakerState.CLOSED and before.state is not BreakerState.CLOSED
    if opens or closes:
        detail = {
            "destination": destination,
            "reason": after.says or f"its probes were answered: {before.says}",
        }
        audit.write(
            connection,
            who=BREAKER,
            action="destination.breaker_open" if opens else "destination.breaker_closed",
            detail=detail,
        )
