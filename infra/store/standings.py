"""Bringing postbacks in line with what the signals about their conversions come to, in bulk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from sqlalchemy import Connection, Row, text

from infra.db.engine import as_json
from schemas.event import ConversionEvent, Signal, read_stored
from schemas.hold import HoldPolicy
from schemas.lifecycle import State
from schemas.signals import Standing, VoidReason, standing

VOIDABLE_SQL = "('held', 'leased', 'retrying')"
"""``schemas.lifecycle.VOIDABLE`` as literals, so that plans can use it; a test holds the two together."""


@dataclass(frozen=True, slots=True)
class _Conversion:
    id: int
    event_id: str
    order_id: str | None
    value: Decimal | None
    net_value: Decimal | None
    currency: str | None


@dataclass(frozen=True, slots=True)
class _Received:
    id: int
    status: str
    event: Signal

    def names(self, conversion: _Conversion) -> bool:
        if self.event.conversion_event_id is not None:
            return self.event.conversion_event_id == conversion.event_id
        return self.event.order_id == conversion.order_id


def void(result: Standing) -> VoidReason | None:
    return HoldPolicy().void_reason(result.outcomes)


@dataclass(slots=True)
class _Done:
    """What a change of its standing met among the postbacks of one conversion."""

    voided: list[int] = field(default_factory=list)
    wished: list[int] = field(default_factory=list)
    """On the wire just now."""
    late: list[int] = field(default_factory=list)

    def outcome(self, result: Standing, signal: Signal) -> tuple[bool, str]:
        """Whether the signal changed anything, and in words."""
        if note := result.notes.get(signal.event_id):
            return False, note
        if void(result) is None:
            parts = [f"net value is now {result.net_value}"]
            if self.wished:
                parts.append(f"{_names(self.wished)} was on the wire with the value before")
            if self.late:
                parts.append(f"late: {_names(self.late)} had been delivered with the value before")
            return True, "; ".join(parts)
        parts = []
        if self.voided:
            parts.append(f"voided {_names(self.voided)} as {void(result)}")
        if self.wished:
            parts += [_wish(number) for number in self.wished]
        if self.late:
            parts.append(f"late: {_names(self.late)} had been delivered")
        return bool(self.voided or self.wished), "; ".join(
            parts
        ) or f"{void(result)}: nothing was left to void"


def apply(connection: Connection, conversions: Sequence[ConversionEvent], signals: Sequence[Signal]) -> int:
    """Apply new signals to their conversions, and signals that came first to new conversions.

    Runs inside intake's transaction. Returns the number of postbacks voided.
    """
    early = _signals_about(connection, (c.order_id for c in conversions), (c.event_id for c in conversions))
    targets = [*signals, *(received.event for received in early)]
    if not targets:
        return 0
    named = _conversions_named(connection, targets)
    received = _signals_about(connection, (c.order_id for c in named), (c.event_id for c in named))
    results = {c: standing(c.value, c.currency, [s.event for s in received if s.names(c)]) for c in named}
    changed = [c.id for c, r in results.items() if void(r) is not None or r.net_value != c.net_value]
    locked = _lock_postbacks(connection, changed)
    _set_net_values(connection, results)
    reasons = {c.id: reason for c, result in results.items() if (reason := void(result)) is not None}
    done = _sort_out(locked, _void(connection, reasons))
    _record(connection, received, results, done)
    return sum(len(each.voided) for each in done.values())


def _signals_about(
    connection: Connection, orders: Iterable[str | None], events: Iterable[str]
) -> list[_Received]:
    rows = connection.execute(
        text("""
        SELECT id, status, event::text AS event FROM signals
        WHERE order_id = ANY(ARRAY(SELECT json_array_elements_text(:orders))) AND conversion_event_id IS NULL
        UNION ALL
        SELECT id, status, event::text FROM signals
        WHERE conversion_event_id = ANY(ARRAY(SELECT json_array_elements_text(:events)))
        ORDER BY id"""),
        {
            "orders": as_json(sorted({order for order in orders if order})),
            "events": as_json(sorted(set(events))),
        },
    )
    received = []
    for row in rows:
        event = read_stored(row.event)
        assert not isinstance(event, ConversionEvent)
        received.append(_Received(row.id, row.status, event))
    return received


def _conversions_named(connection: Connection, signals: Iterable[Signal]) -> list[_Conversion]:
    by_event = {s.conversion_event_id for s in signals if s.conversion_event_id is not None}
    by_order = {s.order_id for s in signals if s.order_id is not None and s.conversion_event_id is None}
    rows = connection.execute(
        text("""
        SELECT id, event_id, order_id, value, net_value, currency FROM conversions
        WHERE order_id = ANY(ARRAY(SELECT json_array_elements_text(:orders)))
        UNION
        SELECT id, event_id, order_id, value, net_value, currency FROM conversions
        WHERE event_id = ANY(ARRAY(SELECT json_array_elements_text(:events)))
        ORDER BY id"""),
        {"orders": as_json(sorted(by_order)), "events": as_json(sorted(by_event))},
    )
    return [_Conversion(*row) for row in rows]


def _set_net_values(connection: Connection, results: dict[_Conversion, Standing]) -> None:
    rows = [{"id": c.id, "net": str(r.net_value)} for c, r in results.items() if r.net_value != c.net_value]
    if rows:
        connection.execute(
            text("""
            UPDATE conversions c SET net_value = r.net
            FROM json_to_recordset(:rows) AS r(id bigint, net numeric) WHERE c.id = r.id"""),
            {"rows": as_json(rows)},
        )


def _lock_postbacks(connection: Connection, conversion_ids: list[int]) -> Sequence[Row[tuple[int, int, str]]]:
    """Their postbacks, locked in id order, as the fire gate locks them.

    Of a signal and the gate one goes first, and the other sees what it did: a void, or the value that is left.
    """
    if not conversion_ids:
        return []
    query = text(
        "SELECT id, conversion_id, state FROM postbacks WHERE conversion_id = ANY(:ids) ORDER BY id FOR UPDATE"
    )
    return connection.execute(query, {"ids": conversion_ids}).all()


def _sort_out(locked: Sequence[Row[tuple[int, int, str]]], voided: set[int]) -> dict[int, _Done]:
    done: dict[int, _Done] = defaultdict(_Done)
    for row in locked:
        if row.id in voided:
            done[row.conversion_id].voided.append(row.id)
        elif row.state == "firing":
            done[row.conversion_id].wished.append(row.id)
        elif row.state == "delivered":
            done[row.conversion_id].late.append(row.id)
    return done


def _void(connection: Connection, reasons: dict[int, VoidReason]) -> set[int]:
    """Void what has not been fired, locked before; the ids of what was voided."""
    if not reasons:
        return set()
    rows = as_json([{"id": number, "reason": reason} for number, reason in reasons.items()])
    voided = set(
        connection.execute(
            text(f"""
            UPDATE postbacks p SET state = 'voided', void_reason = r.reason, reason = r.reason, due_at = NULL,
                lease_token = NULL, settled_at = clock_timestamp()
            FROM json_to_recordset(:rows) AS r(id bigint, reason text)
            WHERE p.conversion_id = r.id AND p.state IN {VOIDABLE_SQL} RETURNING p.id"""),  # noqa: S608 — literals of ours
            {"rows": rows},
        ).scalars()
    )
    # What is on the wire cannot be voided, but makes no further attempt; a duplicate can no longer be promoted.
    connection.execute(
        text("""
        UPDATE postbacks p SET void_reason = r.reason
        FROM json_to_recordset(:rows) AS r(id bigint, reason text)
        WHERE p.conversion_id = r.id AND p.state IN ('firing', 'duplicate') AND p.void_reason IS NULL"""),
        {"rows": rows},
    )
    promote_duplicates(connection, sorted(voided))
    return voided


def record_wishes(connection: Connection, settled: dict[int, State]) -> None:
    """Say in the signals that came while these postbacks were on the wire what became of them."""
    if not settled:
        return
    signals = connection.execute(
        text("""
        SELECT id, outcome FROM signals WHERE id = ANY(ARRAY(
            SELECT s.id FROM postbacks p JOIN conversions c ON c.id = p.conversion_id
                JOIN signals s ON s.order_id = c.order_id OR s.conversion_event_id = c.event_id
            WHERE p.id = ANY(:ids))) ORDER BY id FOR UPDATE"""),
        {"ids": list(settled)},
    ).all()
    rows = []
    for signal in signals:  # one signal may have met several of them
        outcome = signal.outcome
        for number, state in settled.items():
            outcome = outcome.replace(_wish(number), _answer_to_wish(number, state))
        rows.append({"id": signal.id, "outcome": outcome})
    connection.execute(
        text("""
        UPDATE signals s SET outcome = r.outcome
        FROM json_to_recordset(:rows) AS r(id bigint, outcome text) WHERE s.id = r.id"""),
        {"rows": as_json(rows)},
    )


def _wish(number: int) -> str:
    return f"pb_{number} was on the wire, no further attempt will be made"


def _answer_to_wish(number: int, state: State) -> str:
    if state is State.DELIVERED:
        return f"late: pb_{number} was on the wire and was delivered"
    return f"pb_{number} was on the wire and is {state}, no further attempt is made"


def promote_duplicates(connection: Connection, ended: list[int]) -> None:
    """A duplicate of a postback that will not fire any more is no duplicate: the earliest one takes its place.

    ``ended`` were voided or expired. A duplicate whose own conversion is void stays what it is: they are locked
    before one is chosen, for a signal about one of them may be committing just now.
    """
    if not ended:
        return
    duplicates = connection.execute(
        text("""
        SELECT id, duplicate_of, void_reason FROM postbacks
        WHERE duplicate_of = ANY(:ended) AND state = 'duplicate' ORDER BY id FOR UPDATE"""),
        {"ended": ended},
    )
    heirs: dict[int, int] = {}
    for row in duplicates:
        if row.void_reason is None:
            heirs.setdefault(row.duplicate_of, row.id)
    if not heirs:
        return
    connection.execute(
        text("""
        WITH heir AS (SELECT * FROM json_to_recordset(:heirs) AS heir(id bigint, duplicate_of bigint)),
        moved AS (UPDATE dedupe_keys d SET postback_id = heir.id FROM heir WHERE d.postback_id = heir.duplicate_of),
        others AS (
            UPDATE postbacks p SET duplicate_of = heir.id,
                reason = 'the network would take it for pb_' || heir.id || ' again'
            FROM heir WHERE p.duplicate_of = heir.duplicate_of AND p.id <> heir.id AND p.state = 'duplicate')
        UPDATE postbacks p SET state = 'held', duplicate_of = NULL, settled_at = NULL,
            due_at = CASE WHEN p.manual THEN 'infinity' ELSE p.release_at END,
            reason = 'took the place of pb_' || heir.duplicate_of || ', which never fires'
        FROM heir WHERE p.id = heir.id"""),
        {"heirs": as_json([{"id": heir, "duplicate_of": first} for first, heir in heirs.items()])},
    )


def _record(
    connection: Connection,
    received: list[_Received],
    results: dict[_Conversion, Standing],
    done: dict[int, _Done],
) -> None:
    """Write down, once, what each signal came to. A signal that nothing answers to goes on waiting."""
    rows = []
    for signal in (signal for signal in received if signal.status == "waiting"):
        outcomes = [
            (c.id, *done[c.id].outcome(result, signal.event))
            for c, result in results.items()
            if signal.names(c)
        ]
        rows.append(
            {
                "id": signal.id,
                "status": "applied" if any(applied for _, applied, _ in outcomes) else "noted",
                "outcome": "; ".join(f"cv_{number}: {words}" for number, _, words in outcomes),
            }
        )
    if rows:
        connection.execute(
            text("""
            UPDATE signals s SET status = r.status, outcome = r.outcome
            FROM json_to_recordset(:rows) AS r(id bigint, status text, outcome text) WHERE s.id = r.id"""),
            {"rows": as_json(rows)},
        )


def _names(ids: list[int]) -> str:
    return ", ".join(f"pb_{number}" for number in ids)
