"""Reading evidence: one conversion's whole life, or one attempt with every hop. Each read is one snapshot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from types import SimpleNamespace
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Row, TextClause, text

from infra.archives.form import Values
from infra.db.snapshot import snapshot
from infra.store.keeping.archived import Archived, read_archived
from infra.store.records import (
    ActRecord,
    AttemptRecord,
    CheckRecord,
    ConversionRecord,
    Dispute,
    Life,
    MatchRecord,
    Outcome,
    PostbackRecord,
    RedoRecord,
    RejectRecord,
    SignalRecord,
)
from infra.store.stopping.stopping import read_stops
from schemas.by_hand import Act
from schemas.destination import Contract, DestinationVersion
from schemas.event import ConversionEvent, read_stored
from schemas.exchange import Failure, FailureKind, Hop
from schemas.lifecycle import State
from schemas.problem import Problem
from schemas.reconciling.findings import Bucket, Cause
from schemas.signals import names
from schemas.verdict import VerdictKind

Done = TypeVar("Done", ActRecord, RedoRecord)

_CONVERSION = text("""
    SELECT c.id, c.event::text AS event, c.received_at, c.net_value, c.outcomes, c.routed, c.unrouted_reason, c.refusals,
        now() AS now, coalesce(e.ended_at, e.begun_at) AS erased_at, e.who AS erased_by
    FROM conversions c LEFT JOIN erasures e ON e.id = c.erasure_id WHERE c.id = ANY(:ids) ORDER BY c.id""")

_MATCHES = text("""
    SELECT conversion_id, at, destination, network, key, key_value, click_row AS click, click_id, clicked_at
    FROM matches WHERE conversion_id = ANY(:ids) ORDER BY id""")

_POSTBACKS = text("""
    SELECT p.*, (p.due_at = 'infinity') IS TRUE AS by_hand, k.report_id AS counted_by, k.at AS counted_at, d.*
    FROM postbacks p LEFT JOIN reconciled k ON k.postback_id = p.id
        LEFT JOIN LATERAL (SELECT f.report_id AS disputed_by, r.reconciled_at AS disputed_at, f.bucket, f.cause, f.explanation
            FROM report_findings f JOIN reports r ON r.id = f.report_id
            WHERE f.postback_id = p.id AND f.side <> 'nobody' AND r.reconciled_at IS NOT NULL
                AND f.report_id >= coalesce(k.report_id, 0) ORDER BY f.report_id DESC LIMIT 1) d ON true
    WHERE p.conversion_id = ANY(:ids) ORDER BY p.id""")

_VERSIONS = text("SELECT id, number, contract FROM destination_versions WHERE id = ANY(:ids)")

# Intents carry no index on the postback: every one is either in attempts by now, or is its postback's current one.
_ATTEMPTS = text("""
    WITH known AS (
        SELECT id, intent_at FROM attempts WHERE postback_id = ANY(:ids)
        UNION
        SELECT i.attempt_id, i.intent_at FROM postbacks p
            JOIN intents i ON i.attempt_id = p.attempt_id AND i.postback_id = p.id
        WHERE p.id = ANY(:ids))
    SELECT k.id AS attempt_id, k.intent_at AS intended_at, coalesce(a.postback_id, i.postback_id) AS of_postback,
        coalesce(a.number, i.number) AS of_number, coalesce(a.worker, i.worker) AS by_worker,
        i.url AS intended_url, a.*
    FROM known k
        LEFT JOIN attempts a ON a.id = k.id AND a.intent_at = k.intent_at
        LEFT JOIN intents i ON i.attempt_id = k.id AND i.intent_at = k.intent_at
    ORDER BY of_postback, of_number, k.id""")

_CHECKS = text("""
    SELECT *, id AS attempt_id, intent_at AS intended_at FROM checks
    WHERE postback_id = ANY(:ids) ORDER BY postback_id, id""")

_HOPS = text("""
    SELECT * FROM hops
    WHERE attempt_id = ANY(:ids) AND intent_at BETWEEN :first AND :last ORDER BY attempt_id, number""")

# Those of its order; of several rebills under one, not every signal is about each.
_SIGNALS = text("""
    SELECT id, event::text AS event, received_at, status, outcome FROM signals
    WHERE conversion_event_id = ANY(:event_ids) OR (order_id = ANY(:order_ids) AND conversion_event_id IS NULL)
    ORDER BY received_at, id""")

_SIGNALS_BY_ID = text("""
    SELECT id, event::text AS event, received_at, status, outcome FROM signals WHERE id = ANY(:ids) ORDER BY id""")

_REPEATS = text("""
    SELECT id, received_at, code, problems, source, event_id, raw FROM rejects
    WHERE event_id = ANY(:event_ids) AND source = ANY(:sources) ORDER BY received_at, id""")


_ACTS = text("""
    SELECT at, who, action, detail, postback_id FROM audit
    WHERE postback_id IN (SELECT id FROM postbacks WHERE conversion_id = ANY(:ids))
        AND action IN ('postback.void', 'postback.extend', 'postback.release') ORDER BY id""")


_REDONE = text("""
    SELECT at, who, action, detail, postback_id FROM audit
    WHERE postback_id IN (SELECT id FROM postbacks WHERE conversion_id = ANY(:ids))
        AND action IN ('postback.replay', 'postback.put_back', 'postback.settle') ORDER BY id""")

BATCH = 50
"""Lives read at once: most of the time goes into planning the queries, and each batch is one snapshot."""

Choice = Callable[[Sequence[int]], Collection[int]]
"""Of the ids of a conversion's attempts, oldest first: those whose hops are to be read."""


