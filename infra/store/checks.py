"""Settling questions before release: the answer, its evidence, and what becomes of the postback, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, text

from infra import version
from infra.db.engine import as_json, copy_rows
from infra.store import correcting
from infra.store.destinations import read_version
from infra.store.firing import HOP_COLUMNS, hop_row
from infra.store.rulings import promote_duplicates
from infra.store.transactions import retried
from schemas.lifecycle import State
from schemas.postback import SettledCheck

# Fenced by id, state and lease token: what a signal voided meanwhile, or rescue took back, is not touched. What may be
# released goes before all that is due since its window ended: behind a long queue its confirmation would grow stale.
_MOVE = text("""
    UPDATE postbacks p
    SET state = CASE WHEN r.move = 'void' THEN coalesce(p.falls_back, 'voided') WHEN p.attempts = 0 THEN 'held' ELSE 'retrying' END,
        void_reason = CASE WHEN p.falls_back IS NULL THEN coalesce(r.void_reason, p.void_reason) END,
        reason = r.reason, lease_token = NULL, falls_back = CASE WHEN r.move <> 'void' THEN p.falls_back END,
        due_at = CASE r.move WHEN 'release' THEN p.release_at
            WHEN 'again' THEN now() + make_interval(secs => r.delay_s) END,
        settled_at = CASE WHEN r.move = 'void' THEN now() END,
        confirmed_at = CASE WHEN r.move = 'release' THEN r.ended_at ELSE p.confirmed_at END,
        asked = CASE WHEN r.move = 'again' THEN least(p.asked + 1, 32767) ELSE 0 END,
        asked_since = CASE WHEN r.move = 'again' THEN coalesce(p.asked_since, r.intent_at) END
    FROM json_to_recordset(:rows) AS r(id bigint, token bigint, check_id bigint, move text, reason text,
        void_reason text, delay_s float8, intent_at timestamptz, ended_at timestamptz)
    WHERE p.id = r.id AND p.state = 'leased' AND p.lease_token = r.token
    RETURNING r.check_id, p.id, p.state, CASE WHEN r.move = 'again' THEN p.due_at END AS asks_again_at""")

_RECORD = text("""
    INSERT INTO checks (id, postback_id, version_id, number, status_code, intent_at, ended_at, asks_again_at, worker,
        worker_version, stale, verdict, rule, error_class, error_message)
    SELECT r.id, r.postback_id, r.version_id,
        (SELECT least(count(*) + 1, 32767) FROM checks k WHERE k.postback_id = r.postback_id), r.status_code,
        r.intent_at, r.ended_at, r.asks_again_at, r.worker, :worker_version, r.stale, r.verdict, r.rule,
        r.error_class, r.error_message
    FROM json_to_recordset(:rows) AS r(id bigint, postback_id bigint, version_id integer, status_code smallint,
        intent_at timestamptz, ended_at timestamptz, asks_again_at timestamptz, worker text, stale boolean,
        verdict text, rule text, error_class text, error_message text)
    RETURNING id, number""")


@dataclass(frozen=True, slots=True)
class CheckSettlement:
    """By check id: ``states`` the postbacks went to (none for a stale answer), and which question ``numbers`` it was of
    its postback, from 1."""

    states: dict[int, State]
    numbers: dict[int, int]


def settle_checks(engine: Engine, checks: Sequence[SettledCheck]) -> CheckSettlement:
    """Write down what a service answered, with all the evidence, and move the postbacks that were asked about.

    A stale answer (its postback was voided meanwhile, or its lease ran out) is kept as evidence and moves nothing.
    """
    return retried(engine, lambda connection: _settle(connection, checks))


def _settle(connection: Connection, checks: Sequence[SettledCheck]) -> CheckSettlement:
    ordered = sorted(checks, key=lambda check: check.postback_id)
    moved = connection.execute(_MOVE, {"rows": as_json([_move_row(check) for check in ordered])}).all()
    states = {row.check_id: State(row.state) for row in moved}
    _look_again(connection, sorted(row.id for row in moved if row.state == State.DELIVERED))
    promote_duplicates(connection, sorted(row.id for row in moved if row.state == State.VOIDED))
    fresh = _without_rows(connection, ordered, states)
    again = {row.check_id: row.asks_again_at for row in moved}
    rows = [_check_row(check, again.get(check.attempt_id), check.attempt_id not in states) for check in fresh]
    numbers = connection.execute(_RECORD, {"rows": as_json(rows), "worker_version": version.VERSION}).all()
    copy_rows(connection, "hops", HOP_COLUMNS, (hop_row(check, hop) for check in fresh for hop in check.hops))
    return CheckSettlement(states, {row.id: row.number for row in numbers})


def _look_again(connection: Connection, ids: list[int]) -> None:
    """Delivered before, and not fired again: what stands may have changed while it waited for that."""
    correcting.look_again(connection, ids, lambda number: read_version(connection, number))


def _without_rows(
    connection: Connection, checks: list[SettledCheck], states: dict[int, State]
) -> list[SettledCheck]:
    """Those that are not kept yet. They are, when the connection broke after the commit and before its answer."""
    stale = [check.attempt_id for check in checks if check.attempt_id not in states]
    if not stale:
        return checks
    query = text("SELECT id FROM checks WHERE id = ANY(:ids)")
    known = set(connection.execute(query, {"ids": stale}).scalars())
    return [check for check in checks if check.attempt_id not in known]


def _move_row(check: SettledCheck) -> dict[str, object]:
    decision = check.decision
    return {
        "id": check.postback_id,
        "token": check.token,
        "check_id": check.attempt_id,
        "move": decision.move,
        "reason": decision.reason,
        "void_reason": decision.void_reason,
        "delay_s": None if decision.delay is None else decision.delay.total_seconds(),
        "intent_at": check.intent_at,
        "ended_at": check.ended_at,
    }


def _check_row(check: SettledCheck, asks_again_at: datetime | None, stale: bool) -> dict[str, object]:
    return {
        "id": check.attempt_id,
        "postback_id": check.postback_id,
        "version_id": check.version_id,
        "status_code": check.status_code,
        "intent_at": check.intent_at,
        "ended_at": check.ended_at,
        "asks_again_at": asks_again_at,
        "worker": check.worker,
        "stale": stale,
        "verdict": check.verdict.kind,
        "rule": check.verdict.rule,
        "error_class": check.error_class,
        "error_message": check.error_message and _storable(check.error_message),
    }


def _storable(message: str) -> str:
    """What came over the wire may hold what PostgreSQL's text cannot."""
    return message.replace("\0", "").encode("utf-8", "replace").decode()
