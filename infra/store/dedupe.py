"""The keys by which a network tells conversions apart: each is held by the one postback that may fire under it."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, text

from infra.db.engine import as_json
from schemas.lifecycle import State


def claim_keys(connection: Connection, wanted: dict[bytes, int]) -> dict[bytes, int]:
    """Claim each key for a postback, unless another one holds it. Returns who holds it now.

    A holder that can no longer be counted (voided or expired before it fired) gives its key away.
    """
    holders = dict(wanted)
    unclaimed = set(wanted)
    while unclaimed:
        won = _insert(connection, {key: wanted[key] for key in unclaimed})
        holders |= {key: wanted[key] for key in won}
        taken = _holders(connection, unclaimed - won)
        holders |= {key: holder for key, (holder, _) in taken.items()}
        # One that was voided since we looked gives its key away after all.
        unclaimed = {key for key, (_, state) in taken.items() if state in (State.VOIDED, State.EXPIRED)}
    return holders


def _insert(connection: Connection, wanted: dict[bytes, int]) -> set[bytes]:
    """Claim keys for postbacks; those that were won."""
    rows = as_json([{"key": key.hex(), "id": number} for key, number in sorted(wanted.items())])
    won = connection.execute(
        text("""
        INSERT INTO dedupe_keys AS d (key, postback_id)
        SELECT decode(r.key, 'hex'), r.id FROM json_to_recordset(:rows) AS r(key text, id bigint)
        ON CONFLICT (key) DO UPDATE SET postback_id = EXCLUDED.postback_id
            WHERE (SELECT state FROM postbacks p WHERE p.id = d.postback_id) IN ('voided', 'expired')
        RETURNING encode(key, 'hex')"""),
        {"rows": rows},
    ).scalars()
    return {bytes.fromhex(key) for key in won}


def _holders(connection: Connection, keys: Iterable[bytes]) -> dict[bytes, tuple[int, State]]:
    """The postback that holds each key, and its state.

    Share-locked until our commit: whoever voids the holder then sees the duplicate that is to take its place.
    """
    found = connection.execute(
        text("""
        SELECT encode(d.key, 'hex') AS key, p.id, p.state
        FROM dedupe_keys d JOIN postbacks p ON p.id = d.postback_id
        WHERE d.key IN (SELECT decode(k, 'hex') FROM json_array_elements_text(:keys) k)
        ORDER BY p.id FOR SHARE OF p"""),
        {"keys": as_json([key.hex() for key in keys])},
    )
    return {bytes.fromhex(row.key): (row.id, State(row.state)) for row in found}
