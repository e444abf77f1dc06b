"""Runs of replays: what a person fires again, a batch a transaction, resumable, and put back while it has not fired.

``plan`` says what a run would do; ``begin`` writes it down; ``advance`` does one batch and is called until the record has an
``ended_at``, by whoever likes, in however many processes. ``stop`` and ``pause`` put back what has not fired yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, Engine, Row, text

from infra.db.engine import as_json
from infra.store.by_hand import Signature
from infra.store.dedupe import claim_keys
from infra.store.intake import serialise
from infra.store.replays.replay_look import (
    LOCK,
    Looked,
    Options,
    as_before,
    look,
    needing_keys,
    not_looked_at,
)
from infra.store.replays.replay_records import (
    ReplayPlan,
    RunRecord,
    UnknownRunError,
    progress,
    record,
    summed,
)
from infra.store.selection import Selection, extent, next_stretch, stretches
from infra.store.transactions import retried
from schemas.ids import show
from schemas.replaying import Again, Refused

BATCH = 1000
"""Postbacks a transaction: their locks are held for a fraction of a second."""
_SELECTIONS: TypeAdapter[Selection] = TypeAdapter(Selection)


class _NeedsAllIntakeError(RuntimeError):
    """Something in the batch has to claim its dedupe key, which no intake may claim meanwhile."""


def consider(
    engine: Engine, selection: Selection, options: Options, last: int, *, batch: int = BATCH
) -> Iterator[list[Looked]]:
    """What a run would decide now, batch by batch; nothing is changed."""
    for ids in stretches(engine, selection, last, batch):
        with engine.connect() as connection:
            yield look(connection, selection, ids, options)


def plan(
    engine: Engine, selection: Selection, force: bool = False, *, with_current_version: bool = False
) -> ReplayPlan:
    """The dry run: counts by state and decision, what it would be worth, and a sample. Nothing is changed."""
    there = extent(engine, selection)
    options = Options(force=force, with_current_version=with_current_version)
    return summed(there, consider(engine, selection, options, there.last))


def begin(
    engine: Engine,
    selection: Selection,
    options: Options,
    signature: Signature,
) -> int:
    """Write down a run over everything that matches now; ``advance`` does it. Returns its id."""
    there = extent(engine, selection)
    query = text("""
        INSERT INTO replay_runs (who, reason, selection, forced, with_current_version, per_second, matching, last_id)
        VALUES (:who, :reason, CAST(:selection AS jsonb), :forced, :current, :per_second, :matching, :last)
        RETURNING id""")
    with engine.begin() as connection:
        number: int = connection.execute(
            query,
            {
                "who": signature.who,
                "reason": signature.reason,
                "selection": _SELECTIONS.dump_json(selection).decode(),
                "forced": options.force,
                "current": options.with_current_version,
                "per_second": options.per_second,
                "matching": there.count,
                "last": there.last,
            },
        ).scalar_one()
        _audit(connection, signature.who, "replay.begin", number, {"reason": signature.reason})
        return number


def advance(engine: Engine, run_id: int, *, batch: int = BATCH) -> RunRecord:
    """One batch of a run: decide on each postback under its lock, move it or write down why not. Safe to call again,
    from anywhere, at any time: two that do wait for each other. Raises UnknownRunError.
    """
    try:
        return retried(engine, lambda connection: _advance(connection, run_id, batch, alone=False))
    except _NeedsAllIntakeError:
        return retried(engine, lambda connection: _advance(connection, run_id, batch, alone=True))


def _advance(connection: Connection, run_id: int, batch: int, *, alone: bool) -> RunRecord:
    run = _lock_run(connection, run_id)
    if run.halted or run.ended_at is not None:
        return run
    if alone:
        serialise(connection, exclusive=True)
    stretch = next_stretch(connection, run.selection, run.after_id, run.last_id, batch, not_looked_at(run_id))
    connection.execute(LOCK, {"ids": stretch.ids})
    looked = _look(connection, run, stretch.ids)
    wanted = needing_keys([each for each in looked if isinstance(each.decision, Again)])
    if wanted:
        if not alone:
            raise _NeedsAllIntakeError
        holders = claim_keys(connection, wanted)
        if any(holders[key] != number for key, number in wanted.items()):
            looked = _look(
                connection, run, stretch.ids
            )  # one was given to another by hand while it was waited for
    moved = [each for each in looked if isinstance(each.decision, Again)]
    refused = [each for each in looked if isinstance(each.decision, Refused)]
    dues = _due(run, moved)
    _move(connection, run, moved, dues)
    new = _write_down(connection, run, moved, refused)
    _sign(connection, run, moved, dues)
    next_at = dues[-1] + _spacing(run) if dues else run.next_at
    row = connection.execute(
        text("""
        UPDATE replay_runs SET after_id = :after, next_at = :next_at, moved = moved + :moved,
            refused = refused + :refused, ended_at = CASE WHEN :after >= last_id THEN clock_timestamp() END
        WHERE id = :id RETURNING *, now() AS now"""),
        {
            "id": run_id,
            "after": stretch.upto,
            "next_at": next_at,
            "moved": new,
            "refused": len(refused),
        },
    ).one()
    return _read(row)


def _look(connection: Connection, run: RunRecord, ids: Sequence[int]) -> list[Looked]:
    return look(connection, run.selection, ids, run.options)


def _spacing(run: RunRecord) -> timedelta:
    return timedelta(seconds=1 / run.options.per_second)


def _due(run: RunRecord, moved: Sequence[Looked]) -> list[datetime]:
    """When each is due, spread by the run's own rate; a window that is open still is waited for."""
    start = max(run.next_at, run.now)
    return [start + place * _spacing(run) for place in range(len(moved))]


