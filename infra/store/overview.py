"""How things stand, destination by destination: states, attempts over time, success, lateness, what is overdue.

Counts of millions are not taken when somebody looks. Attempts come from the tallies and, beyond their watermark, from the
attempts themselves; states from the last count, unless there are few. Each figure says as of when it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from infra.store.searching.criteria import run
from infra.store.searching.paging import searching
from infra.store.stopping.stopping import Stop, read_stops
from infra.store.tallying import BUCKET, COUNT_STATES, FINEST_S, FIRST, GRADE, LATE_GRADE
from schemas.lifecycle import State
from schemas.verdict import VerdictKind

COUNTED_LIVE = 50_000
"""With so many postbacks at most, their states are counted when asked."""
UNTALLIED = 20_000
"""So many attempts beyond the tallies' watermark are counted when asked."""
BOUND = 5_000
"""So many overdue postbacks and retries are looked at; beyond that there are "more"."""
MOST_HOURS = 24 * 31
_BUCKETS_S = ((6, 300), (24, 1800), (24 * 7, 7200), (MOST_HOURS, 28_800))


@dataclass(frozen=True, slots=True)
class Bucket:
    """Attempts whose intent lies in the span of time that begins at ``at``, by verdict."""

    at: datetime
    attempts: Mapping[VerdictKind, int]


@dataclass(frozen=True, slots=True)
class Lateness:
    """Seconds between the end of the window and the first attempt, over ``attempts`` of them; within 5 %."""

    attempts: int
    p50_s: float
    p95_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class DestinationOverview:
    """One destination. ``attempts`` are those of the hours asked for, by verdict; ``buckets`` the same over time, gaps
    included. ``success_share``: of the postbacks that an attempt brought to an end, those that were delivered."""

    destination: str
    network: str
    states: Mapping[State, int]
    buckets: tuple[Bucket, ...]
    attempts: Mapping[VerdictKind, int]
    success_share: float | None
    lateness: Lateness | None
    overdue: int
    """Due, and not yet claimed; what a stopped destination keeps waiting is not."""
    oldest_overdue_s: float | None
    retries_due: int
    """Within the next hour."""
    stop: Stop | None


@dataclass(frozen=True, slots=True)
class Overview:
    """As of ``at``. States are as of ``states_at``. Attempts are all counted, unless ``counted_to`` says up to when.

    ``more_overdue`` and ``more_retries``: there are more than were looked at, and a destination's figure is a lower bound.
    """

    at: datetime
    since: datetime
    bucket_s: int
    destinations: tuple[DestinationOverview, ...]
    states_at: datetime
    counted_to: datetime | None
    more_overdue: bool
    more_retries: bool


_VERSIONS = """
    SELECT id, destination, contract->'network'->>'slug' AS network, current, now() AS now,
        date_bin(make_interval(secs => :width), now() - make_interval(hours => :hours), CAST('epoch' AS timestamptz)) AS since
    FROM destination_versions ORDER BY id"""
_WATERMARK = """
    SELECT t.attempt_id, t.counted_at, (SELECT coalesce(max(id), 0) FROM postbacks) AS postbacks,
        (SELECT max(id) FROM (SELECT a.id FROM attempts a WHERE a.id > t.attempt_id ORDER BY a.id LIMIT :untallied) first) AS upto,
        (SELECT count(*) FROM (SELECT FROM attempts a WHERE a.id > t.attempt_id ORDER BY a.id LIMIT :untallied) first) AS ahead
    FROM tallied t"""
_ATTEMPTS = f"""
    SELECT date_bin(make_interval(secs => :width), bucket_at, CAST('epoch' AS timestamptz)) AS at, version_id, verdict, state,
        CAST(sum(attempts) AS bigint) AS attempts
    FROM (SELECT bucket_at, version_id, verdict, state, attempts FROM tallies WHERE bucket_at >= :since
        UNION ALL
        SELECT {BUCKET}, a.version_id, a.verdict, a.state, count(*) FROM attempts a
        WHERE a.id > :after AND a.id <= :upto AND a.intent_at >= :since GROUP BY 1, 2, 3, 4) counted
    GROUP BY 1, 2, 3, 4"""  # noqa: S608 — literals of ours
