"""Carrying out what signals come to: voids, wishes, reinstatements and early releases, each in bulk."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from infra.db.engine import as_json
from infra.store.dedupe import claim_keys
from schemas.calendars import next_tick
from schemas.click import read_matches
from schemas.conversion import attributed, dedupe_key
from schemas.destination import Contract
from schemas.event import ConversionEvent, read_stored
from schemas.hold import HoldPolicy
from schemas.lifecycle import State, came_from
from schemas.ruling import Ruling

VOIDABLE_SQL = "('held', 'leased', 'retrying')"
"""``schemas.lifecycle.VOIDABLE`` as literals, so that plans can use it; a test holds the two together."""


@dataclass(frozen=True, slots=True)
class Found:
    """A postback of a conversion, locked."""

    id: int
    conversion_id: int
    version_id: int
    state: State
    release_at: datetime
    void_reason: str | None
    attempts: int
    first_attempt_at: datetime | None
    falls_back: State | None = None
    """What it is again, if a person fired it again and that comes to nothing."""


@dataclass(frozen=True, slots=True)
class Ruled:
    """A postback, what it is held under, and what becomes of it."""

    found: Found
    contract: Contract
    policy: HoldPolicy
    ruling: Ruling


LOCK = text("SELECT id FROM postbacks WHERE conversion_id = ANY(:ids) ORDER BY id FOR UPDATE")
# A statement of its own: it sees what was committed while the locks were waited for.
READ = text("""
    SELECT id, conversion_id, version_id, state, release_at, void_reason, attempts, first_attempt_at, falls_back
    FROM postbacks WHERE conversion_id = ANY(:ids) AND adjusts IS NULL ORDER BY id""")


def lock(connection: Connection, conversion_ids: list[int]) -> list[Found]:
    """The postbacks of these conversions, locked with their adjustments in id order, as the fire gate locks them.

    Of a signal and the gate one goes first, and the other sees what it did: a void, or the value that is left.
    """
    if not conversion_ids:
        return []
    connection.execute(LOCK, {"ids": conversion_ids})
    return [
        Found(
            row.id, row.conversion_id, row.version_id, State(row.state), row.release_at, row.void_reason,
            row.attempts, row.first_attempt_at, None if row.falls_back is None else State(row.falls_back),
        )
        for row in connection.execute(READ, {"ids": conversion_ids})
    ]  # fmt: skip


def carry_out(connection: Connection, now: datetime, ruled: list[Ruled]) -> None:
    """Do what was ruled, in an order that lets each step find what it needs.

    Windows move first: what is reinstated or promoted then goes by its new one. Wishes come before voids, which promote
    duplicates without a wish; withdrawn wishes come last, when it is settled who has the place.
    """
    _end_windows(connection, now, [each for each in ruled if each.ruling.release_early])
    _wish(connection, [each for each in ruled if each.ruling.wish])
    _void(connection, [each for each in ruled if each.ruling.void])
    _return(connection, [each for each in ruled if each.ruling.returns])
    overtaken = [each.found.id for each in ruled if each.found.state is State.FIRING]
    if overtaken:
        connection.execute(
            text("UPDATE postbacks SET overtaken = true WHERE id = ANY(:ids)"), {"ids": overtaken}
        )
    _reinstate(connection, now, [each for each in ruled if each.ruling.reinstate])
    _unwish(connection, [each for each in ruled if each.ruling.unwish])


def _end_windows(connection: Connection, now: datetime, ruled: list[Ruled]) -> None:
    """The window ends now, or with the next tick of its schedule; what waits for a hand goes on waiting for it."""
    if not ruled:
        return
    rows = [
        {"id": each.found.id, "release_at": _end(each.policy, now), "reason": "its window was ended early"}
        for each in ruled
    ]
    connection.execute(
        text("""
        UPDATE postbacks p SET release_at = r.release_at, reason = r.reason,
            due_at = CASE WHEN p.state = 'held' AND p.due_at <> 'infinity' THEN r.release_at ELSE p.due_at END
        FROM json_to_recordset(:rows) AS r(id bigint, release_at timestamptz, reason text)
        WHERE p.id = r.id AND p.release_at > r.release_at"""),
        {"rows": as_json(rows)},
    )


def _end(policy: HoldPolicy, now: datetime) -> datetime:
    return now if policy.schedule is None else next_tick(now, policy.schedule, policy.timezone)


def _void(connection: Connection, ruled: list[Ruled]) -> None:
    if not ruled:
        return
    rows = [{"id": each.found.id, "reason": each.ruling.void} for each in ruled]
    voided = connection.execute(
        text(f"""
        UPDATE postbacks p SET state = 'voided', void_reason = r.reason, reason = r.reason, due_at = NULL,
            lease_token = NULL, settled_at = clock_timestamp()
        FROM json_to_recordset(:rows) AS r(id bigint, reason text)
        WHERE p.id = r.id AND p.state IN {VOIDABLE_SQL} RETURNING p.id"""),  # noqa: S608 — literals of ours
        {"rows": as_json(rows)},
    ).scalars()
    promote_duplicates(connection, sorted(voided))


def _return(connection: Connection, ruled: list[Ruled]) -> None:
    """Fired again by a person, and taken back before it fired: the network has it or may have it, as before."""
    if not ruled:
        return
    rows = [{"id": each.found.id, "reason": each.ruling.returns} for each in ruled]
    connection.execute(
        text(f"""
        UPDATE postbacks p SET state = p.falls_back, falls_back = NULL, due_at = NULL, lease_token = NULL,
            reason = 'fired again, it came to nothing: ' || r.reason, settled_at = clock_timestamp()
        FROM json_to_recordset(:rows) AS r(id bigint, reason text)
        WHERE p.id = r.id AND p.falls_back IS NOT NULL AND p.state IN {VOIDABLE_SQL}"""),  # noqa: S608 — literals of ours
        {"rows": as_json(rows)},
    )


def _wish(connection: Connection, ruled: list[Ruled]) -> None:
    """What is on the wire cannot be voided, but makes no further attempt; a duplicate can no longer be promoted."""
    if not ruled:
        return
    rows = [{"id": each.found.id, "reason": each.ruling.wish} for each in ruled]
    connection.execute(
        text("""
        UPDATE postbacks p SET void_reason = r.reason
        FROM json_to_recordset(:rows) AS r(id bigint, reason text) WHERE p.id = r.id"""),
        {"rows": as_json(rows)},
    )


def _unwish(connection: Connection, ruled: list[Ruled]) -> None:
    """The wish is withdrawn; a duplicate whose first never fires takes its place after all."""
    if not ruled:
        return
    ids = [each.found.id for each in ruled]
    connection.execute(text("UPDATE postbacks SET void_reason = NULL WHERE id = ANY(:ids)"), {"ids": ids})
    ended = connection.execute(
        text("""
        SELECT DISTINCT first.id FROM postbacks d JOIN postbacks first ON first.id = d.duplicate_of
        WHERE d.id = ANY(:ids) AND d.state = 'duplicate' AND (first.state IN ('voided', 'expired') OR first.freed)"""),
        {"ids": ids},
    ).scalars()
    promote_duplicates(connection, sorted(ended))


_REINSTATE = text("""
    UPDATE postbacks p SET state = r.state, void_reason = NULL, reason = r.reason, duplicate_of = r.duplicate_of,
        settled_at = CASE WHEN r.state IN ('dead', 'duplicate') THEN clock_timestamp() END,
        asked = 0, asked_since = NULL, confirmed_at = NULL,
        due_at = CASE r.state WHEN 'held' THEN CASE WHEN p.manual THEN 'infinity' ELSE p.release_at END
            WHEN 'retrying' THEN greatest(now(), p.release_at) END
    FROM json_to_recordset(:rows) AS r(id bigint, state text, reason text, duplicate_of bigint)
    WHERE p.id = r.id AND p.state = 'voided'""")


def _reinstate(connection: Connection, now: datetime, ruled: list[Ruled]) -> None:
    """What voided them was withdrawn: on with what is left of window and horizon, unless another took their place."""
    if not ruled:
        return
    keys = _keys(connection, ruled)
    first: dict[bytes, int] = {}
    for each in ruled:
        first.setdefault(keys[each.found.id], each.found.id)
    holders = claim_keys(connection, first)
    rows = [_reinstated(each, holders[keys[each.found.id]], now) for each in ruled]
    connection.execute(_REINSTATE, {"rows": as_json(rows)})


def _reinstated(each: Ruled, holder: int, now: datetime) -> dict[str, Any]:
    found = each.found
    row: dict[str, Any] = {"id": found.id, "state": came_from(found.attempts), "duplicate_of": None}
    row["reason"] = f"reinstated: it is no longer {found.void_reason}"
    if holder != found.id:
        reason = f"the network would take it for pb_{holder} again, which took its place"
        return row | {"state": State.DUPLICATE, "duplicate_of": holder, "reason": reason}
    horizon: timedelta = each.contract.retry.horizon
    if found.first_attempt_at is not None and now > found.first_attempt_at + horizon:
        return row | {"state": State.DEAD, "reason": "reinstated after its retry horizon had ended"}
    return row


def _keys(connection: Connection, ruled: list[Ruled]) -> dict[int, bytes]:
    events = connection.execute(
        text("SELECT id, event::text AS event, matched FROM conversions WHERE id = ANY(:ids)"),
        {"ids": [each.found.conversion_id for each in ruled]},
    )
    read = {row.id: (read_stored(row.event), read_matches(row.matched)) for row in events}
    keys = {}
    for each in ruled:
        event, matches = read[each.found.conversion_id]
        assert isinstance(event, ConversionEvent)
        keys[each.found.id] = dedupe_key(each.contract, attributed(event, matches))
    return keys


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
            FROM heir WHERE p.duplicate_of = heir.duplicate_of AND p.duplicate_of IS NOT NULL AND p.id <> heir.id
                AND p.state = 'duplicate')
        UPDATE postbacks p SET state = 'held', duplicate_of = NULL, settled_at = NULL,
            due_at = CASE WHEN p.manual THEN 'infinity' ELSE p.release_at END,
            reason = 'took the place of pb_' || heir.duplicate_of || ', which never fires'
        FROM heir WHERE p.id = heir.id"""),
        {"heirs": as_json([{"id": heir, "duplicate_of": first} for first, heir in heirs.items()])},
    )