_MOVE = text("""
    UPDATE postbacks p SET state = r.state, due_at = greatest(r.due_at, p.release_at), version_id = r.version_id,
        run_id = :run, budget_from = p.attempts, first_attempt_at = NULL, falls_back = r.falls_back, freed = false,
        had_unknown = p.had_unknown OR p.state = 'in_doubt', void_reason = NULL, settled_at = NULL, reason = :reason,
        expires_at = CASE WHEN r.ageless THEN NULL ELSE p.expires_at END, overtaken = false,
        asked = 0, asked_since = NULL, confirmed_at = NULL, lost = NULL, lost_at = NULL
    FROM json_to_recordset(:rows) AS r(id bigint, state text, due_at timestamptz, version_id integer, falls_back text,
        ageless boolean)
    WHERE p.id = r.id""")

# A correction is under way again, so what could not be told is not lost just now.
_FOUND_AGAIN = text(
    "UPDATE postbacks SET lost = NULL, lost_at = NULL WHERE id = ANY(:ids) AND lost_at IS NOT NULL"
)

# What an earlier run brought it to stands as it was when this one takes it up.
_TAKEN_UP = text("""
    UPDATE replays r SET came_to = x.from_state
    FROM json_to_recordset(:rows) AS x(postback_id bigint, before_run integer, from_state text)
    WHERE r.run_id = x.before_run AND r.postback_id = x.postback_id AND r.came_to IS NULL""")


def _move(connection: Connection, run: RunRecord, moved: Sequence[Looked], dues: Sequence[datetime]) -> None:
    if not moved:
        return
    rows = []
    for each, due_at in zip(moved, dues, strict=True):
        decision = each.decision
        assert isinstance(decision, Again)
        rows.append(
            {
                "id": each.row.id,
                "state": decision.state,
                "due_at": due_at,
                "version_id": each.version.id,
                "falls_back": decision.falls_back,
                "ageless": decision.ageless,
            }
        )
    reason = f"fired again in {show('rn', run.id)}: {run.reason}"
    connection.execute(_MOVE, {"rows": as_json(rows), "run": run.id, "reason": reason})
    corrected = [each.row.adjusts for each in moved if each.row.adjusts is not None]
    if corrected:
        connection.execute(_FOUND_AGAIN, {"ids": corrected})


_WRITE_DOWN = text("""
    INSERT INTO replays (run_id, postback_id, from_state, refused, claimed, attempts, before, warnings)
    SELECT :run, r.postback_id, r.from_state, r.refused, r.claimed, r.attempts, r.before,
        CASE WHEN r.warnings IS NOT NULL THEN ARRAY(SELECT json_array_elements_text(r.warnings)) END
    FROM json_to_recordset(:rows) AS r(postback_id bigint, from_state text, refused text, claimed boolean,
        attempts smallint, before jsonb, warnings json)
    ON CONFLICT (run_id, postback_id) DO UPDATE SET from_state = EXCLUDED.from_state, refused = EXCLUDED.refused,
        came_to = NULL, claimed = EXCLUDED.claimed, attempts = EXCLUDED.attempts, before = EXCLUDED.before,
        warnings = EXCLUDED.warnings""")
_PUT_BACK_BEFORE = text("SELECT count(*) FROM replays WHERE run_id = :run AND postback_id = ANY(:ids)")


