"""Where the candidates of a search come from: for each criterion an index that gives postbacks in the order of their ids.

A source is a statement that gives rows of ``branch, id``: each branch is ordered and ends after ``:each`` of them, so
that several states of several destination versions are read side by side, and none further than is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from infra.store.searching.criteria import POINTS, Criteria, bound, run
from schemas.lifecycle import State

FEW = 2000
"""So many candidates are fetched and sorted at once, whatever the order."""
MOST_BRANCHES = 2000
LIVE = frozenset({State.LEASED, State.FIRING})
LONGEST_TRANSACTION = timedelta(minutes=5)
"""Between a conversion's instant of receipt and the commit of its postbacks: a statement is ended after one minute."""
LOWEST, HIGHEST = 0, 2**63 - 1
_BETWEEN = "id > :floor AND {0}id < :ceiling ORDER BY {0}id {{direction}} LIMIT :each"


@dataclass(frozen=True, slots=True)
class Source:
    """``sql`` has a place for the ``direction`` and binds ``floor`` and ``ceiling``, both excluded, and ``each``."""

    sql: str
    values: dict[str, Any] = field(default_factory=dict)
    branches: int = 1

    def read(
        self, connection: Connection, floor: int, ceiling: int, each: int, *, down: bool
    ) -> tuple[list[int], bool]:
        """The next ids in order, and whether these were all.

        Where a branch was cut, what the others have beyond its last id waits: it could have more before that.
        """
        values = self.values | {"floor": floor, "ceiling": ceiling, "each": each}
        rows = run(connection, self.sql.format(direction="DESC" if down else ""), values)
        ends: dict[int, list[int]] = {}
        for row in rows:
            ends.setdefault(row.branch, []).append(row.id)
        cut = [(min(ids) if down else max(ids)) for ids in ends.values() if len(ids) >= each]
        ids = sorted({row.id for row in rows}, reverse=down)
        if not cut:
            return ids, True
        nearest = max(cut) if down else min(cut)
        return [number for number in ids if (number >= nearest if down else number <= nearest)], False


@dataclass(frozen=True, slots=True)
class Reach:
    """The ids that a range of time can have, all ends excluded.

    Postbacks above ``turn`` are of that range only if they were made afterwards.
    """

    floor: int = LOWEST
    turn: int = HIGHEST
    conversions: tuple[int, int] = (LOWEST, HIGHEST)


def reach(connection: Connection, since: datetime | None, until: datetime | None) -> Reach:
    """Ids are given out in the order of time, but for the length of a transaction, and indexes find their ends."""
    found = Reach()
    if since is not None:
        before = _one(
            connection,
            "SELECT id FROM conversions WHERE received_at < :at ORDER BY received_at DESC LIMIT 1",
            at=since - 2 * LONGEST_TRANSACTION,
        )
        if before is not None:
            made = _one(
                connection,
                """SELECT id FROM postbacks WHERE conversion_id <= :id AND NOT afterwards
                    ORDER BY conversion_id DESC, id DESC LIMIT 1""",
                id=before,
            )
            found = replace(found, floor=made or LOWEST, conversions=(before, HIGHEST))
    if until is not None:
        after = _one(
            connection,
            "SELECT id FROM conversions WHERE received_at >= :at ORDER BY received_at LIMIT 1",
            at=until + 2 * LONGEST_TRANSACTION,
        )
        if after is not None:
            made = _one(
                connection,
                """SELECT id FROM postbacks WHERE conversion_id >= :id AND NOT afterwards
                    ORDER BY conversion_id, id LIMIT 1""",
                id=after,
            )
            found = replace(found, turn=made or HIGHEST, conversions=(found.conversions[0], after))
    return found


def points(criteria: Criteria) -> Source | None:
    """The postbacks of what was named by an id: these are always few enough to be the way in."""
    if criteria.postback_id is not None:
        return Source(
            "SELECT 1 AS branch, id FROM postbacks WHERE id = :postback_id AND " + _BETWEEN.format(""),  # noqa: S608 — fixed fragments
            {"postback_id": criteria.postback_id},
        )
    values = bound(criteria)
    for name in ("conversion_id", "event_id", "order_id", "click_id", "named"):
        if values[name] is not None:
            return Source(
                f"""SELECT 1 AS branch, p.id FROM postbacks p
                WHERE p.conversion_id = ANY(ARRAY({POINTS[name]})) AND p.{_BETWEEN.format("p.")}""",  # noqa: S608 — fixed fragments
                {name: values[name]},
            )
    return None


