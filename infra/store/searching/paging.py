"""A search page by page, under a budget of time: what was found, how far was looked, and where to look further.

No statement here is left to the planner's hope. Candidates come from an index in windows of bounded size, in the order
of the listing; each window's rows are judged by nested index look-ups alone; and when the time is up, the page says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row

from infra.store.records import FoundPostback
from infra.store.searching.criteria import Criteria, postback_conditions, run
from infra.store.searching.cursors import ORDERS, Cursor, Key, Sort, behind, search_mark
from infra.store.searching.legs import Few, Leg, Route, Window, route
from schemas.click import read_matches
from schemas.conversion import attributed
from schemas.event import ConversionEvent, read_stored
from schemas.lifecycle import State
from schemas.verdict import VerdictKind

BUDGET_S = 0.2
_FIRST_WINDOW, _FIRST_WINDOW_OF_TEXT = 256, 64
_SMALLEST_WINDOW, _LARGEST_WINDOW = 4, 20_000
_WINDOW_S = 0.1
_STREAMED, _STREAMING_S = 500, 2.0

_COLUMNS = """p.id AS postback_id, p.conversion_id, p.state, p.release_at, nullif(p.due_at, 'infinity') AS due_at,
    p.attempts, p.reason, p.adjustment, p.adjusts, p.reported, p.retracted_at, p.lost, p.lost_at,
    v.destination, v.contract->'network'->>'slug' AS network, c.event_id, c.source, c.matched, c.net_value, c.outcomes,
    c.received_at, c.event::text AS event, coalesce(last.status_code, p.archived_status) AS status_code,
    coalesce(last.verdict, p.archived_verdict) AS verdict,
    p.id AS id, c.value, CAST(p.due_at AS text) AS due"""
_DETAILS = """JOIN postbacks p ON p.id = f.id JOIN conversions c ON c.id = p.conversion_id
    JOIN destination_versions v ON v.id = p.version_id
    LEFT JOIN LATERAL (SELECT a.status_code, a.verdict FROM attempts a
        WHERE a.postback_id = p.id ORDER BY a.number DESC, a.id DESC LIMIT 1) last ON true"""


@dataclass(frozen=True, slots=True)
class SearchPage:
    """Some rows of a search in its order. ``next`` is where to go on; without it there is no more.

    ``complete``: the page is as full as it can be. Otherwise the time was up: it was looked as far as
    ``looked_back_to``, an instant of receipt (None where the order is not one of time), and ``next`` looks further.
    """

    rows: list[FoundPostback]
    next: Cursor | None
    looked_back_to: datetime | None
    complete: bool


@dataclass(frozen=True, slots=True)
class Stretch:
    """Ids of postbacks that match, in order, and how far that was looked."""

    ids: list[int]
    upto: int


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What must hold besides the criteria of ``postbacks p JOIN conversions c``, as SQL, and the values that it binds."""

    where: str = "true"
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tally:
    """How many match: exactly, or ``more`` than that."""

    count: int
    more: bool


def search_page(  # noqa: PLR0913 — what, in which order, from where, how much, and how long
    engine: Engine,
    criteria: Criteria,
    *,
    sort: Sort = Sort.NEWEST,
    after: Cursor | None = None,
    limit: int = 50,
    budget_s: float = BUDGET_S,
) -> SearchPage:
    """At most ``limit`` postbacks behind ``after``. Looks for about ``budget_s``; at least one window is looked through.

    Raises ValueError when ``after`` belongs to another search.
    """
    deadline = time.monotonic() + budget_s
    with searching(engine) as connection:
        return Search(connection, criteria, sort).page(after, limit, deadline)


def search_all(
    engine: Engine, criteria: Criteria, sort: Sort = Sort.NEWEST, *, after: Cursor | None = None
) -> Iterator[FoundPostback]:
    """Everything that matches, as it is found. No snapshot is kept open meanwhile; each row comes once."""
    for page in search_pages(engine, criteria, sort, after=after):
        yield from page.rows