def _write_down(
    connection: Connection, run: RunRecord, moved: Sequence[Looked], refused: Sequence[Looked]
) -> int:
    """A row each. Returns the number moved, less those that the run had moved before and put back."""
    if not moved and not refused:
        return 0
    ids = [each.row.id for each in (*moved, *refused)]
    again = connection.execute(_PUT_BACK_BEFORE, {"run": run.id, "ids": ids}).scalar_one()
    rows = [_row(each) for each in sorted((*moved, *refused), key=lambda each: each.row.id)]
    connection.execute(_WRITE_DOWN, {"run": run.id, "rows": as_json(rows)})
    before = [
        {"postback_id": each.row.id, "before_run": each.row.run_id, "from_state": each.row.state}
        for each in moved
        if each.row.run_id not in {None, run.id}
    ]
    if before:
        connection.execute(_TAKEN_UP, {"rows": as_json(before)})
    return len(moved) - int(again)


def _row(each: Looked) -> dict[str, Any]:
    decision = each.decision
    row: dict[str, Any] = {"postback_id": each.row.id, "from_state": each.row.state, "claimed": False}
    if isinstance(decision, Refused):
        return row | {"refused": decision.words}
    return row | {
        "claimed": each.key is not None,
        "attempts": each.row.attempts,
        "before": as_before(each.row),
        "warnings": list(decision.warnings) or None,
    }


def _sign(connection: Connection, run: RunRecord, moved: Sequence[Looked], dues: Sequence[datetime]) -> None:
    """Who did it and why, a row a postback."""
    rows = []
    for each, due_at in zip(moved, dues, strict=True):
        decision = each.decision
        assert isinstance(decision, Again)
        detail = {
            "reason": run.reason,
            "run": run.id,
            "state": each.row.state,
            "to_state": decision.state,
            "attempts": each.row.attempts,
            "due_at": max(due_at, each.row.release_at).isoformat(),
            "overruled": list(decision.warnings),
            "version": each.version.number if each.version.id != each.row.version_id else None,
        }
        rows.append({"id": each.row.id, "detail": detail})
    sign(connection, run.who, "postback.replay", rows)


def sign(connection: Connection, who: str, action: str, rows: Sequence[dict[str, Any]]) -> None:
    """Write an act into the audit, a row a postback, each with its ``id`` and ``detail``."""
    if rows:
        connection.execute(
            text("""
            INSERT INTO audit (who, action, detail, postback_id)
            SELECT :who, :action, detail, id FROM json_to_recordset(:rows) AS r(id bigint, detail jsonb) ORDER BY id"""),
            {"who": who, "action": action, "rows": as_json(rows)},
        )


def _audit(connection: Connection, who: str, action: str, run_id: int, detail: dict[str, Any]) -> None:
    connection.execute(
        text("INSERT INTO audit (who, action, detail) VALUES (:who, :action, CAST(:detail AS jsonb))"),
        {"who": who, "action": action, "detail": as_json([detail | {"run": run_id}])[1:-1]},
    )


def _lock_run(connection: Connection, run_id: int) -> RunRecord:
    row = connection.execute(
        text("SELECT *, now() AS now FROM replay_runs WHERE id = :id FOR UPDATE"), {"id": run_id}
    ).one_or_none()
    if row is None:
        raise UnknownRunError(run_id)
    return _read(row)


def _read(row: Row[Any]) -> RunRecord:
    return record(row, _SELECTIONS.validate_python(row.selection))


def runs(engine: Engine) -> list[RunRecord]:
    """All runs, the newest first, without their progress."""
    with engine.connect() as connection:
        query = text("SELECT *, now() AS now FROM replay_runs ORDER BY id DESC")
        return [_read(row) for row in connection.execute(query)]


def run(engine: Engine, run_id: int) -> RunRecord:
    """One run with its progress, as of now. Raises UnknownRunError."""
    with engine.connect() as connection:
        query = text("SELECT *, now() AS now FROM replay_runs WHERE id = :id")
        row = connection.execute(query, {"id": run_id}).one_or_none()
        if row is None:
            raise UnknownRunError(run_id)
        return replace(_read(row), progress=progress(connection, run_id))


def resume(engine: Engine, run_id: int, who: str) -> RunRecord:
    """Let a paused run go on, from its beginning: what was put back is looked at again. Raises UnknownRunError."""

    def go_on(connection: Connection) -> RunRecord:
        found = _lock_run(connection, run_id)
        if found.paused_at is None or found.stopped_at is not None:
            return found
        row = connection.execute(
            text("""
            UPDATE replay_runs SET paused_at = NULL, ended_at = NULL, after_id = 0, next_at = now()
            WHERE id = :id RETURNING *, now() AS now"""),
            {"id": run_id},
        ).one()
        _audit(connection, who, "replay.resume", run_id, {})
        return _read(row)

    return retried(engine, go_on)
