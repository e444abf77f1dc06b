"""Committing a message of events: one transaction, idempotent on ``(source, event_id)``, in bulk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson
from sqlalchemy import Connection, Engine, text

from infra.db.engine import as_json
from infra.store import matching, outbox, standings
from infra.store.clicks import indexed
from infra.store.dedupe import claim_keys
from infra.store.destinations import Destinations
from infra.store.keeping import tombstones
from infra.store.transactions import retried
from schemas.click import Matches, wire_matches
from schemas.conversion import PlannedPostback, attributed, refusals, route, why_unrouted
from schemas.destination import DestinationVersion
from schemas.erasing import ERASED_EVENT, STUB
from schemas.event import ConversionEvent, Event, Signal
from schemas.lifecycle import State
from schemas.problem import Problem

Key = tuple[str, str]
"""``(source, event_id)``."""


@dataclass(frozen=True, slots=True)
class Taken:
    """An event that passed validation, with what came verbatim."""

    event: Event
    raw: object

    @property
    def key(self) -> Key:
        return self.event.source, self.event.event_id


@dataclass(frozen=True, slots=True)
class Refused:
    """What could not be taken, verbatim, and why."""

    raw: object
    problems: list[Problem]


@dataclass(frozen=True, slots=True)
class IntakeResult:
    """How the events of one message were split; the four add up to the message's length."""

    conversions: int
    signals: int
    duplicates: int
    rejected: int
    postbacks: int = 0
    voided: int = 0


# Conversions share this lock, messages with signals hold it alone: of a signal and its conversion that commit at
# the same time, the later one then sees the earlier, so a refund can never slip past its conversion unseen. Clicks that
# are held against earlier conversions hold it alone for the same reason.
SIGNALS_LOCK = 0x5369676E  # "Sign"


def commit_message(  # noqa: PLR0913 — what came, in which message, and by what it is routed
    engine: Engine,
    message_id: str,
    taken: Sequence[Taken],
    refused: Sequence[Refused],
    destinations: Destinations,
    *,
    whole: bool = True,
) -> IntakeResult:
    """Commit all that one queue message carried, or nothing. Running it again changes nothing but the count.

    ``whole``: there is nothing more of the message to come, so that the outbox need not keep it.
    """
    versions = destinations.current()
    signalling = any(not isinstance(item.event, ConversionEvent) for item in taken)

    def run(connection: Connection) -> IntakeResult:
        received_at, tombs = begin(connection, exclusive=signalling)
        passed, refusals = list(taken), list(refused)
        if tombs:
            passed, refusals = _sift_erased(connection, taken, refused)
        first: dict[Key, Taken] = {}
        for item in passed:
            first.setdefault(item.key, item)
        repeated = [item for item in passed if first[item.key] is not item]
        conversions = {key: item for key, item in first.items() if isinstance(item.event, ConversionEvent)}
        signals = {key: item for key, item in first.items() if key not in conversions}
        new_conversions, postbacks = _insert_conversions(connection, conversions, versions, received_at)
        new_signals = _insert_signals(connection, signals)
        duplicates = [item for key, item in conversions.items() if key not in new_conversions]
        duplicates += [item for key, item in signals.items() if key not in new_signals]
        _insert_rejects(connection, refusals, [*duplicates, *repeated])
        voided = standings.apply(
            connection,
            destinations,
            received_at,
            [first[key].event for key in new_conversions],  # type: ignore[misc]  # conversions by construction
            [first[key].event for key in new_signals],  # type: ignore[misc]  # signals by construction
        )
        result = IntakeResult(
            conversions=len(new_conversions),
            signals=len(new_signals),
            duplicates=len(duplicates) + len(repeated),
            rejected=len(refusals),
            postbacks=postbacks,
            voided=voided,
        )
        _insert_receipt(connection, message_id, len(taken) + len(refused), result)
        if whole:
            outbox.take_out(connection, message_id)
        return result

    return retried(engine, run)