def every(ids: Sequence[int]) -> Collection[int]:
    """The choice that leaves nothing out."""
    return ids


def read_life(engine: Engine, conversion_id: int, *, hops_of: Choice = every) -> Life | None:
    """Everything about one conversion, or None if there is none with this id.

    ``hops_of`` chooses attempts: those left out come without their exchanges and say so (``hops_read``), so that the
    reading of a life of many attempts is bounded.
    """
    return next(iter(_read_batch(engine, [conversion_id], hops_of)), None)


def read_lives(engine: Engine, conversion_ids: Iterable[int], *, hops_of: Choice = every) -> Iterator[Life]:
    """The same of many, by ascending id within each batch of ``BATCH``; those that are not there are left out."""
    ids = iter(conversion_ids)
    while batch := list(islice(ids, BATCH)):
        yield from _read_batch(engine, batch, hops_of)


def _read_batch(engine: Engine, ids: list[int], hops_of: Choice) -> list[Life]:
    with snapshot(engine, months=True) as connection:
        rows = connection.execute(_CONVERSION, {"ids": ids}).all()
        if not rows:
            return []
        events = {row.id: _conversion_event(row) for row in rows}
        about = _About(connection, list(events.values()))
        matches, postbacks = _matches(connection, ids), _postbacks(connection, ids, hops_of)
        whose = {each.id: number for number, own in postbacks.items() for each in own}
        acts = _by_hand(connection, _ACTS, _act, whose)
        redone = _by_hand(connection, _REDONE, _redo, whose)
        stops = read_stops(connection)
    lives = []
    for row in rows:
        event, own = events[row.id], postbacks[row.id]
        conversion = ConversionRecord(
            row.id,
            event,
            row.received_at,
            row.net_value,
            row.routed,
            row.unrouted_reason,
            tuple(row.outcomes),
            tuple(matches[row.id]),
            row.refusals or {},
            erased_at=row.erased_at,
            erased_by=row.erased_by,
        )
        lives.append(
            Life(
                now=row.now,
                conversion=conversion,
                signals=about.signals(event),
                postbacks=tuple(own),
                repeats=about.repeats(event),
                acts=tuple(acts[row.id]),
                redone=tuple(redone[row.id]),
                stops=stops,
            )
        )
    return lives


def _conversion_event(row: Row[Any]) -> ConversionEvent:
    event = read_stored(row.event)
    assert isinstance(event, ConversionEvent)
    return event


