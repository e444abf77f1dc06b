"""Putting back what a run was to fire again and has not: it is again what it was, reason and instants included."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from infra.store import correcting
from infra.store.by_hand import Signature
from infra.store.destinations import read_version
from infra.store.replays.replay_look import LOCK
from infra.store.replays.replay_records import UnknownRunError
from infra.store.replays.replaying import BATCH, sign
from infra.store.rulings import promote_duplicates
from infra.store.transactions import retried

# Not fired since the run moved it, and the run is still the last that did.
_UNFIRED = """r.run_id = :run AND r.refused IS NULL AND r.came_to IS NULL AND p.id = r.postback_id AND p.run_id = r.run_id
    AND p.state IN ('held', 'retrying', 'leased') AND p.attempts = r.attempts"""
_NEXT = text(f"""
    SELECT p.id FROM replays r, postbacks p
    WHERE {_UNFIRED} AND r.postback_id > :after ORDER BY r.postback_id LIMIT :limit""")  # noqa: S608 — fixed fragments

# One that had not claimed its key, or had been freed, gives its place away again.
_PUT_BACK = text(f"""
    UPDATE postbacks p SET state = r.from_state, due_at = NULL, lease_token = NULL, falls_back = NULL,
        version_id = (r.before->>'version_id')::integer, expires_at = (r.before->>'expires_at')::timestamptz,
        first_attempt_at = (r.before->>'first_attempt_at')::timestamptz,
        settled_at = (r.before->>'settled_at')::timestamptz, reason = r.before->>'reason',
        void_reason = r.before->>'void_reason', budget_from = (r.before->>'budget_from')::smallint,
        had_unknown = (r.before->>'had_unknown')::boolean, run_id = (r.before->>'run_id')::integer,
        freed = r.from_state IN ('dead', 'rejected') AND (r.claimed OR (r.before->>'freed')::boolean)
    FROM replays r WHERE {_UNFIRED} AND p.id = ANY(:ids)
    RETURNING p.id, p.state, p.adjusts, r.claimed, p.freed, r.from_state""")  # noqa: S608 — fixed fragments
_NOTED = text("UPDATE replays SET came_to = 'put back' WHERE run_id = :run AND postback_id = ANY(:ids)")


def stop(engine: Engine, run_id: int, signature: Signature) -> int:
    """End a run: nothing more of it is moved, and what has not fired is put back. Returns how many were.

    After an interruption, calling it again does the rest. Raises UnknownRunError.
    """
    return _halt(engine, run_id, signature, "stop")


def pause(engine: Engine, run_id: int, signature: Signature) -> int:
    """As ``stop``, but ``resume`` lets the run go on with what was put back. Raises UnknownRunError."""
    return _halt(engine, run_id, signature, "pause")


def _halt(engine: Engine, run_id: int, signature: Signature, how: str) -> int:
    mark = {"stop": "stopped_at", "pause": "paused_at"}[how]

    def begin(connection: Connection) -> None:
        found = connection.execute(
            text(f"UPDATE replay_runs SET {mark} = coalesce({mark}, now()) WHERE id = :id RETURNING id"),  # noqa: S608 — one of ours
            {"id": run_id},
        ).all()
        if not found:
            raise UnknownRunError(run_id)
        connection.execute(
            text("""
            INSERT INTO audit (who, action, detail)
            VALUES (:who, :action, jsonb_build_object('run', CAST(:run AS integer), 'reason', CAST(:reason AS text)))"""),
            {
                "who": signature.who,
                "action": f"replay.{how}",
                "run": run_id,
                "reason": signature.reason,
            },
        )

    retried(engine, begin)
    after, count = 0, 0
    while True:
        with engine.connect() as connection:
            given = {"run": run_id, "after": after, "limit": BATCH}
            ids = list(connection.execute(_NEXT, given).scalars())
        if not ids:
            return count
        count += retried(engine, lambda connection, ids=ids: _put_back(connection, run_id, ids, signature))  # type: ignore[misc]  # mypy takes no default for a lambda
        after = ids[-1]


def _put_back(connection: Connection, run_id: int, ids: list[int], signature: Signature) -> int:
    connection.execute(LOCK, {"ids": ids})
    rows = connection.execute(_PUT_BACK, {"run": run_id, "ids": ids}).all()
    done = [row.id for row in rows]
    connection.execute(_NOTED, {"run": run_id, "ids": done})
    detail = {"reason": signature.reason, "run": run_id}
    sign(
        connection,
        signature.who,
        "postback.put_back",
        [{"id": row.id, "detail": detail | {"to_state": row.state}} for row in rows],
    )
    promote_duplicates(connection, sorted(row.id for row in rows if row.freed or row.claimed))
    _look_again(connection, rows)
    return len(done)


def _look_again(connection: Connection, rows: list[Row[Any]] | Any) -> None:
    """What was delivered is delivered again, and what a correction was to tell is not being told any more."""
    delivered = {row.id for row in rows if row.state == "delivered" and row.adjusts is None}
    failed = {row.adjusts for row in rows if row.adjusts is not None}
    correcting.look_again(
        connection, sorted(delivered | failed), lambda number: read_version(connection, number), failed
    )