def committed(engine: Engine, keys: Iterable[Key]) -> set[Key]:
    """Which of these events the database has, as conversion, signal, or kept reject; also one that was erased."""
    query = text("""
        SELECT k.source, k.event_id FROM json_to_recordset(:keys) AS k(source text, event_id text)
        WHERE EXISTS (SELECT FROM conversions c WHERE c.event_id = k.event_id AND c.source = k.source)
           OR EXISTS (SELECT FROM signals s WHERE s.event_id = k.event_id AND s.source = k.source)
           OR EXISTS (SELECT FROM rejects r WHERE r.event_id = k.event_id AND r.source = k.source)""")

    def there(connection: Connection, asked: Iterable[Key]) -> set[Key]:
        rows = as_json([{"source": source, "event_id": event_id} for source, event_id in asked])
        return {(row.source, row.event_id) for row in connection.execute(query, {"keys": rows})}

    with engine.connect() as connection:
        wanted = set(keys)
        found = there(connection, wanted)
        names = tombstones.pseudonyms(connection, wanted - found)
        erased = there(connection, {(source, name) for (source, _), name in names.items()})
        return found | {each for each, name in names.items() if (each[0], name) in erased}


def serialise(connection: Connection, *, exclusive: bool) -> datetime:
    """Take the lock of intake until the commit. Returns the database's clock once it is held."""
    return begin(connection, exclusive=exclusive)[0]


def begin(connection: Connection, *, exclusive: bool) -> tuple[datetime, bool]:
    """As ``serialise``; also whether anything was ever erased, which is asked once the lock is held."""
    function = "pg_advisory_xact_lock" if exclusive else "pg_advisory_xact_lock_shared"
    connection.execute(text(f"SELECT {function}(:key)"), {"key": SIGNALS_LOCK})
    row = connection.execute(text(f"SELECT clock_timestamp() AS at, {tombstones.ANY} AS tombs")).one()
    return row.at, row.tombs


def _sift_erased(
    connection: Connection, taken: Sequence[Taken], refused: Sequence[Refused]
) -> tuple[list[Taken], list[Refused]]:
    """What may be taken, and what is refused: what was erased among it, and nothing of that is kept."""
    everything: list[Taken | Refused] = [*taken, *refused]
    gone = tombstones.buried(connection, [tombstones.names_of(item.raw) for item in everything])
    passed, refusals = [], []
    for item, is_gone in zip(everything, gone, strict=True):
        if is_gone or item.raw == STUB:
            refusals.append(Refused(tombstones.stub_of(connection, item.raw), [ERASED_EVENT]))
        elif isinstance(item, Taken):
            passed.append(item)
        else:
            refusals.append(item)
    return passed, refusals


def _insert_conversions(
    connection: Connection,
    conversions: dict[Key, Taken],
    versions: list[DestinationVersion],
    received_at: datetime,
) -> tuple[dict[Key, int], int]:
    """Ids of the conversions that are new, and how many postbacks they got."""
    if not conversions:
        return {}, 0
    planned: dict[Key, list[PlannedPostback]] = {}
    rows = []
    events = {key: item.event for key, item in conversions.items() if isinstance(item.event, ConversionEvent)}
    matched = matching.find(connection, events, versions)
    # Sorted, so that two messages that share events wait for each other in one order and never in a circle.
    for key, event in sorted(events.items()):
        matches = matched.get(key, {})
        planned[key] = route(event, versions, received_at, matches)
        rows.append(_row(event, conversions[key].raw, matches, versions, len(planned[key])))
    inserted = connection.execute(
        text(f"""
        INSERT INTO conversions (source, event_id, name, order_id, click_ids, occurred_at, received_at, value,
            net_value, currency, routed, unrouted_reason, event, lead_id, customer_id, device_id, matched, refusals)
        SELECT r.source, r.event_id, r.name, r.order_id,
            ARRAY(SELECT {indexed("t")} FROM json_array_elements_text(r.click_ids) t), r.occurred_at, :received_at, r.value, r.value,
            r.currency, r.routed, r.unrouted_reason, r.event::json, r.lead_id, r.customer_id, r.device_id, r.matched,
            r.refusals
        FROM json_to_recordset(:rows) AS r(source text, event_id text, name text, order_id text, click_ids json,
            occurred_at timestamptz, value numeric, currency text, routed smallint, unrouted_reason text, event text,
            lead_id text, customer_id text, device_id text, matched jsonb, refusals json)
        ON CONFLICT (event_id, source) DO NOTHING RETURNING id, source, event_id"""),  # noqa: S608 — literals of ours
        {"rows": as_json(rows), "received_at": received_at},
    )
    new = {(row.source, row.event_id): row.id for row in inserted}
    pairs = [(new[key], plan) for key in conversions if key in new for plan in planned[key]]
    hold(connection, pairs)
    found = [matching.Found(new[key], events[key], matched[key]) for key in matched if key in new]
    matching.record(connection, found, versions, received_at)
    return new, len(pairs)