class _About:
    """What else came that names these conversions: signals, and events under the same id that were refused."""

    def __init__(self, connection: Connection, events: Sequence[ConversionEvent]) -> None:
        named = {
            "event_ids": list({event.event_id for event in events}),
            "order_ids": list({event.order_id for event in events if event.order_id is not None}),
            "sources": list({event.source for event in events}),
        }
        self._by_event: dict[str, list[SignalRecord]] = defaultdict(list)
        self._by_order: dict[str, list[SignalRecord]] = defaultdict(list)
        for signal in map(signal_record, connection.execute(_SIGNALS, named)):
            if signal.event.conversion_event_id is not None:
                self._by_event[signal.event.conversion_event_id].append(signal)
            elif signal.event.order_id is not None:
                self._by_order[signal.event.order_id].append(signal)
        self._repeats: dict[tuple[str | None, str | None], list[RejectRecord]] = defaultdict(list)
        for reject in map(reject_record, connection.execute(_REPEATS, named)):
            self._repeats[reject.event_id, reject.source].append(reject)

    def signals(self, event: ConversionEvent) -> tuple[SignalRecord, ...]:
        by_order = self._by_order[event.order_id] if event.order_id is not None else []
        found = [each for each in (*self._by_event[event.event_id], *by_order) if names(each.event, event)]
        return tuple(sorted(found, key=lambda each: (each.received_at, each.id)))

    def repeats(self, event: ConversionEvent) -> tuple[RejectRecord, ...]:
        return tuple(self._repeats[event.event_id, event.source])


def _matches(connection: Connection, ids: list[int]) -> dict[int, list[MatchRecord]]:
    found: dict[int, list[MatchRecord]] = defaultdict(list)
    for row in connection.execute(_MATCHES, {"ids": ids}):
        values = dict(row._mapping)
        found[values.pop("conversion_id")].append(MatchRecord(**values))
    return found


def _by_hand(
    connection: Connection, query: TextClause, read: Callable[[Row[Any]], Done], whose: Mapping[int, int]
) -> dict[int, list[Done]]:
    """What people did, by conversion; ``whose`` says which each postback is of."""
    found: dict[int, list[Done]] = defaultdict(list)
    for row in connection.execute(query, {"ids": list(set(whose.values()))}):
        found[whose[row.postback_id]].append(read(row))
    return found


def read_signals(engine: Engine, ids: Sequence[int]) -> list[SignalRecord]:
    """Signals by id, in the order of their ids."""
    with engine.connect() as connection:
        return [signal_record(row) for row in connection.execute(_SIGNALS_BY_ID, {"ids": list(ids)})]


def _postbacks(
    connection: Connection, conversion_ids: list[int], hops_of: Choice
) -> dict[int, list[PostbackRecord]]:
    rows = connection.execute(_POSTBACKS, {"ids": conversion_ids}).all()
    archived = read_archived(connection, {row.id: row.archived + row.archived_checks for row in rows})
    attempts = _attempts(connection, {row.id: row.conversion_id for row in rows}, hops_of, archived)
    checks = _checks(connection, [row.id for row in rows], archived)
    # Many share a version, and a contract is long.
    versions = {
        row.id: DestinationVersion(row.id, row.number, Contract.model_validate(row.contract))
        for row in connection.execute(_VERSIONS, {"ids": list({row.version_id for row in rows})})
    }
    found: dict[int, list[PostbackRecord]] = defaultdict(list)
    for row in rows:
        found[row.conversion_id].append(
            PostbackRecord(
                id=row.id,
                conversion_id=row.conversion_id,
                version=versions[row.version_id],
                state=State(row.state),
                release_at=row.release_at,
                due_at=None if row.by_hand else row.due_at,
                by_hand=row.by_hand,
                first_attempt_at=row.first_attempt_at,
                expires_at=row.expires_at,
                settled_at=row.settled_at,
                attempts_made=row.attempts,
                void_reason=row.void_reason,
                reason=row.reason,
                duplicate_of=row.duplicate_of,
                attempts=tuple(attempts[row.id]),
                adjustment=row.adjustment,
                adjusts=row.adjusts,
                adjustments=row.adjustments,
                overtaken=row.overtaken,
                reported=row.reported,
                retracted_at=row.retracted_at,
                lost=row.lost,
                lost_at=row.lost_at,
                counted_by=row.counted_by,
                counted_at=row.counted_at,
                dispute=_dispute(row),
                let_go_at=row.let_go_at,
                checks=tuple(checks[row.id]),
                run_id=row.run_id,
                budget_from=row.budget_from,
                falls_back=None if row.falls_back is None else State(row.falls_back),
                settled_by=row.settled_by,
                parked=row.parked and row.due_at is not None,
                unreadable=tuple(
                    f"archive {gap.file} {gap.why}"
                    for gap in archived.gaps
                    if row.archived + row.archived_checks
                    and gap.first_postback <= row.id <= gap.last_postback
                ),
            )
        )
    return found


