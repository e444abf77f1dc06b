"""Carrying out what a person does by hand, to one postback or to all that match, each with its row in the audit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, TextClause, text

from infra.db.engine import as_json
from infra.store import correcting
from infra.store.destinations import read_version
from infra.store.rulings import VOIDABLE_SQL, promote_duplicates
from infra.store.searching.criteria import run as run_on
from infra.store.selection import Selection, stretches
from infra.store.stopping.stopping import STOPPED_VERSIONS
from infra.store.transactions import retried
from schemas.by_hand import Act, Decision, Errand, Moved, Postback, decide
from schemas.lifecycle import State

BATCH = 1000
"""Postbacks a transaction: their locks are held for a fraction of a second."""


@dataclass(frozen=True, slots=True)
class Signature:
    """Who does it, and why: both are kept with every postback that is moved."""

    who: str
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of the errand at one postback."""

    postback_id: int
    conversion_id: int
    state: State
    """Before."""
    release_at: datetime
    """Before."""
    decision: Decision


def consider(
    engine: Engine, selection: Selection, errand: Errand, last: int, *, batch: int = BATCH
) -> Iterator[list[Answer]]:
    """What ``carry_out`` would do now, batch by batch; nothing is changed or locked."""
    for ids in stretches(engine, selection, last, batch):
        with engine.connect() as connection:
            yield [_answer(errand, row) for row in _look(connection, selection, ids, lock=False)]


def carry_out(  # noqa: PLR0913 — what, at which ones, by whom, and how many at a time
    engine: Engine,
    selection: Selection,
    errand: Errand,
    signature: Signature,
    last: int,
    *,
    batch: int = BATCH,
) -> Iterator[list[Answer]]:
    """Do it to every postback that matches up to the id ``last``, in the order of their ids, ``batch`` a transaction.

    Each is decided on under its row lock, and looked at again if it was waited for: of a hand and the fire gate, a
    signal or another hand one goes first, and the other sees what it did. Yields what was committed; going on
    after an interruption is calling it again.
    """
    for ids in stretches(engine, selection, last, batch):

        def run(connection: Connection, ids: list[int] = ids) -> list[Answer]:
            answers = [_answer(errand, row) for row in _look(connection, selection, ids, lock=True)]
            _do(connection, errand.act, signature, answers)
            return answers

        if answers := retried(engine, run):
            yield answers


def _look(connection: Connection, selection: Selection, ids: list[int], *, lock: bool) -> Sequence[Row[Any]]:
    """Those of ``ids`` that match. Under lock, the conditions hold of what was committed while it was waited for."""
    where, values = selection.conditions()
    query = f"""
        SELECT p.id, p.conversion_id, p.state, p.attempts, p.release_at, p.expires_at, p.void_reason,
            (p.due_at = 'infinity') IS TRUE AS waits_for_hand, p.let_go_at IS NOT NULL AS let_go, p.falls_back,
            now() AS now, p.version_id IN ({STOPPED_VERSIONS}) AS stopped
        FROM postbacks p JOIN conversions c ON c.id = p.conversion_id
        WHERE p.id = ANY(:ids) AND {where} ORDER BY p.id"""  # noqa: S608 — fixed fragments
    query += " FOR UPDATE OF p" if lock else ""
    return run_on(connection, query, values | {"ids": ids})


def _answer(errand: Errand, row: Row[Any]) -> Answer:
    state = State(row.state)
    postback = Postback(
        state=state,
        attempts=row.attempts,
        release_at=row.release_at,
        expires_at=row.expires_at,
        void_reason=row.void_reason,
        waits_for_hand=row.waits_for_hand,
        let_go=row.let_go,
        stopped=row.stopped,
        falls_back=None if row.falls_back is None else State(row.falls_back),
    )
    return Answer(row.id, row.conversion_id, state, row.release_at, decide(errand, postback, row.now))