def _row(
    event: ConversionEvent, raw: object, matches: Matches, versions: list[DestinationVersion], routed: int
) -> dict[str, object]:
    """A new conversion. What most have not is left out, for null is the same and costs nothing."""
    row: dict[str, object] = {
        "source": event.source,
        "event_id": event.event_id,
        "name": event.name,
        "order_id": event.order_id,
        "click_ids": list(dict.fromkeys(attributed(event, matches).click_ids.values())),
        "occurred_at": event.occurred_at,
        "value": None if event.value is None else str(event.value),
        "currency": event.currency,
        "routed": routed,
        "unrouted_reason": None if routed else why_unrouted(attributed(event, matches), versions),
        "event": _verbatim(raw),
    }
    further = {
        "lead_id": event.lead_id,
        "customer_id": event.customer_id,
        "device_id": event.device_id,
        "matched": wire_matches(matches),
        "refusals": refusals(attributed(event, matches), versions),
    }
    return row | {name: value for name, value in further.items() if value}


def hold(
    connection: Connection, pairs: list[tuple[int, PlannedPostback]], *, afterwards: bool = False
) -> list[int]:
    """Hold planned postbacks, each of a conversion given by its id; ``afterwards``: not in the transaction that took it
    in. Returns their ids."""
    if not pairs:
        return []
    ids = connection.execute(
        text("SELECT nextval('postbacks_id_seq') FROM generate_series(1, :n)"), {"n": len(pairs)}
    ).scalars()
    numbered = [
        (int(number), conversion_id, plan) for number, (conversion_id, plan) in zip(ids, pairs, strict=True)
    ]
    first_of = _first_of(connection, [(number, plan) for number, _, plan in numbered])
    rows = []
    for number, conversion_id, plan in numbered:
        first = first_of.get(number)
        state = State.DUPLICATE if first is not None else plan.state
        rows.append(
            {
                "id": number,
                "conversion_id": conversion_id,
                "version_id": plan.version_id,
                "state": state,
                "release_at": plan.release_at,
                "due_at": _due(plan) if state is State.HELD else None,
                "manual": plan.manual,
                "expires_at": plan.expires_at,
                "reason": f"the network would take it for pb_{first} again"
                if first is not None
                else plan.reason,
                "duplicate_of": first,
            }
        )
    connection.execute(
        text("""
        INSERT INTO postbacks (id, conversion_id, version_id, state, release_at, due_at, expires_at, reason,
            duplicate_of, manual, settled_at, afterwards)
        OVERRIDING SYSTEM VALUE
        SELECT r.id, r.conversion_id, r.version_id, r.state, r.release_at, r.due_at, r.expires_at, r.reason,
            r.duplicate_of, r.manual, CASE WHEN r.due_at IS NULL THEN now() END, :afterwards
        FROM json_to_recordset(:rows) AS r(id bigint, conversion_id bigint, version_id integer, state text,
            release_at timestamptz, due_at timestamptz, expires_at timestamptz, reason text, duplicate_of bigint,
            manual boolean)"""),
        {"rows": as_json(rows), "afterwards": afterwards},
    )
    return [number for number, _, _ in numbered]


def _due(plan: PlannedPostback) -> datetime | str:
    """When somebody has to act on a held postback next: never by itself where a person's scheduler releases it."""
    return "infinity" if plan.manual else plan.release_at