def _attempts(
    connection: Connection, conversion_of: Mapping[int, int], hops_of: Choice, archived: Archived
) -> dict[int, list[AttemptRecord]]:
    """By postback; ``conversion_of`` says whose each postback is."""
    found: dict[int, list[AttemptRecord]] = defaultdict(list)
    rows: list[Any] = (
        list(connection.execute(_ATTEMPTS, {"ids": list(conversion_of)})) if conversion_of else []
    )
    there = {row.attempt_id for row in rows}
    rows += [row for row in _archived_attempts(archived) if row.attempt_id not in there]
    rows.sort(key=lambda row: (row.of_postback, row.of_number, row.attempt_id))
    made: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        made[conversion_of[row.of_postback]].append(row.attempt_id)
    chosen = frozenset(number for ids in made.values() for number in hops_of(sorted(ids)))
    hops = _hops(connection, [row for row in rows if row.attempt_id in chosen], archived)
    for row in rows:
        found[row.of_postback].append(
            AttemptRecord(
                id=row.attempt_id,
                postback_id=row.of_postback,
                number=row.of_number,
                intent_at=row.intended_at,
                worker=row.by_worker,
                intended_url=row.intended_url,
                outcome=None if row.id is None else _outcome(row),
                hops=tuple(hops[row.attempt_id]),
                hops_read=row.attempt_id in chosen,
                archive=None if row.attempt_id in there else archived.files[row.attempt_id],
            )
        )
    return found


def _archived_attempts(archived: Archived) -> list[SimpleNamespace]:
    """Attempts of archives as ``_ATTEMPTS`` gives those of the tables."""
    intents = {row["attempt_id"]: row for row in archived.rows["intents"]}
    return [
        SimpleNamespace(
            **row,
            attempt_id=row["id"],
            intended_at=row["intent_at"],
            of_postback=row["postback_id"],
            of_number=row["number"],
            by_worker=row["worker"],
            intended_url=intents[row["id"]]["url"] if row["id"] in intents else None,
        )
        for row in archived.rows["attempts"]
    ]


def _dispute(row: Row[Any]) -> Dispute | None:
    if row.disputed_by is None:
        return None
    return Dispute(row.disputed_by, row.disputed_at, Bucket(row.bucket), Cause(row.cause), row.explanation)


def _checks(
    connection: Connection, postback_ids: list[int], archived: Archived
) -> dict[int, list[CheckRecord]]:
    found: dict[int, list[CheckRecord]] = defaultdict(list)
    rows: list[Any] = list(connection.execute(_CHECKS, {"ids": postback_ids})) if postback_ids else []
    there = {row.id for row in rows}
    rows += [
        SimpleNamespace(**row, attempt_id=row["id"], intended_at=row["intent_at"])
        for row in archived.rows["checks"]
        if row["id"] not in there
    ]
    rows.sort(key=lambda row: (row.postback_id, row.id))
    hops = _hops(connection, rows, archived)
    for row in rows:
        found[row.postback_id].append(
            CheckRecord(
                id=row.id,
                postback_id=row.postback_id,
                version_id=row.version_id,
                number=row.number,
                intent_at=row.intent_at,
                ended_at=row.ended_at,
                asks_again_at=row.asks_again_at,
                worker=row.worker,
                worker_version=row.worker_version,
                stale=row.stale,
                verdict=row.verdict,
                rule=row.rule,
                status_code=row.status_code,
                error_class=row.error_class,
                error_message=row.error_message,
                hops=tuple(hops[row.id]),
                archive=None if row.id in there else archived.files[row.id],
            )
        )
    return found


def _outcome(row: Any) -> Outcome:
    return Outcome(
        ended_at=row.ended_at,
        version_id=row.version_id,
        trigger=row.trigger,
        worker_version=row.worker_version,
        verdict=VerdictKind(row.verdict),
        rule=row.rule,
        state=State(row.state),
        status_code=row.status_code,
        error_class=row.error_class,
        error_message=row.error_message,
        next_attempt_at=row.next_attempt_at,
        delay_s=row.delay_s,
        click_id=row.click_id,
        notes=tuple(row.notes or ()),
    )


