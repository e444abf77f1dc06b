"""A search under an order, taken apart into legs: each walks candidates by an index, a window at a time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Protocol

from sqlalchemy import Connection

from infra.store.searching.criteria import ATTEMPT_CRITERIA, Criteria, bound, run
from infra.store.searching.cursors import Key, Sort
from infra.store.searching.sources import (
    FEW,
    HIGHEST,
    LOWEST,
    Reach,
    Source,
    few,
    late,
    named_in,
    ordered,
    points,
    reach,
)
from schemas.lifecycle import FINAL

_PROBED = 1000
"""So many candidates of each source are looked at, to tell which is the rarest."""
_OF_A_BRANCH = 32
_DENSE = 0.5
"""An index that gives more than every second postback is no shorter way than all of them."""
_BY_HAND = "infinity"
_WORTHLESS = Key(0, 0, Decimal("-1e30"))
"""Behind every value."""
_BY_ID = "unnest(CAST(:ids AS bigint[])) AS w(id) JOIN postbacks p ON p.id = w.id"


@dataclass(frozen=True, slots=True)
class Window:
    """Candidates that follow one another in the order: the ``tables`` that give them as ``p``, and on what condition.

    ``last`` is where it ends, for the leg after it too; ``ended`` says that its own leg ends there.
    """

    tables: str
    where: str
    values: dict[str, Any]
    last: Key
    ended: bool

    @property
    def empty(self) -> bool:
        """No candidates at all: nothing has to be asked of them."""
        return self.values.get("ids") == "{}"


class Leg(Protocol):
    """One part of a search. It tells from a key whether it lies behind, ahead, or is under way."""

    def window(self, connection: Connection, after: Key | None, size: int) -> Window:
        """About ``size`` candidates behind ``after``."""
        ...


@dataclass(frozen=True, slots=True)
class ByIds:
    """Candidates in the order of their ids, between ``floor`` and ``ceiling``: a source's, or all there are."""

    floor: int
    ceiling: int
    down: bool
    source: Source | None = None
    where: str = "true"

    def window(self, connection: Connection, after: Key | None, size: int) -> Window:
        floor, ceiling = self.floor, self.ceiling
        if after is not None and self.down:
            ceiling = min(ceiling, after.id)
        elif after is not None:
            floor = max(floor, after.id)
        if ceiling - floor < 2:
            # Behind the key lies nothing of this leg: the next one goes on from where the key is.
            return _listed((), after or Key(ceiling if self.down else floor), ended=True)
        if self.source is not None:
            each = size if self.source.branches == 1 else max(_OF_A_BRANCH, 4 * size // self.source.branches)
            ids, ended = self.source.read(connection, floor, ceiling, each, down=self.down)
            end = self.floor + 1 if self.down else self.ceiling - 1
            return _listed(ids, Key(end if ended else ids[-1]), ended=ended, where=self.where)
        if self.down:
            bottom = max(floor, ceiling - size - 1)
            last, ended = Key(bottom + 1), bottom == floor
            floor = bottom
        else:
            top = min(ceiling, floor + size + 1)
            last, ended = Key(top - 1), top == ceiling
            ceiling = top
        between = f"p.id > :floor AND p.id < :ceiling AND {self.where}"
        return Window("postbacks p", between, {"floor": floor, "ceiling": ceiling}, last, ended)


@dataclass(frozen=True, slots=True)
class Few:
    """All candidates at once. In the order of ids a window of them at a time, in another all."""

    ids: tuple[int, ...]
    """Ascending."""
    sort: Sort

    def window(self, _: Connection, after: Key | None, size: int) -> Window:
        if self.sort is Sort.NEWEST:
            left = self.ids[: len(self.ids) if after is None else bisect_left(self.ids, after.id)]
            part = left[-size:]
            last = Key(part[0]) if part else after or Key(HIGHEST)
            return _listed(part, last, ended=len(part) == len(left))
        if self.sort is Sort.OLDEST:
            left = self.ids[0 if after is None else bisect_right(self.ids, after.id) :]
            part = left[:size]
            last = Key(part[-1]) if part else after or Key(LOWEST)
            return _listed(part, last, ended=len(part) == len(left))
        return _listed(self.ids, after or Key(0), ended=True)


@dataclass(frozen=True, slots=True)
class ByValue:
    """Conversions from the highest value down, with their postbacks. ``within`` is what is asked of the value."""

    within: str
    values: dict[str, Any]

    def window(self, connection: Connection, after: Key | None, size: int) -> Window:
        if after is not None and after.value is None:
            return _listed((), after, ended=True)
        query = f"SELECT k.id, k.value FROM conversions k WHERE k.value IS NOT NULL AND {self.within}"  # noqa: S608 — fixed fragments
        values = self.values | {"size": size}
        if after is not None:
            query += " AND (k.value, k.id) <= (:from_value, :from_id)"
            values |= {"from_value": after.value, "from_id": after.conversion}
        rows = run(connection, f"{query} ORDER BY k.value DESC, k.id DESC LIMIT :size", values)
        last = Key(0, rows[-1].id, rows[-1].value) if rows else after or _WORTHLESS
        return _of_conversions([row.id for row in rows], last, ended=len(rows) < size)


@dataclass(frozen=True, slots=True)
class Valueless:
    """Conversions without a value, the newest first, with their postbacks."""

    def window(self, connection: Connection, after: Key | None, size: int) -> Window:
        from_id = HIGHEST if after is None or after.value is not None else after.conversion
        query = """SELECT k.id FROM conversions k WHERE k.value IS NULL AND k.id <= :from_id
            ORDER BY k.id DESC LIMIT :size"""
        rows = run(connection, query, {"from_id": from_id, "size": size})
        return _of_conversions(
            [row.id for row in rows], Key(0, rows[-1].id if rows else 0), ended=len(rows) < size
        )


# What a stopped destination keeps waiting stands in a queue of its own.
_BY_DUE = """
    SELECT id, CAST(due_at AS text) AS due FROM (
        (SELECT id, due_at FROM postbacks WHERE due_at IS NOT NULL AND NOT parked AND {behind}
            ORDER BY due_at, id LIMIT :size)
        UNION ALL
        SELECT p.* FROM destination_versions v, LATERAL (
            SELECT id, due_at FROM postbacks
            WHERE version_id = v.id AND due_at IS NOT NULL AND parked AND {behind}
            ORDER BY due_at, id LIMIT :size) p) AS waiting
    ORDER BY waiting.due_at, id LIMIT :size"""


@dataclass(frozen=True, slots=True)
class ByDue:
    """Postbacks by the instant at which somebody has to act next; not those that wait for a hand."""

    def window(self, connection: Connection, after: Key | None, size: int) -> Window:
        if after is not None and after.due in {None, _BY_HAND}:
            return _listed((), after, ended=True)
        behind, values = "due_at < 'infinity'", dict[str, Any](size=size)
        if after is not None:
            due = "CAST(:from_due AS timestamptz)"
            behind += f" AND due_at >= {due} AND (due_at > {due} OR id > :from_id)"
            values |= {"from_due": after.due, "from_id": after.id}
        rows = run(connection, _BY_DUE.format(behind=behind), values)
        last = Key(rows[-1].id, due=rows[-1].due) if rows else after or Key(0, due="-infinity")
        return _listed([row.id for row in rows], last, ended=len(rows) < size)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Those that wait for a hand (``due`` infinite) or for nothing (None), by id."""

    due: str | None
    walk: ByIds

    def window(self, connection: Connection, after: Key | None, size: int) -> Window:
        if after is not None and after.due is None and self.due is not None:
            return _listed((), after, ended=True)
        window = self.walk.window(connection, after if after and after.due == self.due else None, size)
        return replace(window, last=Key(window.last.id, due=self.due))


def _listed(ids: Iterable[int], last: Key, *, ended: bool, where: str = "true") -> Window:
    listed = "{" + ",".join(map(str, ids)) + "}"
    return Window(_BY_ID, where, {"ids": listed}, last, ended)


def _of_conversions(ids: Iterable[int], last: Key, *, ended: bool) -> Window:
    tables = "unnest(CAST(:ids AS bigint[])) AS w(id) JOIN postbacks p ON p.conversion_id = w.id"
    return Window(tables, "true", {"ids": "{" + ",".join(map(str, ids)) + "}"}, last, ended)


@dataclass(frozen=True, slots=True)
class Route:
    """The legs of a search. ``first`` is what the text searched for is an id of: shown before all else, and not again."""

    legs: list[Leg]
    first: tuple[int, ...] = ()


def route(connection: Connection, criteria: Criteria, sort: Sort) -> Route:
    """The parts of a search, in order. Which index serves is told by what is rare just now; the order never is."""
    down = sort is not Sort.OLDEST
    if (source := points(criteria)) is not None:
        ids, ended = source.read(connection, LOWEST, HIGHEST, FEW, down=True)
        if ended:
            return Route([Few(tuple(sorted(ids)), sort)])
        if sort in {Sort.NEWEST, Sort.OLDEST}:
            return Route([ByIds(LOWEST, _top(connection), down, source)])
    top = _top(connection, tried=not criteria.given().isdisjoint(ATTEMPT_CRITERIA))
    reached = reach(connection, criteria.since, criteria.until)
    floor, turn = reached.floor, min(reached.turn, top)
    rarest = _rarest(connection, criteria, reached, turn, down=down)
    if sort in {Sort.NEWEST, Sort.OLDEST}:
        first: tuple[int, ...] = ()
        if criteria.text is not None and not isinstance(rarest, list):
            first = named_in(connection, criteria.text)
        main = _main(rarest, floor, turn, sort)
        if turn == top:
            return Route([main], first)
        afterwards = ByIds(turn, top, down, late(reached))
        return Route([afterwards, main] if down else [main, afterwards], first)
    if isinstance(rarest, list):
        others, ended = (
            late(reached).read(connection, turn, top, FEW, down=True) if turn < top else ([], True)
        )
        if ended:
            return Route([Few(tuple(sorted({*rarest, *others})), sort)])
        rarest = None
    return Route(_by_value(criteria) if sort is Sort.VALUE else _by_due(connection, criteria, top, rarest))


def _main(rarest: Source | list[int] | None, floor: int, turn: int, sort: Sort) -> Leg:
    if isinstance(rarest, list):
        return Few(tuple(sorted(number for number in rarest if floor < number < turn)), sort)
    return ByIds(floor, turn, sort is Sort.NEWEST, rarest)


def _rarest(
    connection: Connection, criteria: Criteria, reached: Reach, turn: int, *, down: bool
) -> Source | list[int] | None:
    """All the ids, where a criterion leaves few of them; else the source whose ids lie furthest apart."""
    floor = reached.floor
    best: tuple[float, Source | None] = (1.0, None)
    for source in ordered(connection, criteria):
        each = _PROBED if source.branches == 1 else max(_OF_A_BRANCH, 4 * _PROBED // source.branches)
        ids, ended = source.read(connection, floor, turn, each, down=down)
        if ended:
            return ids
        # Where the newest are all held, every source begins far down: that says nothing of which is the rarest.
        from_end = len(ids) / (abs((turn if down else floor) - ids[-1]) or 1)
        density = len(ids) / (abs(ids[0] - ids[-1]) or 1)
        if from_end < _DENSE and density < best[0]:
            best = density, source
    return next(few(connection, criteria, reached), best[1])


def _by_value(criteria: Criteria) -> list[Leg]:
    given = bound(criteria)
    within = {
        "lowest_value": "k.value >= :lowest_value",
        "highest_value": "k.value <= :highest_value",
        "above": "k.value > :above",
        "below": "k.value < :below",
    }
    asked = {name: each for name, each in within.items() if given[name] is not None}
    found: list[Leg] = [
        ByValue(" AND ".join(asked.values()) or "true", {name: given[name] for name in asked})
    ]
    return found if asked else [*found, Valueless()]


def _by_due(connection: Connection, criteria: Criteria, top: int, rarest: Source | None) -> list[Leg]:
    ended = Waiting(None, ByIds(LOWEST, top, down=True, source=rarest, where="p.due_at IS NULL"))
    if criteria.states and FINAL.issuperset(criteria.states):
        return [ended]
    by_hand = run(
        connection,
        "SELECT EXISTS (SELECT FROM postbacks WHERE due_at = 'infinity' AND NOT parked) AS some",
        {},
    )
    found: list[Leg] = [ByDue()]
    if by_hand[0].some:
        found.append(Waiting(_BY_HAND, ByIds(LOWEST, top, down=False, where="p.due_at = 'infinity'")))
    return found if criteria.states and not FINAL.intersection(criteria.states) else [*found, ended]


def _top(connection: Connection, *, tried: bool = False) -> int:
    """One more than the highest id there is; or that was ``tried``, for above it no attempt can match."""
    highest = "SELECT max(postback_id) FROM attempts" if tried else "SELECT max(id) FROM postbacks"
    row = run(connection, f"SELECT coalesce(({highest}), 0) + 1 AS top", {})[0]
    top: int = row.top
    return top
