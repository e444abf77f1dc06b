"""Clicks that come after their conversion: what had no click id for a network is routed again while its window is open.

A conversion looks for its click when it is taken in. One that committed just then may have missed the click: so each
click waits until it was held, under intake's lock, against the conversions that were there by then.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from infra.db.engine import as_json
from infra.store import matching, standings
from infra.store.clicks import indexed
from infra.store.destinations import Destinations
from infra.store.intake import hold, serialise
from infra.store.transactions import retried
from schemas.click import KEYS, Match, Matches, read_matches, wire_matches
from schemas.conversion import PlannedPostback, attributed, refusals, route, still_open
from schemas.destination import DestinationVersion
from schemas.event import ConversionEvent, read_stored

PER_PASS = 500
"""Clicks in one transaction; intake waits while they are held against conversions."""


@dataclass(frozen=True, slots=True)
class Rerouted:
    """What a pass came to: clicks looked at, conversions they were found for, postbacks that these got."""

    clicks: int = 0
    conversions: int = 0
    postbacks: int = 0
    voided: int = 0


@dataclass(frozen=True, slots=True)
class _Again:
    """A conversion that destinations now take, all matches it has, and those that are new."""

    row: Row[Any]
    event: ConversionEvent
    matches: Matches
    new: Matches
    plans: list[PlannedPostback]


_SOME_WAIT = text("SELECT EXISTS (SELECT FROM clicks_waiting)")
_TAKE = text("""
    DELETE FROM clicks_waiting
    WHERE click_id = ANY(ARRAY(SELECT click_id FROM clicks_waiting ORDER BY click_id LIMIT :limit)) RETURNING click_id""")

# A click after the conversion never led to it. One branch a key, so that each is an index's own.
_BRANCH = """
    SELECT c.id FROM conversions c WHERE c.{key} = ANY(ARRAY(SELECT {key} FROM k)) AND c.occurred_at >= :since
        AND EXISTS (SELECT FROM k WHERE k.{key} = c.{key} AND k.clicked_at <= c.occurred_at)"""
_BRANCHES = "\n    UNION".join(_BRANCH.format(key=key) for key in KEYS)
LATE = text(f"WITH k AS MATERIALIZED (SELECT * FROM clicks WHERE id = ANY(:clicks)) {_BRANCHES}")  # noqa: S608 — names of ours
READ = text("""
    SELECT c.id, c.event::text AS event, c.received_at, c.matched, ARRAY(
        SELECT v.destination FROM postbacks p JOIN destination_versions v ON v.id = p.version_id
        WHERE p.conversion_id = c.id) AS destinations
    FROM conversions c WHERE c.id = ANY(:ids) ORDER BY c.id""")


def route_again(engine: Engine, destinations: Destinations, *, limit: int = PER_PASS) -> Rerouted:
    """Hold the clicks that wait against the conversions that came before them, ``limit`` at most.

    Any number of processes may ask at once; they go one after the other, and each click is taken once.
    """
    with engine.connect() as connection:
        if not connection.execute(_SOME_WAIT).scalar_one():
            return Rerouted()
    versions = destinations.current()
    return retried(engine, lambda connection: _route_again(connection, destinations, versions, limit))


def _route_again(
    connection: Connection, destinations: Destinations, versions: list[DestinationVersion], limit: int
) -> Rerouted:
    now = serialise(connection, exclusive=True)
    clicks = list(connection.execute(_TAKE, {"limit": limit}).scalars())
    since = now - max((_reach(version) for version in versions), default=timedelta(0))
    ids = list(connection.execute(LATE, {"clicks": clicks, "since": since}).scalars())
    again = _look(connection, ids, versions, now)
    held = hold(connection, [(each.row.id, plan) for each in again for plan in each.plans], afterwards=True)
    _keep(connection, again, versions)
    matching.record(
        connection, [matching.Found(each.row.id, each.event, each.new) for each in again], versions, now
    )
    voided = standings.apply(
        connection, destinations, now, [each.event for each in again], [], among=frozenset(held)
    )
    return Rerouted(len(clicks), len(again), len(held), voided)


def _reach(version: DestinationVersion) -> timedelta:
    """How long ago a conversion can have been, at most, that the destination still takes."""
    limit = version.contract.network.age_limit
    return version.contract.destination.register_horizon if limit is None else limit.wait


def _look(
    connection: Connection, ids: list[int], versions: list[DestinationVersion], now: datetime
) -> list[_Again]:
    """Which of these conversions now have a click id for a destination that lacked it, and may still be reported."""
    rows = connection.execute(READ, {"ids": ids}).all() if ids else []
    events: dict[int, ConversionEvent] = {}
    for row in rows:
        event = read_stored(row.event)
        assert isinstance(event, ConversionEvent)
        events[row.id] = event
    known = {row.id: read_matches(row.matched) for row in rows}
    lookups = {number: attributed(event, known[number]) for number, event in events.items()}
    found = matching.find(connection, lookups, versions)
    again = []
    for row in rows:
        event, new = events[row.id], dict[str, Match]()
        left = [version for version in versions if version.contract.name not in row.destinations]
        for version in left:
            match = found.get(row.id, {}).get(version.contract.name)
            if match is not None and still_open(version.contract, event, match.clicked_at, now):
                new[version.contract.name] = match
        matches = known[row.id] | new
        takers = [version for version in left if version.contract.name in new]
        plans = route(event, takers, row.received_at, matches, now=now)
        if plans:
            again.append(_Again(row, event, matches, new, plans))
    return again


def _keep(connection: Connection, again: list[_Again], versions: list[DestinationVersion]) -> None:
    rows = [
        {
            "id": each.row.id,
            "routed": len(each.plans),
            "matched": wire_matches(each.matches),
            "tokens": sorted({match.token for match in each.new.values()}),
            "refusals": refusals(attributed(each.event, each.matches), versions) or None,
        }
        for each in again
    ]
    if rows:
        connection.execute(
            text(f"""
            UPDATE conversions c SET routed = c.routed + r.routed, unrouted_reason = NULL, matched = r.matched,
                refusals = r.refusals,
                click_ids = c.click_ids || ARRAY(SELECT {indexed("t")} FROM json_array_elements_text(r.tokens) t)
            FROM json_to_recordset(:rows) AS r(id bigint, routed smallint, matched jsonb, tokens json, refusals json)
            WHERE c.id = r.id"""),  # noqa: S608 — literals of ours
            {"rows": as_json(rows)},
        )