def _do(connection: Connection, act: Act, signature: Signature, answers: list[Answer]) -> None:
    moved = [(each, each.decision) for each in answers if isinstance(each.decision, Moved)]
    if not moved:
        return
    match act:
        case Act.VOID:
            _void(connection, signature, [(each.postback_id, decision.wish) for each, decision in moved])
        case Act.EXTEND:
            _move(connection, _EXTEND, [(each.postback_id, decision) for each, decision in moved])
        case Act.RELEASE:
            _move(connection, _RELEASE, [(each.postback_id, decision) for each, decision in moved])
    rows = [
        {"id": each.postback_id, "detail": _detail(each, decision, signature)} for each, decision in moved
    ]
    connection.execute(
        text("""
        INSERT INTO audit (who, action, detail, postback_id)
        SELECT :who, :action, detail, id FROM json_to_recordset(:rows) AS r(id bigint, detail jsonb) ORDER BY id"""),
        {"who": signature.who, "action": f"postback.{act}", "rows": as_json(rows)},
    )


def _detail(answer: Answer, decision: Moved, signature: Signature) -> dict[str, Any]:
    return {
        "reason": signature.reason,
        "state": answer.state,
        "to_state": decision.state,
        "wish": decision.wish,
        "from": answer.release_at.isoformat(),
        "to": decision.release_at.isoformat(),
    }


def _void(connection: Connection, signature: Signature, moved: list[tuple[int, bool]]) -> None:
    voided = [number for number, wish in moved if not wish]
    connection.execute(
        text(f"""
        UPDATE postbacks SET state = 'voided', void_reason = 'by_hand', reason = :reason, due_at = NULL,
            lease_token = NULL, settled_at = clock_timestamp()
        WHERE id = ANY(:ids) AND state IN {VOIDABLE_SQL}"""),  # noqa: S608 — literals of ours
        {"ids": voided, "reason": f"voided by {signature.who}: {signature.reason}"},
    )
    connection.execute(
        text("""
        UPDATE postbacks SET void_reason = 'by_hand' WHERE id = ANY(:ids) AND state IN ('firing', 'duplicate')"""),
        {"ids": [number for number, wish in moved if wish]},
    )
    promote_duplicates(connection, voided)
    _give_up_correcting(connection, voided)


def _give_up_correcting(connection: Connection, voided: list[int]) -> None:
    """What an adjustment that a person voided was to tell is lost, until a signal changes what stands.

    What it corrects is locked after it, against the order of ids; who breaks the deadlock that this can make is
    asked again by ``retried``.
    """
    query = text(
        "SELECT DISTINCT adjusts FROM postbacks WHERE id = ANY(:ids) AND adjusts IS NOT NULL ORDER BY 1"
    )
    originals = connection.execute(query, {"ids": voided}).scalars().all()
    correcting.look_again(connection, originals, lambda number: read_version(connection, number), originals)


# The window is open again: what had been let go, by a hand or by its destination's own scheduler, waits for it anew,
# and its service is asked as if for the first time.
_EXTEND = text("""
    UPDATE postbacks p SET release_at = r.release_at, let_go_at = NULL, lease_token = NULL,
        asked = 0, asked_since = NULL, confirmed_at = NULL,
        state = CASE p.state WHEN 'leased' THEN 'held' ELSE p.state END,
        due_at = CASE WHEN p.state = 'duplicate' THEN NULL
            WHEN p.manual OR p.due_at = 'infinity' THEN 'infinity'
            WHEN p.state = 'leased' THEN r.release_at
            ELSE greatest(p.due_at, r.release_at) END
    FROM json_to_recordset(:rows) AS r(id bigint, release_at timestamptz) WHERE p.id = r.id""")

_RELEASE = text("""
    UPDATE postbacks p SET release_at = r.release_at, due_at = least(p.due_at, now()), let_go_at = now()
    FROM json_to_recordset(:rows) AS r(id bigint, release_at timestamptz) WHERE p.id = r.id""")


def _move(connection: Connection, statement: TextClause, moved: list[tuple[int, Moved]]) -> None:
    rows = [{"id": number, "release_at": decision.release_at} for number, decision in moved]
    connection.execute(statement, {"rows": as_json(rows)})
