"""The fire gate, and settling: the two transactions around every attempt. No transaction is open across the wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from infra import version
from infra.db.engine import as_json, copy_bytes, copy_rows, copy_text, copy_value
from infra.store.correcting import FollowUp, after_settling
from infra.store.destinations import read_version
from infra.store.rulings import promote_duplicates
from infra.store.said import record_wishes
from infra.store.stopping.parking import own_queue, park_leased, wait
from infra.store.stopping.stopping import PAUSED, STOP_LOCK
from infra.store.transactions import retried
from schemas.click import read_matches
from schemas.conversion import StoredConversion, attributed, read_stored_conversion
from schemas.destination import DestinationVersion
from schemas.event import ConversionEvent, read_stored
from schemas.exchange import Hop
from schemas.lifecycle import State
from schemas.postback import (
    Asking,
    Correction,
    Gated,
    LostAttempt,
    Prepared,
    Run,
    SettledAttempt,
    SettledCheck,
    Stopped,
)

# Gates share the advisory lock, a pause takes it alone: once the pause has committed, every gate sees it, for what is read
# after this statement is read once its locks were waited for.
_LOCK_LEASED = text(f"""
    SELECT p.id, pg_advisory_xact_lock_shared({STOP_LOCK}, hashtext(v.destination))
    FROM postbacks p JOIN destination_versions v ON v.id = p.version_id
    WHERE p.id = ANY(:ids) AND p.state = 'leased' AND p.lease_token = :token AND p.release_at <= now()
    ORDER BY p.id FOR UPDATE OF p""")  # noqa: S608 — a number of ours

# A statement of its own, for it must see what was committed while the lock was waited for: a signal changes the net
# value under the same locks, and joined to them the value would be as old as the waiting.
_READ_LEASED = text(f"""
    SELECT p.id, p.version_id, p.attempts, p.had_unknown, p.first_attempt_at, p.expires_at, c.net_value, c.outcomes,
        p.budget_from, p.falls_back, p.run_id, rn.who AS run_who, rn.reason AS run_reason,
        c.value, c.event::text AS event, c.matched, nextval('attempt_ids') AS attempt_id, now() AS now, p.asked, p.asked_since,
        p.confirmed_at, p.let_go_at IS NOT NULL AS let_go, p.adjustment, o.reported, o.retracted_at IS NOT NULL AS retracted,
        o.void_reason = 'by_hand' AS by_hand,
        (p.expires_at IS NULL OR p.expires_at >= now()) AND EXISTS (
            SELECT FROM destination_versions v JOIN stops s ON s.destination = v.destination
            WHERE v.id = p.version_id AND ({PAUSED}
                OR (s.breaker <> 'closed' AND s.probe_token IS DISTINCT FROM :token))) AS is_stopped
    FROM postbacks p JOIN conversions c ON c.id = p.conversion_id LEFT JOIN postbacks o ON o.id = p.adjusts
        LEFT JOIN replay_runs rn ON rn.id = p.run_id
    WHERE p.id = ANY(:ids) ORDER BY p.id""")  # noqa: S608 — literals of ours

# A lease that waited long for a worker is renewed, so that the attempt has most of it ahead. A fresh one is left alone:
# its end is an indexed column, and the update stays HOT.
_RECORD_INTENTS = text("""
    WITH r AS (
        SELECT * FROM json_to_recordset(:rows) AS r(id bigint, attempt_id bigint, number smallint, url text,
            sending numeric)),
    intent AS (
        INSERT INTO intents (attempt_id, postback_id, number, intent_at, worker, url)
        SELECT attempt_id, id, number, now(), :worker, url FROM r)
    UPDATE postbacks p
    SET state = 'firing', attempts = r.number, attempt_id = r.attempt_id, overtaken = false,
        sending = r.sending, falls_back = CASE p.falls_back WHEN 'delivered' THEN p.falls_back END,
        first_attempt_at = coalesce(p.first_attempt_at, now()),
        due_at = CASE WHEN p.due_at < now() + make_interval(secs => :lease_s * 0.75)
            THEN now() + make_interval(secs => :lease_s) ELSE p.due_at END
    FROM r WHERE p.id = r.id""")

# What is asked about stays leased, so that a signal voids it at once, and a worker that dies costs one lease.
_KEEP_LEASED = text("""
    UPDATE postbacks SET due_at = now() + make_interval(secs => :lease_s)
    WHERE id = ANY(:ids) AND due_at < now() + make_interval(secs => :lease_s * 0.75)""")

_STOP = text("""
    UPDATE postbacks p
    SET state = r.state, reason = coalesce(r.reason, p.reason), lease_token = NULL,
        void_reason = coalesce(r.void_reason, p.void_reason),
        due_at = now() + make_interval(secs => r.delay_s),
        settled_at = CASE WHEN r.delay_s IS NULL THEN now() END,
        falls_back = CASE WHEN r.delay_s IS NOT NULL THEN p.falls_back END
    FROM json_to_recordset(:rows) AS r(id bigint, state text, reason text, delay_s float8, void_reason text)
    WHERE p.id = r.id""")

# Fenced by id, state and lease token: of a rescued attempt's late worker no row is touched, and nothing is settled
# twice. A void that arrived while the attempt was on the wire wins over a further attempt. What was delivered before a
# person fired it again stays that, whatever comes of it; what stands may have changed while it did, so it is looked at.
_SETTLE = text("""
    UPDATE postbacks p
    SET state = CASE WHEN p.falls_back IS NOT NULL AND (r.state <> 'retrying' OR p.void_reason IS NOT NULL)
            THEN p.falls_back
            ELSE CASE WHEN r.state = 'retrying' AND p.void_reason IS NOT NULL THEN 'voided' ELSE r.state END END,
        due_at = CASE WHEN p.void_reason IS NULL THEN r.next_attempt_at END,
        reason = CASE WHEN p.falls_back IS NOT NULL AND r.state NOT IN ('delivered', 'retrying')
                THEN 'delivered before; fired again, it came to ' || r.state || ': ' || r.reason
            WHEN r.state = 'retrying' AND p.void_reason IS NOT NULL THEN p.void_reason ELSE r.reason END,
        overtaken = p.overtaken OR p.falls_back IS NOT NULL,
        falls_back = CASE WHEN r.state = 'retrying' AND p.void_reason IS NULL THEN p.falls_back END,
        settled_at = CASE WHEN r.state <> 'retrying' OR p.void_reason IS NOT NULL THEN now() END,
        had_unknown = p.had_unknown OR r.unknown, lease_token = NULL,
        reported = CASE WHEN r.state = 'delivered' THEN r.told ELSE p.reported END
    FROM json_to_recordset(:rows) AS r(id bigint, token bigint, state text, next_attempt_at timestamptz,
        reason text, unknown boolean, told numeric)
    WHERE p.id = r.id AND p.state = 'firing' AND p.lease_token = r.token
    RETURNING p.id, p.state, p.adjusts, p.overtaken, p.void_reason, p.void_reason IS NOT NULL AS wished""")

_LOCK_CORRECTED = text("""
    SELECT id FROM postbacks WHERE id = ANY(ARRAY(SELECT adjusts FROM postbacks WHERE id = ANY(:ids)))
    ORDER BY id FOR UPDATE""")

_ENDED = text(
    "SELECT id, state, adjusts, overtaken, void_reason FROM postbacks WHERE id = ANY(:ids) ORDER BY id"
)

_LOCK_LOST = text("""
    SELECT p.id, p.lease_token, p.attempt_id, p.attempts, p.version_id, p.first_attempt_at, p.expires_at,
        p.had_unknown, p.adjustment, c.event::text AS event, c.matched, i.worker, i.intent_at, now() AS now,
        p.budget_from, p.run_id, rn.who AS run_who, rn.reason AS run_reason
    FROM postbacks p JOIN conversions c ON c.id = p.conversion_id LEFT JOIN replay_runs rn ON rn.id = p.run_id
        JOIN intents i ON i.attempt_id = p.attempt_id AND i.postback_id = p.id
    WHERE p.due_at <= now() AND NOT p.parked AND p.state = 'firing'
    ORDER BY p.id LIMIT :limit FOR UPDATE OF p SKIP LOCKED""")

ATTEMPT_COLUMNS = (
    "id", "postback_id", "version_id", "number", "status_code", "intent_at", "ended_at", "next_attempt_at",
    "delay_s", "trigger", "worker", "worker_version", "verdict", "rule", "state", "error_class", "error_message",
    "click_id", "notes",
)  # fmt: skip
HOP_COLUMNS = (
    "attempt_id", "intent_at", "started_at", "body_length", "number", "status_code", "reused", "truncated",
    "dns_ms", "connect_ms", "first_byte_ms", "total_ms", "method", "url", "request_head", "request_body",
    "addresses", "peer", "local", "tls_version", "response_head", "body", "body_sha256", "body_error", "failure",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Gate:
    """What came out of the gate: ``prepared`` may be sent, ``asking`` is to be asked about first; ``stale`` leases had
    been taken back or voided, and ``parked`` ones were given back because their destination is stopped."""

    prepared: list[Prepared]
    stopped: list[Stopped]
    stale: int
    asking: list[Asking] = field(default_factory=list)
    parked: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """``states`` by postback id as they were written; ``stale`` attempts came too late and settled nothing."""

    states: dict[int, State]
    stale: list[SettledAttempt]


def gate(  # noqa: PLR0913 — what is claimed, by whom, for how long, and how it is rendered
    engine: Engine,
    token: int,
    postback_ids: Sequence[int],
    worker: str,
    prepare: Callable[[Gated], Prepared | Asking | Stopped],
    *,
    lease_s: float,
) -> Gate:
    """Pass leased postbacks through the fire gate and record the intent of each attempt, in one transaction.

    ``prepare`` renders each one or says why it is stopped; it must not touch the database. When this returns,
    the intents are committed and their leases last for at least three quarters of ``lease_s`` more, and only then
    may a byte leave. A question needs no intent: put twice to a service of our own user's, it does no harm. Nothing is
    sent or asked where the destination is stopped; what has expired is told so all the same.
    """

    def run(connection: Connection) -> Gate:
        locked = connection.execute(_LOCK_LEASED, {"ids": list(postback_ids), "token": token}).scalars().all()
        found = connection.execute(_READ_LEASED, {"ids": list(locked), "token": token}).all()
        rows = [row for row in found if not row.is_stopped]
        results = [
            prepare(
                Gated(
                    postback_id=row.id,
                    token=token,
                    attempt_id=row.attempt_id,
                    number=row.attempts + 1,
                    version_id=row.version_id,
                    had_unknown=row.had_unknown,
                    first_attempt_at=row.first_attempt_at,
                    expires_at=row.expires_at,
                    net_value=row.net_value,
                    event=stored_event(row),
                    now=row.now,
                    outcomes=tuple(row.outcomes),
                    correction=_correction(row),
                    asked=row.asked,
                    asked_since=row.asked_since,
                    confirmed_at=row.confirmed_at,
                    let_go=row.let_go,
                    run=_run(row),
                    budget_from=row.budget_from,
                    falls_back=None if row.falls_back is None else State(row.falls_back),
                )
            )
            for row in rows
        ]
        prepared = [result for result in results if isinstance(result, Prepared)]
        stopped = [result for result in results if isinstance(result, Stopped)]
        asking = [result for result in results if isinstance(result, Asking)]
        _record_intents(connection, prepared, worker, lease_s)
        _stop(connection, stopped)
        if asking:
            ids = [each.gated.postback_id for each in asking]
            connection.execute(_KEEP_LEASED, {"ids": ids, "lease_s": lease_s})
        if len(rows) < len(found):
            park_leased(connection, token, [row.id for row in found if row.is_stopped])
        return Gate(prepared, stopped, len(postback_ids) - len(found), asking, len(found) - len(rows))

    return retried(engine, run)


def give_back(
    engine: Engine, token: int, postback_ids: Sequence[int], delay_s: float, spacing_s: float = 0.0
) -> int:
    """Return leased postbacks unfired, no attempt spent: the k-th is due again after ``delay_s + k * spacing_s``
    seconds, k from 0 in the order given. Returns how many.

    Where their destination has a queue of its own they go back to their place there, and it is not drawn from for
    ``delay_s`` seconds.
    """
    statement = text("""
        UPDATE postbacks p
        SET state = CASE WHEN attempts = 0 THEN 'held' ELSE 'retrying' END, lease_token = NULL,
            due_at = now() + make_interval(secs => :delay_s + (back.place - 1) * :spacing_s)
        FROM unnest(CAST(:ids AS bigint[])) WITH ORDINALITY AS back(id, place)
        WHERE p.id = back.id AND state = 'leased' AND lease_token = :token""")
    with engine.begin() as connection:
        destination = own_queue(connection, postback_ids[0])
        if destination is not None:
            wait(connection, destination, delay_s)
            return park_leased(connection, token, postback_ids)
        return connection.execute(
            statement,
            {"ids": list(postback_ids), "token": token, "delay_s": delay_s, "spacing_s": spacing_s},
        ).rowcount


def extend(engine: Engine, tokens: Sequence[tuple[int, int]], lease_s: float) -> int:
    """Renew the leases of attempts and questions still on the wire, given as ``(postback id, token)``. Returns how many held."""
    rows = as_json([{"id": number, "token": token} for number, token in sorted(tokens)])
    statement = text("""
        UPDATE postbacks p SET due_at = now() + make_interval(secs => :lease_s)
        FROM json_to_recordset(:rows) AS r(id bigint, token bigint)
        WHERE p.id = r.id AND p.state IN ('firing', 'leased') AND p.lease_token = r.token""")
    with engine.begin() as connection:
        return connection.execute(statement, {"rows": rows, "lease_s": lease_s}).rowcount


def settle(engine: Engine, attempts: Sequence[SettledAttempt]) -> Settlement:
    """Write down what became of attempts, with all their evidence, in one fenced transaction.

    The hops of an attempt that was rescued meanwhile are kept too: they are evidence of a late answer.
    """
    return retried(engine, lambda connection: _settle(connection, attempts))


def settle_lost(
    engine: Engine, judge: Callable[[LostAttempt], SettledAttempt], *, limit: int = 500
) -> list[SettledAttempt]:
    """Take back attempts whose worker fell silent; ``judge`` says what becomes of each."""

    def run(connection: Connection) -> list[SettledAttempt]:
        rows = connection.execute(_LOCK_LOST, {"limit": limit}).all()
        settled = [
            judge(
                LostAttempt(
                    postback_id=row.id,
                    token=row.lease_token,
                    attempt_id=row.attempt_id,
                    number=row.attempts,
                    version_id=row.version_id,
                    worker=row.worker,
                    intent_at=row.intent_at,
                    first_attempt_at=row.first_attempt_at,
                    expires_at=row.expires_at,
                    had_unknown=row.had_unknown,
                    event=stored_event(row),
                    now=row.now,
                    adjustment=row.adjustment,
                    run=_run(row),
                    budget_from=row.budget_from,
                )
            )
            for row in rows
        ]
        if settled:
            _settle(connection, settled)
        return settled

    return retried(engine, run)


def _run(row: Row[Any]) -> Run | None:
    return None if row.run_id is None else Run(row.run_id, row.run_who, row.run_reason)


def _correction(row: Row[Any]) -> Correction | None:
    if row.adjustment is None:
        return None
    reported = row.value if row.reported is None else row.reported
    return Correction(row.adjustment, reported, row.retracted, by_hand=bool(row.by_hand))


def stored_event(row: Row[Any]) -> ConversionEvent | StoredConversion:
    """The stored event, with the click ids that were found for it. Validation takes a few more writings of an instant than unpacking does, such as a lower-case z."""
    try:
        return read_stored_conversion(row.event, row.matched)
    except ValueError:
        event = read_stored(row.event)
        assert isinstance(event, ConversionEvent)
        return attributed(event, read_matches(row.matched))


def _record_intents(connection: Connection, prepared: list[Prepared], worker: str, lease_s: float) -> None:
    if prepared:
        rows = [
            {
                "id": p.gated.postback_id,
                "attempt_id": p.gated.attempt_id,
                "number": p.gated.number,
                "url": p.shown_url,
                "sending": None if p.told is None else str(p.told),
            }
            for p in prepared
        ]
        connection.execute(_RECORD_INTENTS, {"rows": as_json(rows), "worker": worker, "lease_s": lease_s})


def _stop(connection: Connection, stopped: list[Stopped]) -> None:
    if stopped:
        adjustments = [s.gated.postback_id for s in stopped if s.gated.correction is not None]
        returned = [s.gated.postback_id for s in stopped if _returns(s)]
        _lock_corrected(connection, adjustments)
        connection.execute(_STOP, {"rows": as_json(map(_stop_row, stopped))})
        if adjustments or returned:
            ended = connection.execute(_ENDED, {"ids": [*adjustments, *returned]}).all()
            _follow_up(connection, ended)
        gone = [s for s in stopped if s.state in {State.EXPIRED, State.VOIDED} and not _returns(s)]
        promote_duplicates(connection, [s.gated.postback_id for s in gone])


def _returns(stopped: Stopped) -> bool:
    """Whether a person fired again what the network has, or may have: it is that again."""
    return stopped.delay_s is None and stopped.gated.falls_back is not None


def _stop_row(stopped: Stopped) -> dict[str, Any]:
    back = stopped.gated.falls_back if _returns(stopped) else None
    return {
        "id": stopped.gated.postback_id,
        "state": back or stopped.state,
        "reason": f"fired again, it came to nothing: {stopped.reason}" if back else stopped.reason,
        "delay_s": stopped.delay_s,
        "void_reason": None if back else stopped.void_reason,
    }


def _settle(connection: Connection, attempts: Sequence[SettledAttempt]) -> Settlement:
    rows = [
        {
            "id": a.postback_id,
            "token": a.token,
            "state": a.state,
            "next_attempt_at": a.next_attempt_at,
            "reason": a.reason,
            "unknown": a.verdict == "unknown",
            "told": None if a.told is None else str(a.told),
        }
        for a in sorted(attempts, key=lambda a: a.postback_id)
    ]
    _lock_corrected(connection, [a.postback_id for a in attempts if a.adjustment])
    written = connection.execute(_SETTLE, {"rows": as_json(rows)}).all()
    states = {row.id: State(row.state) for row in written}
    promote_duplicates(
        connection, sorted(number for number, state in states.items() if state is State.VOIDED)
    )
    corrected = _follow_up(connection, [row for row in written if row.adjusts or row.overtaken or row.wished])
    record_wishes(connection, {row.id: states[row.id] for row in written if row.wished}, corrected)
    settled = [a for a in attempts if a.postback_id in states]
    copy_rows(
        connection, "attempts", ATTEMPT_COLUMNS, (_attempt_row(a, states[a.postback_id]) for a in settled)
    )
    stale = [a for a in attempts if a.postback_id not in states]
    late = _without_hops(connection, stale)
    copy_rows(connection, "hops", HOP_COLUMNS, (hop_row(a, hop) for a in [*settled, *late] for hop in a.hops))
    return Settlement(states, stale)


def _lock_corrected(connection: Connection, adjustments: list[int]) -> None:
    """What they correct is locked first, in the order of ids that all keep to."""
    if adjustments:
        connection.execute(_LOCK_CORRECTED, {"ids": adjustments})


def _follow_up(connection: Connection, ended: Sequence[Row[Any]]) -> dict[int, FollowUp]:
    """Correct what was delivered and does not stand any more; what is done about each."""
    versions: dict[int, DestinationVersion] = {}

    def version(number: int) -> DestinationVersion:
        if number not in versions:
            versions[number] = read_version(connection, number)
        return versions[number]

    return after_settling(connection, ended, version) if ended else {}


def _without_hops(connection: Connection, stale: list[SettledAttempt]) -> list[SettledAttempt]:
    """Those whose hops are not kept yet. They are, when the connection broke after the commit and before its answer."""
    if not stale:
        return []
    known = set(
        connection.execute(
            text("SELECT attempt_id FROM hops WHERE attempt_id = ANY(:ids)"),
            {"ids": [a.attempt_id for a in stale]},
        ).scalars()
    )
    return [a for a in stale if a.attempt_id not in known]


def _attempt_row(a: SettledAttempt, state: State) -> tuple[str, ...]:
    notes = None if not a.notes else "{" + ",".join(_array_item(note) for note in a.notes) + "}"
    next_attempt_at = a.next_attempt_at if state is State.RETRYING else None
    text_, value = copy_text, copy_value
    return (
        str(a.attempt_id), str(a.postback_id), str(a.version_id), str(a.number), value(a.status_code),
        str(a.intent_at), str(a.ended_at), value(next_attempt_at), value(a.delay_s if next_attempt_at else None),
        a.trigger, text_(a.worker), version.VERSION, a.verdict.value, text_(a.rule), state.value,
        text_(a.error_class), text_(a.error_message), text_(a.click_id), text_(notes),
    )  # fmt: skip


def hop_row(a: SettledAttempt | SettledCheck, hop: Hop) -> tuple[str, ...]:
    """A hop as ``HOP_COLUMNS``, ready to be copied in."""
    failure = f"{hop.failure.kind}: {hop.failure.message}" if hop.failure else None
    digest = "\\N" if hop.body_sha256 is None else f"\\\\x{hop.body_sha256}"
    text_, value = copy_text, copy_value
    return (
        str(a.attempt_id), str(a.intent_at), str(hop.started_at), str(hop.body_length), str(hop.number),
        value(hop.status_code), value(hop.reused), str(hop.truncated), value(hop.dns_ms), value(hop.connect_ms),
        value(hop.first_byte_ms), value(hop.total_ms), text_(hop.method), text_(hop.url),
        copy_bytes(hop.request_head), copy_bytes(hop.request_body), " ".join(hop.addresses), text_(hop.peer),
        text_(hop.local), text_(hop.tls_version), copy_bytes(hop.response_head), copy_bytes(hop.body), digest,
        text_(hop.body_error), text_(failure),
    )  # fmt: skip


def _array_item(text_: str) -> str:
    return '"' + text_.replace("\\", "\\\\").replace('"', '\\"') + '"'


def database_now(engine: Engine) -> datetime:
    """The clock by which everything is due."""
    with engine.connect() as connection:
        instant: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        return instant
