"""What an erasure reaches: the conversions it is about, and by which identifiers they are known, alone or with others."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, text

from infra.db.engine import as_json
from infra.store.clicks import indexed
from schemas.click import read_matches
from schemas.erasing import Kind, Traces, event_value
from schemas.event import ConversionEvent, read_stored

SUBJECTS: dict[str, str] = {
    "order": "order_id = :value",
    "click": f"click_ids @> ARRAY[{indexed('CAST(:value AS text)')}]",
    "lead": "lead_id = :value",
    "customer": "customer_id = :value",
}
"""What a person may ask by, and which conversions that means."""


@dataclass(slots=True)
class Reach:
    """Everything that is to be erased, as it stands now."""

    kind: Kind
    value: str
    conversions: list[int] = field(default_factory=list)
    events: dict[int, tuple[str, str]] = field(default_factory=dict)
    """``(source, event id)`` of each conversion."""
    postbacks: list[int] = field(default_factory=list)
    states: dict[str, int] = field(default_factory=dict)
    signals: list[int] = field(default_factory=list)
    signal_events: list[tuple[str, str]] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    """Attempts and checks in the tables."""
    clicks: list[int] = field(default_factory=list)
    names: dict[Kind, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Identifiers that only these conversions have."""
    shared: dict[Kind, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Identifiers that others have as well: they go from what is erased, and stay where the others are."""
    replaying: int = 0
    """Postbacks that a run is firing again."""

    @property
    def traces(self) -> Traces:
        """What must not be readable anywhere afterwards."""
        words = {value for values in self.names.values() for value in values}
        words |= {event_id for _, event_id in [*self.events.values(), *self.signal_events]}
        return Traces(words)


def find(connection: Connection, kind: Kind, value: str) -> Reach:
    """What is known by an identifier. What was erased before is not known by any."""
    reach = Reach(kind, value)
    rows = connection.execute(
        text(f"""
        SELECT id, source, event_id, order_id, lead_id, customer_id, device_id, matched, event::text AS event
        FROM conversions WHERE erasure_id IS NULL AND {SUBJECTS[kind]} ORDER BY id"""),  # noqa: S608 — one of SUBJECTS
        {"value": value},
    ).all()
    reach.conversions = [row.id for row in rows]
    reach.events = {row.id: (row.source, row.event_id) for row in rows}
    had = _identifiers(rows)
    had[kind].add(value)
    for each, values in had.items():
        others = _others(connection, each, values, reach.conversions)
        reach.shared[each] |= values & others
        reach.names[each] |= values - others
    reach.names[kind].add(value)
    reach.shared[kind].discard(value)
    _postbacks(connection, reach)
    _signals(connection, reach)
    _clicks(connection, reach)
    return reach


def _identifiers(rows: Any) -> dict[Kind, set[str]]:
    had: dict[Kind, set[str]] = defaultdict(set)
    fields: tuple[tuple[Kind, str], ...] = (
        ("order", "order_id"), ("lead", "lead_id"), ("customer", "customer_id"), ("device", "device_id"),
    )  # fmt: skip
    for row in rows:
        for each, column in fields:
            if getattr(row, column) is not None:
                had[each].add(getattr(row, column))
        event = read_stored(row.event)
        assert isinstance(event, ConversionEvent)
        had["click"] |= {
            *event.click_ids.values(),
            *(match.token for match in read_matches(row.matched).values()),
        }
    return had


_OTHERS = {
    "order": "SELECT order_id FROM conversions WHERE order_id = ANY(:values) AND id <> ALL(:ids)",
    "lead": "SELECT lead_id FROM conversions WHERE lead_id = ANY(:values) AND id <> ALL(:ids)",
    "customer": "SELECT customer_id FROM conversions WHERE customer_id = ANY(:values) AND id <> ALL(:ids)",
    "device": "SELECT device_id FROM conversions WHERE device_id = ANY(:values) AND id <> ALL(:ids)",
    # Literals of ours alone.
    "click": f"SELECT v.token FROM json_array_elements_text(:tokens) v(token) WHERE EXISTS (SELECT FROM conversions c WHERE c.click_ids @> ARRAY[{indexed('v.token')}] AND c.id <> ALL(:ids))",  # noqa: S608 — literals of ours
}


def _others(connection: Connection, kind: Kind, values: set[str], ids: list[int]) -> set[str]:
    if not values:
        return set()
    query = text(_OTHERS[kind])
    given = {"values": list(values), "tokens": as_json(list(values)), "ids": ids}
    asked = {name: given[name] for name in query.compile().params}
    return set(connection.execute(query, asked).scalars())


def _postbacks(connection: Connection, reach: Reach) -> None:
    rows: list[Row[Any]] = list(
        connection.execute(
            text(
                """SELECT id, state, attempt_id, falls_back FROM postbacks WHERE conversion_id = ANY(:ids) ORDER BY id"""
            ),
            {"ids": reach.conversions},
        )
    )
    reach.postbacks = [row.id for row in rows]
    for row in rows:
        reach.states[row.state] = reach.states.get(row.state, 0) + 1
    reach.replaying = sum(row.falls_back is not None for row in rows)
    found = connection.execute(
        text("""
        SELECT id FROM attempts WHERE postback_id = ANY(:ids)
        UNION SELECT id FROM checks WHERE postback_id = ANY(:ids)"""),
        {"ids": reach.postbacks},
    ).scalars()
    reach.attempts = sorted({*found, *(row.attempt_id for row in rows if row.attempt_id is not None)})


def _signals(connection: Connection, reach: Reach) -> None:
    rows = connection.execute(
        text("""
        SELECT id, source, event_id FROM signals WHERE erasure_id IS NULL AND (
            conversion_event_id = ANY(ARRAY(SELECT json_array_elements_text(:events)))
            OR (order_id = ANY(ARRAY(SELECT json_array_elements_text(:orders))))) ORDER BY id"""),
        {
            "events": as_json(sorted({event_id for _, event_id in reach.events.values()})),
            "orders": as_json(sorted(reach.names["order"])),
        },
    ).all()
    reach.signals = [row.id for row in rows]
    reach.signal_events = [(row.source, row.event_id) for row in rows]


def _clicks(connection: Connection, reach: Reach) -> None:
    given = {
        kind: as_json(sorted(reach.names[kind])) for kind in ("order", "lead", "customer", "device", "click")
    }
    rows = connection.execute(
        text("""
        SELECT id FROM clicks WHERE order_id = ANY(ARRAY(SELECT json_array_elements_text(:order)))
        UNION SELECT id FROM clicks WHERE lead_id = ANY(ARRAY(SELECT json_array_elements_text(:lead)))
        UNION SELECT id FROM clicks WHERE customer_id = ANY(ARRAY(SELECT json_array_elements_text(:customer)))
        UNION SELECT id FROM clicks WHERE device_id = ANY(ARRAY(SELECT json_array_elements_text(:device)))
        UNION SELECT id FROM clicks WHERE EXISTS (
            SELECT FROM json_each_text(click_ids) t WHERE t.value = ANY(ARRAY(SELECT json_array_elements_text(:click))))"""),
        given,
    ).scalars()
    reach.clicks = sorted(rows)


def tombstones_of(reach: Reach, *, never_again: bool) -> set[tuple[Kind, str]]:
    """What is not to come back: the events, their orders and click ids; the person's own keys only where that is asked."""
    found: set[tuple[Kind, str]] = set()
    for source, event_id in [*reach.events.values(), *reach.signal_events]:
        found |= {("event", event_value(source, event_id)), ("event_id", event_id)}
    sealed: tuple[Kind, ...] = (
        ("order", "click", "lead", "customer", "device") if never_again else ("order", "click")
    )
    return found | {(kind, value) for kind in sealed for value in reach.names[kind]}