def ordered(connection: Connection, criteria: Criteria) -> Iterator[Source]:
    """Sources for the other criteria. Each gives every postback for which its criterion can hold."""
    values = bound(criteria)
    if criteria.error is not None:
        yield Source(
            f"""SELECT * FROM (SELECT 1 AS branch, a.postback_id AS id FROM attempts a
                WHERE lower(a.error_class) = lower(:error) AND a.error_class IS NOT NULL AND {_attempts()}) named
            UNION ALL SELECT * FROM (SELECT 2 AS branch, a.postback_id AS id FROM attempts a
                WHERE split_part(a.rule, ' ', 1) = :failure AND a.error_class IS NOT NULL AND {_attempts()}) failed""",  # noqa: S608 — fixed fragments
            {"error": values["error"], "failure": values["failure"]},
        )
    if criteria.verdict is not None and criteria.verdict != "delivered":
        yield Source(
            f"""SELECT 1 AS branch, a.postback_id AS id FROM attempts a
            WHERE a.verdict = '{criteria.verdict.value}' AND {_attempts()}"""  # noqa: S608 — a word of ours
        )
    if criteria.status_codes is not None and (codes := _troubled(criteria.status_codes)):
        yield Source(
            f"""SELECT s.code AS branch, x.id FROM generate_series(:lowest, :highest) AS s(code), LATERAL (
                SELECT a.postback_id AS id FROM attempts a
                WHERE a.status_code = CAST(s.code AS smallint) AND (a.status_code < 200 OR a.status_code > 299)
                    AND {_attempts()}) x""",  # noqa: S608 — fixed fragments
            {"lowest": codes.start, "highest": codes.stop - 1},
            len(codes),
        )
    if criteria.lost:
        yield _partial("lost_at IS NOT NULL")
    if criteria.adjustments:
        yield _partial("adjustment IS NOT NULL")
    if criteria.matched:
        yield Source(
            """SELECT 1 AS branch, postback_id AS id FROM reconciled
            WHERE postback_id > :floor AND postback_id < :ceiling ORDER BY postback_id {direction} LIMIT :each"""
        )
    if criteria.states or criteria.destination is not None or criteria.network is not None:
        filed = _filed(connection, criteria)
        if filed is not None:
            yield filed


def _attempts() -> str:
    return (
        "a.postback_id > :floor AND a.postback_id < :ceiling ORDER BY a.postback_id {direction} LIMIT :each"
    )


def _partial(condition: str) -> Source:
    return Source(f"SELECT 1 AS branch, id FROM postbacks WHERE {condition} AND " + _BETWEEN.format(""))  # noqa: S608 — a condition of ours


def late(reached: Reach) -> Source:
    """What was made afterwards of the conversions of a range."""
    above, below = reached.conversions
    return Source(
        f"""SELECT 1 AS branch, id FROM postbacks
        WHERE afterwards AND conversion_id > :above AND conversion_id < :below AND {_BETWEEN.format("")}""",  # noqa: S608 — fixed fragments
        {"above": above, "below": below},
    )


def _filed(connection: Connection, criteria: Criteria) -> Source | None:
    """By destination version and state; what is leased or on the wire stands apart."""
    query = """SELECT id FROM destination_versions
        WHERE destination = coalesce(:destination, destination)
            AND contract->'network'->>'slug' = coalesce(:network, contract->'network'->>'slug')"""
    versions = [row.id for row in run(connection, query, bound(criteria))]
    states = criteria.states or tuple(State)
    pairs = [(version, state) for version in versions for state in states if state not in LIVE]
    if len(pairs) > MOST_BRANCHES:
        return None
    sql = f"""SELECT b.place AS branch, x.id
        FROM unnest(CAST(:versions AS integer[]), CAST(:filed AS text[])) WITH ORDINALITY AS b(version_id, filed, place),
        LATERAL (SELECT f.id FROM postbacks f WHERE f.version_id = b.version_id AND f.filed = b.filed
            AND f.filed IS NOT NULL AND f.{_BETWEEN.format("f.")}) x"""  # noqa: S608 — fixed fragments
    if LIVE & set(states) and versions:
        sql += f"""
        UNION ALL SELECT * FROM (SELECT 0 AS branch, id FROM postbacks
            WHERE filed IS NULL AND {_BETWEEN.format("")}) live"""  # noqa: S608 — fixed fragments
    values = {"versions": [version for version, _ in pairs], "filed": [state.value for _, state in pairs]}
    return Source(sql, values, len(pairs) + 1)