def _hops(connection: Connection, attempts: Sequence[Any], archived: Archived) -> dict[int, list[Hop]]:
    found: dict[int, list[Hop]] = defaultdict(list)
    if attempts:
        error_classes = {row.attempt_id: row.error_class or "" for row in attempts}
        # The instants let PostgreSQL look into the months concerned only.
        instants = [row.intended_at for row in attempts]
        span = {"ids": list(error_classes), "first": min(instants), "last": max(instants)}
        for row in connection.execute(_HOPS, span):
            found[row.attempt_id].append(_hop(row, error_classes[row.attempt_id]))
        there = frozenset(found)
        for each in sorted(archived.rows["hops"], key=_place):
            number = each["attempt_id"]
            if number in error_classes and number not in there:
                found[number].append(_hop(SimpleNamespace(**each), error_classes[number]))
    return found


def _place(hop: Values) -> tuple[int, int]:
    return hop["attempt_id"], hop["number"]


def _hop(row: Any, error_class: str) -> Hop:
    head = bytes(row.request_head)
    return Hop(
        number=row.number,
        url=row.url,
        method=row.method,
        started_at=row.started_at,
        request_head=head,
        request_body=bytes(row.request_body),
        addresses=tuple(row.addresses.split()),
        peer=row.peer,
        local=row.local,
        tls_version=row.tls_version,
        reused=row.reused,
        dns_ms=row.dns_ms,
        connect_ms=row.connect_ms,
        first_byte_ms=row.first_byte_ms,
        total_ms=row.total_ms,
        status_code=row.status_code,
        response_head=bytes(row.response_head),
        body=bytes(row.body),
        body_length=row.body_length,
        body_sha256=None if row.body_sha256 is None else bytes(row.body_sha256).hex(),
        truncated=row.truncated,
        body_error=row.body_error,
        failure=None if row.failure is None else _failure(row.failure, error_class, sent=bool(head)),
    )


def _failure(stored: str, error_class: str, *, sent: bool) -> Failure:
    # A request head is recorded in the breath in which it is written: having one is having sent.
    kind, _, message = stored.partition(": ")
    return Failure(FailureKind(kind), sent=sent, error_class=error_class, message=message)


def signal_record(row: Row[Any]) -> SignalRecord:
    """A row with ``id, event, received_at, status, outcome`` as a value."""
    event = read_stored(row.event)
    assert not isinstance(event, ConversionEvent)
    return SignalRecord(row.id, event, row.received_at, row.status, row.outcome)


def _act(row: Row[Any]) -> ActRecord:
    detail = row.detail
    return ActRecord(
        at=row.at,
        postback_id=row.postback_id,
        act=Act(row.action.removeprefix("postback.")),
        who=row.who,
        reason=detail["reason"],
        state=State(detail["state"]),
        wish=detail["wish"],
        before=datetime.fromisoformat(detail["from"]),
        after=datetime.fromisoformat(detail["to"]),
    )


def _redo(row: Row[Any]) -> RedoRecord:
    get = row.detail.get
    state, due_at = get("state"), get("due_at")
    return RedoRecord(
        at=row.at,
        postback_id=row.postback_id,
        action=row.action.removeprefix("postback."),
        who=row.who,
        reason=get("reason"),
        run_id=get("run"),
        state=None if state is None else State(state),
        attempts=get("attempts", 0),
        due_at=None if due_at is None else datetime.fromisoformat(due_at),
        overruled=tuple(get("overruled", ())),
        version=get("version"),
        said=get("said"),
    )


def reject_record(row: Row[Any]) -> RejectRecord:
    """A row of ``rejects`` as a value."""
    return RejectRecord(
        id=row.id,
        received_at=row.received_at,
        code=row.code,
        problems=problems_of(row.problems),
        source=row.source,
        event_id=row.event_id,
        raw=row.raw,
    )


def problems_of(stored: Iterable[dict[str, str]]) -> tuple[Problem, ...]:
    return tuple(
        Problem(item.get("code", ""), item.get("field", ""), item.get("reason", ""), item.get("remedy", ""))
        for item in stored
    )