def search_pages(
    engine: Engine, criteria: Criteria, sort: Sort = Sort.NEWEST, *, after: Cursor | None = None
) -> Iterator[SearchPage]:
    """Page after page until all was looked through; each also says how far that is."""
    while True:
        page = search_page(engine, criteria, sort=sort, after=after, limit=_STREAMED, budget_s=_STREAMING_S)
        yield page
        after = page.next
        if after is None:
            return


BY_INDEX = "; ".join(
    f"SET LOCAL {name} = off" for name in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit")
)
"""For the rest of a transaction: rows are come by through indexes alone."""


@contextmanager
def searching(engine: Engine) -> Iterator[Connection]:
    """A snapshot in which no plan reads a table whole, or builds a hash of one, whatever the statistics say."""
    options: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection:
        connection.exec_driver_sql(BY_INDEX)
        yield connection


@dataclass(frozen=True, slots=True)
class _Step:
    """A window of candidates behind ``after``. It leads to ``ends``, and after the last one all is ``done``."""

    window: Window
    after: Key | None
    ends: Key
    done: bool
    first: bool
    """Among what the text searched for is an id of; ``leads`` says whether the step behind it still is."""
    leads: bool


class Search:
    """One search under one order, in one snapshot."""

    def __init__(
        self, connection: Connection, criteria: Criteria, sort: Sort, narrowing: Narrowing | None = None
    ) -> None:
        self._connection = connection
        self._criteria = criteria
        self._sort = sort
        self._route = route(connection, criteria, sort)
        self._where, self._values = postback_conditions(criteria)
        if narrowing is not None:
            self._where += f" AND {narrowing.where}"
            self._values |= narrowing.values

    def page(self, after: Cursor | None, limit: int, deadline: float) -> SearchPage:
        """At most ``limit`` rows behind ``after``. Raises ValueError when that is another search's."""
        mark = search_mark(self._criteria)
        if after is not None and (after.sort, after.search) != (self._sort, mark):
            raise ValueError("this place belongs to another search or order; begin this one anew without it")
        rows: list[Row[Any]] = []
        for step in self._steps(after, deadline):
            room = limit - len(rows)
            new = [] if step.window.empty else self._rows(step, room + 1)
            rows += new[:room]
            if len(new) > room or (len(rows) == limit and not step.done):
                return self._page(rows, Cursor(self._sort, mark, Key.of(rows[-1]), step.first))
            if step.done:
                return self._page(rows, None)
        return self._page(rows, Cursor(self._sort, mark, step.ends, step.leads), complete=False)

    def stretch(self, after: int, last: int, limit: int, deadline: float) -> Stretch:
        """The next ids behind ``after`` and up to ``last``, oldest first; fewer than ``limit`` when the time is up.

        What a text is the id of has no place of its own here: ids alone are the order.
        """
        assert self._sort is Sort.OLDEST
        self._route = Route(self._route.legs)
        ids: list[int] = []
        for step in self._steps(Cursor(self._sort, search_mark(self._criteria), Key(after)), deadline):
            query = f"SELECT p.id FROM {self._found(step)} AND p.id <= :upto ORDER BY p.id LIMIT :room"  # noqa: S608 — fixed fragments
            given = self._bound(step) | {"upto": last, "room": limit - len(ids)}
            ids += [] if step.window.empty else [row.id for row in run(self._connection, query, given)]
            if len(ids) == limit:
                return Stretch(ids, ids[-1])
            if step.done or step.ends.id >= last:
                return Stretch(ids, last)
        return Stretch(ids, step.ends.id)

    def count(self, most: float, deadline: float) -> Tally:
        """How many match, looked for until the deadline and up to ``most``."""
        count = 0
        for step in self._steps(None, deadline):
            query = f"SELECT count(*) AS matching FROM {self._found(step)}"  # noqa: S608 — fixed fragments
            count += 0 if step.window.empty else run(self._connection, query, self._bound(step))[0].matching
            if step.done or count > most:
                return Tally(int(min(count, most)), count > most)
        return Tally(count, more=True)

    def _steps(self, after: Cursor | None, deadline: float) -> Iterator[_Step]:
        """Window after window, each as large as the time left allows, one at least."""
        legs: list[tuple[Leg, bool]] = [(leg, False) for leg in self._route.legs]
        key = None if after is None else after.key
        if self._route.first and (after is None or after.first):
            legs.insert(0, (Few(self._route.first, self._sort), True))
        size = _FIRST_WINDOW if self._criteria.text is None else _FIRST_WINDOW_OF_TEXT
        for place, (leg, first) in enumerate(legs):
            ended = False
            while not ended:
                started = time.monotonic()
                window = leg.window(self._connection, key, size)
                ended = window.ended
                # Behind what the text names, all else begins from its own start.
                ends = _start(self._sort) if first and ended else window.last
                done = ended and place == len(legs) - 1
                yield _Step(window, key, ends, done, first, leads=first and not ended)
                moved, key, now = ends != key, ends, time.monotonic()
                # A page that only passed by what lies behind it would lead to itself.
                if moved and now >= deadline:
                    return
                rate = size / max(now - started, 1e-4)
                within = max(0.0, min((deadline - now) / 2, _WINDOW_S))
                size = max(_SMALLEST_WINDOW, int(min(rate * within, _LARGEST_WINDOW, 4 * size)))

    def _found(self, step: _Step) -> str:
        window = step.window
        where, _ = behind(self._sort, step.after)
        rest = "p.id <> ALL(:first)" if self._route.first and not step.first else "true"
        return f"""{window.tables} JOIN conversions c ON c.id = p.conversion_id
            WHERE {window.where} AND {where} AND {rest} AND {self._where}"""

    def _bound(self, step: _Step) -> dict[str, Any]:
        _, key = behind(self._sort, step.after)
        return self._values | step.window.values | key | {"first": list(self._route.first)}

    def _rows(self, step: _Step, limit: int) -> list[Row[Any]]:
        order = ORDERS[self._sort]
        # Fixed fragments only, every value is bound. Only the rows shown are looked up in full.
        query = f"""WITH f AS MATERIALIZED (SELECT p.id FROM {self._found(step)} ORDER BY {order} LIMIT :limit)
            SELECT {_COLUMNS} FROM f {_DETAILS} ORDER BY {order}"""  # noqa: S608 — fixed fragments
        return list(run(self._connection, query, self._bound(step) | {"limit": limit}))

    def _page(self, rows: list[Row[Any]], after: Cursor | None, *, complete: bool = True) -> SearchPage:
        looked = None if complete or after is None else self._looked_to(after)
        return SearchPage([_postback(row) for row in rows], after, looked, complete)

    def _looked_to(self, after: Cursor) -> datetime | None:
        if self._sort not in {Sort.NEWEST, Sort.OLDEST} or after.first:
            return None
        nearest = (
            "p.id >= :id ORDER BY p.id" if self._sort is Sort.NEWEST else "p.id <= :id ORDER BY p.id DESC"
        )
        query = f"""SELECT c.received_at FROM postbacks p JOIN conversions c ON c.id = p.conversion_id
            WHERE {nearest} LIMIT 1"""  # noqa: S608 — fixed fragments
        rows = run(self._connection, query, {"id": after.key.id})
        return rows[0].received_at if rows else None


def _start(sort: Sort) -> Key:
    return Key(0 if sort is Sort.OLDEST else 2**63 - 1)


def _postback(row: Row[Any]) -> FoundPostback:
    event = read_stored(row.event)
    assert isinstance(event, ConversionEvent)
    return FoundPostback(
        postback_id=row.postback_id,
        conversion_id=row.conversion_id,
        destination=row.destination,
        network=row.network,
        state=State(row.state),
        source=row.source,
        event_id=row.event_id,
        name=event.name,
        order_id=event.order_id,
        value=event.value,
        net_value=row.net_value,
        currency=event.currency,
        click_ids=attributed(event, read_matches(row.matched)).click_ids,
        occurred_at=event.occurred_at,
        received_at=row.received_at,
        release_at=row.release_at,
        due_at=row.due_at,
        attempts_made=row.attempts,
        status_code=row.status_code,
        verdict=None if row.verdict is None else VerdictKind(row.verdict),
        reason=row.reason,
        outcomes=tuple(row.outcomes),
        adjustment=row.adjustment,
        adjusts=row.adjusts,
        reported=row.reported,
        retracted_at=row.retracted_at,
        lost=row.lost,
        lost_at=row.lost_at,
    )
