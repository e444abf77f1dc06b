"""Correcting what was delivered: adjustments are ordered, withdrawn, or a loss is written down, in bulk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row, text

from infra.db.engine import as_json
from schemas.adjustment import (
    NOTHING,
    Adjusting,
    Correction,
    Credit,
    Delivered,
    correct,
    credited,
    lost,
    stands,
)
from schemas.click import read_matches
from schemas.destination import Contract, DestinationVersion
from schemas.lifecycle import State
from schemas.network import AdjustmentKind

# Locked in id order, each original before its adjustments, whose ids are larger.
LOCK = text("SELECT id FROM postbacks WHERE id = ANY(:ids) OR adjusts = ANY(:ids) ORDER BY id FOR UPDATE")
READ = text("""
    SELECT p.id, p.conversion_id, p.version_id, p.void_reason, p.reported, p.retracted_at, p.lost, p.lost_at,
        c.value, c.net_value, c.outcomes, c.name, c.currency, c.occurred_at,
        (c.event->>'clicked_at')::timestamptz AS clicked_at, c.matched
    FROM postbacks p JOIN conversions c ON c.id = p.conversion_id
    WHERE p.id = ANY(:ids) AND p.state = 'delivered' AND p.adjusts IS NULL ORDER BY p.id""")
ADJUSTMENTS = text(
    "SELECT id, adjusts, adjustment, state FROM postbacks WHERE adjusts = ANY(:ids) ORDER BY adjusts, id"
)


@dataclass(frozen=True, slots=True)
class _Looked:
    """A delivered postback, what to do about it, and what the network shows too much if nothing helps."""

    row: Row[Any]
    contract: Contract
    current: int | None
    correction: Correction
    lost: Decimal | None
    told: Credit
    standing: Credit


@dataclass(frozen=True, slots=True)
class FollowUp:
    """What is done about a delivered postback that does not stand as it was told. ``told``: the network will know."""

    told: bool
    words: str


def look_again(
    connection: Connection,
    ids: Sequence[int],
    version: Callable[[int], DestinationVersion],
    failed: Collection[int] = (),
) -> dict[int, FollowUp]:
    """See to it that the network is told what stands of delivered postbacks, or that the loss is on record.

    ``failed``: those of which an adjustment that told what stands has just ended without being delivered. Returns what
    is done about each one that does not stand as it was told.
    """
    if not ids:
        return {}
    connection.execute(LOCK, {"ids": list(ids)})
    made: dict[int, list[Adjusting]] = defaultdict(list)
    for row in connection.execute(ADJUSTMENTS, {"ids": list(ids)}):
        made[row.adjusts].append(Adjusting(row.id, row.adjustment, State(row.state)))
    looked = [
        _look(row, version(row.version_id).contract, tuple(made[row.id]), failed=row.id in failed)
        for row in connection.execute(READ, {"ids": list(ids)})
    ]
    _overtake(connection, made)
    _withdraw(connection, [each for each in looked if each.correction.withdraw is not None])
    _write_losses(connection, [each for each in looked if not each.correction.wait])
    ordered = _order(connection, [each for each in looked if each.correction.order is not None])
    return {each.row.id: done for each in looked if (done := _follow_up(each, ordered))}


def _look(row: Row[Any], contract: Contract, made: tuple[Adjusting, ...], *, failed: bool) -> _Looked:
    reported = row.value if row.reported is None else row.reported
    told = NOTHING if row.retracted_at is not None else credited(contract, reported)
    standing = stands(contract, row, row.net_value, row.outcomes, row.void_reason)
    shown = lost(told, standing, row.value)
    delivered = Delivered(
        told=told,
        standing=standing,
        value=row.value,
        given_up=row.lost_at is not None and row.lost == shown,
        failed=failed,
        adjustments=made,
    )
    current = next((each.id for each in made if each.open), None)
    return _Looked(row, contract, current, correct(contract, delivered), shown, told, standing)


def _overtake(connection: Connection, made: dict[int, list[Adjusting]]) -> None:
    """An adjustment on the wire may tell what stands no more: if it fails, that has not been tried."""
    firing = [each.id for adjustments in made.values() for each in adjustments if each.state is State.FIRING]
    if firing:
        connection.execute(
            text("UPDATE postbacks SET overtaken = true WHERE id = ANY(:ids)"), {"ids": firing}
        )


def _withdraw(connection: Connection, looked: list[_Looked]) -> None:
    if looked:
        connection.execute(
            text("""
            UPDATE postbacks SET state = coalesce(falls_back, 'voided'), falls_back = NULL,
                void_reason = CASE WHEN falls_back IS NULL THEN 'withdrawn' END, due_at = NULL, lease_token = NULL,
                reason = 'withdrawn: what it was to tell does not stand any more', settled_at = clock_timestamp()
            WHERE id = ANY(:ids) AND state IN ('held', 'leased', 'retrying')"""),
            {"ids": [each.correction.withdraw for each in looked]},
        )


def _write_losses(connection: Connection, looked: list[_Looked]) -> None:
    """Losses that are new or of another amount, and those that are none any more."""
    rows = [
        {
            "id": each.row.id,
            "loses": each.correction.loses,
            "lost": None if each.lost is None else str(each.lost),
        }
        for each in looked
        if each.correction.loses != (each.row.lost_at is not None)
        or (each.correction.loses and each.lost != each.row.lost)
    ]
    if rows:
        connection.execute(
            text("""
            UPDATE postbacks p SET lost = CASE WHEN r.loses THEN r.lost END,
                lost_at = CASE WHEN r.loses THEN clock_timestamp() END
            FROM json_to_recordset(:rows) AS r(id bigint, loses boolean, lost numeric) WHERE p.id = r.id"""),
            {"rows": as_json(rows)},
        )


_ORDER = text("""
    WITH r AS (
        SELECT * FROM json_to_recordset(:rows) AS r(id bigint, conversion_id bigint, version_id integer,
            adjustment text, wait_s float8, expires_at timestamptz)),
    counted AS (UPDATE postbacks p SET adjustments = p.adjustments + 1 FROM r WHERE p.id = r.id)
    INSERT INTO postbacks (conversion_id, version_id, adjusts, adjustment, release_at, due_at, expires_at, state, reason,
        afterwards)
    SELECT conversion_id, version_id, id, adjustment, now() + make_interval(secs => wait_s),
        now() + make_interval(secs => wait_s), expires_at, 'held', 'corrects pb_' || id, true
    FROM r ORDER BY id RETURNING id, adjusts""")


def _order(connection: Connection, looked: list[_Looked]) -> dict[int, int]:
    """Ids of the new adjustments by what they correct. No two of one postback: it is locked, and was looked at."""
    if not looked:
        return {}
    rows = []
    for each in looked:
        kind = each.correction.order
        assert kind is not None
        wait: timedelta = each.contract.destination.adjust.wait
        rows.append(
            {
                "id": each.row.id,
                "conversion_id": each.row.conversion_id,
                "version_id": each.row.version_id,
                "adjustment": kind,
                "wait_s": wait.total_seconds(),
                "expires_at": _expires_at(each, kind),
            }
        )
    ordered = connection.execute(_ORDER, {"rows": as_json(rows)})
    return {row.adjusts: row.id for row in ordered}


def _expires_at(each: _Looked, kind: AdjustmentKind) -> datetime | None:
    adjustment = each.contract.adjustment(kind)
    if adjustment is None or adjustment.age_limit is None:
        return None
    limit = adjustment.age_limit
    match = read_matches(each.row.matched).get(each.contract.name)
    of_click = each.row.clicked_at if match is None else match.clicked_at
    clicked_at: datetime | None = of_click if limit.measured_from == "click" else None
    start: datetime = clicked_at or each.row.occurred_at
    return start + limit.wait


def _follow_up(each: _Looked, ordered: dict[int, int]) -> FollowUp | None:
    adjusting = ordered.get(each.row.id, each.current if each.correction.wait else None)
    if adjusting is not None:
        stands_ = each.standing.value if each.standing.counted else "nothing"
        words = f"pb_{adjusting} tells {each.contract.name} that {stands_} stands of pb_{each.row.id}"
        return FollowUp(told=True, words=words)
    if each.correction.loses:
        amount = "" if each.lost is None else f" {each.lost} {each.row.currency}"
        return FollowUp(told=False, words=f"lost{amount}: {each.contract.name} cannot be told")
    if each.correction.withdraw is not None:
        words = f"pb_{each.correction.withdraw} is withdrawn: what was told of pb_{each.row.id} stands"
        return FollowUp(told=True, words=words)
    return None


def after_settling(
    connection: Connection,
    rows: Sequence[Row[Any]],
    version: Callable[[int], DestinationVersion],
) -> dict[int, FollowUp]:
    """Follow up on postbacks that have just ended: delivered ones that a signal overtook, and adjustments.

    ``rows`` have ``id, state, adjusts, overtaken`` and ``void_reason``. Returns what ``look_again`` does.
    """
    told = [row for row in rows if row.adjusts is not None and row.state == "delivered"]
    if told:
        connection.execute(
            text("""
            UPDATE postbacks p SET
                reported = CASE WHEN a.adjustment = 'restatement' THEN a.reported ELSE p.reported END,
                retracted_at = CASE WHEN a.adjustment = 'retraction' OR (a.reported = 0 AND c.value > 0)
                    THEN clock_timestamp() END
            FROM postbacks a JOIN conversions c ON c.id = a.conversion_id
            WHERE a.id = ANY(:ids) AND p.id = a.adjusts"""),
            {"ids": [row.id for row in told]},
        )
    ended = [row for row in rows if row.adjusts is not None and row.state not in {"held", "retrying"}]
    overtaken = [row.id for row in rows if row.adjusts is None and row.state == "delivered"]
    # One that a signal overtook did not tell what stands now, so what stands now has not been tried.
    failed = {row.adjusts for row in ended if row.state not in {"delivered", "voided"} and not row.overtaken}
    failed |= {row.adjusts for row in ended if row.state == "voided" and row.void_reason == "by_hand"}
    return look_again(connection, sorted({*overtaken, *(row.adjusts for row in ended)}), version, failed)