_LATENESSES = f"""
    SELECT version_id, grade, CAST(sum(attempts) AS bigint) AS attempts
    FROM (SELECT version_id, grade, attempts FROM latenesses WHERE bucket_at >= :since
        UNION ALL
        SELECT a.version_id, {LATE_GRADE}, count(*) FROM attempts a JOIN postbacks p ON p.id = a.postback_id
            JOIN conversions c ON c.id = p.conversion_id
        WHERE a.id > :after AND a.id <= :upto AND a.intent_at >= :since AND {FIRST} GROUP BY 1, 2) counted
    GROUP BY 1, 2"""  # noqa: S608 — literals of ours
_COUNTED_TO = "SELECT max(intent_at) AS at FROM attempts WHERE id > :after - 100 AND id <= :after"
_OVERDUE = """
    SELECT version_id, count(*) AS postbacks, CAST(extract(epoch FROM now() - min(due_at)) AS float) AS oldest_s
    FROM (SELECT version_id, due_at FROM postbacks
        WHERE due_at <= now() AND NOT parked AND state IN ('held', 'retrying') ORDER BY due_at LIMIT :bound) first
    GROUP BY version_id"""
_RETRIES = """
    SELECT v.id AS version_id, soon.postbacks, soon.looked FROM destination_versions v, LATERAL (
        SELECT count(*) FILTER (WHERE due_at <= now() + interval '1 hour') AS postbacks, count(*) AS looked
        FROM (SELECT due_at FROM postbacks WHERE version_id = v.id AND filed = 'retrying' LIMIT :bound) some_of_them) soon
    WHERE soon.looked > 0"""


def read_overview(engine: Engine, *, hours: int = 24) -> Overview:
    """Everything at a glance, over the last ``hours``, 1 to ``MOST_HOURS``. Raises ValueError for others."""
    if not 1 <= hours <= MOST_HOURS:
        raise ValueError(f"{hours} hours cannot be shown; ask for 1 to {MOST_HOURS}")
    width = next(width for most, width in _BUCKETS_S if hours <= most)
    with searching(engine) as connection:
        versions = run(connection, _VERSIONS, {"width": width, "hours": hours})
        if not versions:
            now: datetime = connection.execute(text("SELECT now()")).scalar_one()
            return Overview(
                now,
                now - timedelta(hours=hours),
                width,
                (),
                now,
                None,
                more_overdue=False,
                more_retries=False,
            )
        return _Reading(connection, versions, width).overview()