def _troubled(span: tuple[int, int]) -> range | None:
    """The codes of the span, if an attempt's own says everything: not for 2xx, which are most, nor for redirects."""
    lowest, highest = span
    return None if lowest < 400 and highest > 199 else range(lowest, highest + 1)


def few(connection: Connection, criteria: Criteria, reached: Reach) -> Iterator[list[int]]:
    """Ids for criteria that are not in the order of postbacks: all of them, where they are few, or nothing."""
    values = bound(criteria) | {"most": FEW + 1}
    values["above_id"], values["below_id"] = reached.conversions
    conversions = []
    if criteria.value is not None or criteria.above is not None or criteria.below is not None:
        low = "k.value >= :lowest_value" if values["lowest_value"] is not None else "true"
        high = "k.value <= :highest_value" if values["highest_value"] is not None else "true"
        above = "k.value > :above" if criteria.above is not None else "true"
        below = "k.value < :below" if criteria.below is not None else "true"
        conversions.append(f"k.value IS NOT NULL AND {low} AND {high} AND {above} AND {below}")
    if criteria.source is not None:
        conversions.append("k.source = :source")
    for condition in conversions:
        query = f"""SELECT k.id FROM conversions k
            WHERE {condition} AND k.id > :above_id AND k.id < :below_id LIMIT :most"""  # noqa: S608 — fixed fragments
        named = [row.id for row in run(connection, query, values)]
        if len(named) <= FEW:
            query = "SELECT id FROM postbacks WHERE conversion_id = ANY(:ids)"
            yield [row.id for row in run(connection, query, {"ids": named})]
    lowest, highest = criteria.status_codes or (0, 0)
    if lowest >= 300 and highest <= 399:
        # A code that was followed stands in a hop alone.
        query = """SELECT attempt_id, intent_at FROM hops
            WHERE status_code BETWEEN :lowest AND :highest AND status_code BETWEEN 300 AND 399 LIMIT :most"""
        hops = run(connection, query, values)
        if len(hops) <= FEW:
            query = """SELECT DISTINCT a.postback_id AS id
                FROM unnest(CAST(:ids AS bigint[]), CAST(:instants AS timestamptz[])) AS h(attempt_id, intent_at)
                    JOIN attempts a ON a.id = h.attempt_id AND a.intent_at = h.intent_at"""
            pairs = {"ids": [row.attempt_id for row in hops], "instants": [row.intent_at for row in hops]}
            yield [row.id for row in run(connection, query, pairs)]


_APART = re.compile(r"[^\w.:+~|-]+")
_SHORTEST_ID, _MOST_IDS = 4, 6


def named_in(connection: Connection, words: str) -> tuple[int, ...]:
    """Postbacks of conversions that a text, or a part of it, is the id of: an order in a query string, a click id."""
    parts = sorted({part for part in _APART.split(words) if len(part) >= _SHORTEST_ID}, key=len, reverse=True)
    found: set[int] = set()
    for name in [words, *(part for part in parts if part != words)][:_MOST_IDS]:
        query = f"SELECT id FROM postbacks WHERE conversion_id = ANY(ARRAY({POINTS['named']})) LIMIT :most"  # noqa: S608 — fixed fragments
        found.update(row.id for row in run(connection, query, {"named": name, "most": FEW + 1}))
    return tuple(sorted(found)) if len(found) <= FEW else ()


def _one(connection: Connection, query: str, **values: Any) -> int | None:
    rows = run(connection, query, values)
    return rows[0].id if rows else None