def _first_of(connection: Connection, plans: list[tuple[int, PlannedPostback]]) -> dict[int, int]:
    """For each postback that a network would take for an earlier one: the earlier one's id."""
    wanted: dict[bytes, int] = {}
    for number, plan in plans:
        if plan.state is State.HELD:
            wanted.setdefault(plan.dedupe_key, number)
    holders = claim_keys(connection, wanted)
    return {
        number: holders[plan.dedupe_key]
        for number, plan in plans
        if plan.state is State.HELD and holders[plan.dedupe_key] != number
    }


def _insert_signals(connection: Connection, signals: dict[Key, Taken]) -> set[Key]:
    if not signals:
        return set()
    rows = []
    for item in signals.values():
        event = item.event
        assert isinstance(event, Signal)
        rows.append(
            {
                "source": event.source,
                "event_id": event.event_id,
                "type": event.type,
                "order_id": event.order_id,
                "conversion_event_id": event.conversion_event_id,
                "occurred_at": event.occurred_at,
                "event": _verbatim(item.raw),
            }
        )
    inserted = connection.execute(
        text("""
        INSERT INTO signals (source, event_id, type, order_id, conversion_event_id, occurred_at, status, outcome, event)
        SELECT r.source, r.event_id, r.type, r.order_id, r.conversion_event_id, r.occurred_at, 'waiting',
            'its conversion has not arrived', r.event::json
        FROM json_to_recordset(:rows) AS r(source text, event_id text, type text, order_id text,
            conversion_event_id text, occurred_at timestamptz, event text)
        ON CONFLICT (event_id, source) DO NOTHING RETURNING source, event_id"""),
        {"rows": as_json(rows)},
    )
    return {(row.source, row.event_id) for row in inserted}


def _insert_rejects(connection: Connection, refused: Sequence[Refused], duplicates: Sequence[Taken]) -> None:
    rows = [
        _reject_row(item.raw, item.problems[0].code, [_problem_row(problem) for problem in item.problems])
        for item in refused
    ]
    again = Problem(
        "duplicate", "event_id", "was taken before under the same source", "Nothing to do: it is counted once"
    )
    rows += [_reject_row(item.raw, "duplicate", [_problem_row(again)]) for item in duplicates]
    if rows:
        connection.execute(
            text("""
            INSERT INTO rejects (code, problems, source, event_id, raw)
            SELECT r.code, r.problems, r.source, r.event_id, r.raw
            FROM json_to_recordset(:rows) AS r(code text, problems jsonb, source text, event_id text, raw text)"""),
            {"rows": as_json(rows)},
        )


def _reject_row(raw: object, code: str, problems: list[dict[str, str]]) -> dict[str, object]:
    fields = raw if isinstance(raw, dict) else {}
    row: dict[str, object] = {"code": code, "problems": problems, "raw": _verbatim(raw)}
    for name in ("source", "event_id"):
        value = fields.get(name)
        row[name] = _storable(value)[:200] if isinstance(value, str) else None
    return row


def _problem_row(problem: Problem) -> dict[str, str]:
    return {
        "code": problem.code,
        "field": _storable(problem.field),
        "reason": _storable(problem.reason),
        "remedy": problem.remedy,
    }


def _storable(value: str) -> str:
    """Text that PostgreSQL can hold: NUL and lone surrogates shown as escapes (the raw column has them verbatim)."""
    return value.replace("\0", "\\u0000").encode("utf-8", "backslashreplace").decode()


def _verbatim(raw: object) -> str:
    """The JSON text of what came; lone surrogates, which UTF-8 cannot carry, stay JSON escapes."""
    try:
        return orjson.dumps(raw).decode()
    except TypeError:
        return json.dumps(raw, default=repr)


def _insert_receipt(connection: Connection, message_id: str, events: int, result: IntakeResult) -> None:
    connection.execute(
        text("""INSERT INTO receipts (message_id, events, conversions, signals, duplicates, rejected)
                VALUES (:message_id, :events, :conversions, :signals, :duplicates, :rejected)"""),
        {
            "message_id": message_id,
            "events": events,
            "conversions": result.conversions,
            "signals": result.signals,
            "duplicates": result.duplicates,
            "rejected": result.rejected,
        },
    )