class _Reading:
    """One reading, in one snapshot: figures by version, added up by destination."""

    def __init__(self, connection: Connection, versions: list[Row[Any]] | Any, width: int) -> None:
        self._connection = connection
        self._names = {row.id: row.destination for row in versions}
        self._networks = {row.destination: row.network for row in versions}
        self._current = {row.destination for row in versions if row.current}
        self._now, self._since, self._width = versions[-1].now, versions[-1].since, width

    def overview(self) -> Overview:
        mark = run(self._connection, _WATERMARK, {"untallied": UNTALLIED})[0]
        states, states_at = self._states(mark)
        span = {
            "after": mark.attempt_id,
            "upto": mark.upto or mark.attempt_id,
            "since": self._since,
            "width": self._width,
        }
        attempts = self._by_destination(run(self._connection, _ATTEMPTS, span))
        late = self._by_destination(run(self._connection, _LATENESSES, span))
        overdue = run(self._connection, _OVERDUE, {"bound": BOUND})
        retries = run(self._connection, _RETRIES, {"bound": BOUND})
        stops = read_stops(self._connection)
        names = sorted(
            self._current | {name for name in (*states, *attempts) if states.get(name) or attempts.get(name)}
        )
        waiting, soon = self._by_destination(overdue), self._by_destination(retries)
        return Overview(
            at=self._now,
            since=self._since,
            bucket_s=self._width,
            destinations=tuple(
                DestinationOverview(
                    destination=name,
                    network=self._networks[name],
                    states=states.get(name, {}),
                    buckets=self._buckets(attempts[name]),
                    attempts=_by_verdict(attempts[name]),
                    success_share=_success(attempts[name]),
                    lateness=_lateness(late[name]),
                    overdue=sum(row.postbacks for row in waiting[name]),
                    oldest_overdue_s=max((row.oldest_s for row in waiting[name]), default=None),
                    retries_due=sum(row.postbacks for row in soon[name]),
                    stop=stops.get(name),
                )
                for name in names
            ),
            states_at=states_at,
            counted_to=self._counted_to(mark) if mark.ahead >= UNTALLIED else None,
            more_overdue=sum(row.postbacks for row in overdue) >= BOUND,
            more_retries=any(row.looked >= BOUND for row in retries),
        )

    def _states(self, mark: Row[Any]) -> tuple[dict[str, dict[State, int]], datetime]:
        live = mark.postbacks <= COUNTED_LIVE or mark.counted_at is None
        query = COUNT_STATES if live else "SELECT version_id, state, postbacks FROM state_counts"
        found: dict[str, dict[State, int]] = {}
        for row in run(self._connection, query, {}):
            states = found.setdefault(self._names[row.version_id], {})
            states[State(row.state)] = states.get(State(row.state), 0) + row.postbacks
        return found, self._now if live else mark.counted_at

    def _counted_to(self, mark: Row[Any]) -> datetime:
        """Of the last attempt that was counted; of none, the beginning of what is shown."""
        rows = run(self._connection, _COUNTED_TO, {"after": mark.upto})
        counted: datetime | None = rows[0].at
        return counted or self._since

    def _by_destination(self, rows: Any) -> dict[str, list[Row[Any]]]:
        found: dict[str, list[Row[Any]]] = defaultdict(list)
        for row in rows:
            found[self._names[row.version_id]].append(row)
        return found

    def _buckets(self, rows: list[Row[Any]]) -> tuple[Bucket, ...]:
        by_start: dict[datetime, list[Row[Any]]] = defaultdict(list)
        for row in rows:
            by_start[row.at].append(row)
        count = int((self._now - self._since) / timedelta(seconds=self._width)) + 1
        starts = (self._since + place * timedelta(seconds=self._width) for place in range(count))
        return tuple(Bucket(at, _by_verdict(by_start[at])) for at in starts)


def _by_verdict(rows: list[Row[Any]]) -> dict[VerdictKind, int]:
    found: dict[VerdictKind, int] = {}
    for row in rows:
        kind = VerdictKind(row.verdict)
        found[kind] = found.get(kind, 0) + row.attempts
    return found


def _success(rows: list[Row[Any]]) -> float | None:
    ended = sum(row.attempts for row in rows if row.state != State.RETRYING)
    delivered = sum(row.attempts for row in rows if row.state == State.DELIVERED)
    return delivered / ended if ended else None


def _lateness(rows: list[Row[Any]]) -> Lateness | None:
    """Percentiles by nearest rank; of a grade, the middle of its span on the logarithmic scale."""
    total = sum(row.attempts for row in rows)
    if not total:
        return None
    found = []
    for share in (0.50, 0.95, 0.99):
        passed = 0
        for row in sorted(rows, key=lambda each: each.grade):
            passed += row.attempts
            if passed >= share * total:
                found.append(FINEST_S * GRADE ** (row.grade - 0.5) if row.grade > 0 else 0.0)
                break
    return Lateness(total, *found)
