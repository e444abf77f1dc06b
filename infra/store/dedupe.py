"""The keys by which a network tells conversions apart: each is held by the one postback that may fire under it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, text

from infra.db.engine import as_json
from schemas.lifecycle import State


@dataclass(frozen=True, slots=True)
class Holder:
    """The postback that holds a key. ``freed``: a person said that the network has not counted it."""

    id: int
    state: State
    freed: bool

    @property
    def gives_away(self) -> bool:
        return self.freed or self.state in {State.VOIDED, State.EXPIRED}


def claim_keys(connection: Connection, wanted: dict[bytes, int]) -> dict[bytes, int]:
    """Claim each key for a postback, unless another one holds it. Returns who holds it now.

    A holder that can no longer be counted (voided or expired before it fired, or freed: a person said that the network has
    not counted it) gives its key away, and its duplicates are duplicates of whoever takes it.
    """
    holders = dict(wanted)
    unclaimed = set(wanted)
    before: dict[bytes, int] = {}
    while unclaimed:
        won = _insert(connection, {key: wanted[key] for key in unclaimed})
        holders |= {key: wanted[key] for key in won}
        before |= {key: number for key, number in won.items() if number is not None}
        taken = read_holders(connection, unclaimed - won.keys())
        holders |= {key: holder.id for key, holder in taken.items()}
        # One that was voided since we looked gives its key away after all.
        unclaimed = {key for key, holder in taken.items() if holder.gives_away}
    _follow(connection, {number: wanted[key] for key, number in before.items() if number != wanted[key]})
    return holders


def _insert(connection: Connection, wanted: dict[bytes, int]) -> dict[bytes, int | None]:
    """Claim keys for postbacks; those that were won, with who held each before."""
    rows = as_json([{"key": key.hex(), "id": number} for key, number in sorted(wanted.items())])
    won = connection.execute(
        text("""
        WITH r AS (
            SELECT decode(r.key, 'hex') AS key, r.id FROM json_to_recordset(:rows) AS r(key text, id bigint)),
        before AS (SELECT d.key, d.postback_id FROM r JOIN dedupe_keys d ON d.key = r.key),
        won AS (
            INSERT INTO dedupe_keys AS d (key, postback_id) SELECT key, id FROM r
            ON CONFLICT (key) DO UPDATE SET postback_id = EXCLUDED.postback_id
                WHERE (SELECT p.state IN ('voided', 'expired') OR p.freed FROM postbacks p WHERE p.id = d.postback_id)
            RETURNING key)
        SELECT encode(won.key, 'hex') AS key, before.postback_id FROM won LEFT JOIN before USING (key)"""),
        {"rows": rows},
    )
    return {bytes.fromhex(row.key): row.postback_id for row in won}


def _follow(connection: Connection, takers: dict[int, int]) -> None:
    """Duplicates of one that gave its key away are duplicates of whoever has it now."""
    if takers:
        connection.execute(
            text("""
            WITH taken AS (SELECT * FROM json_to_recordset(:rows) AS r(before bigint, now bigint))
            UPDATE postbacks p SET duplicate_of = taken.now,
                reason = 'the network would take it for pb_' || taken.now || ' again'
            FROM taken WHERE p.duplicate_of = taken.before AND p.duplicate_of IS NOT NULL AND p.state = 'duplicate'
                AND p.id <> taken.now"""),
            {"rows": as_json([{"before": before, "now": now} for before, now in takers.items()])},
        )


def read_holders(connection: Connection, keys: Iterable[bytes], *, lock: bool = True) -> dict[bytes, Holder]:
    """The postback that holds each key.

    Share-locked until our commit: whoever voids the holder then sees the duplicate that is to take its place.
    """
    found = connection.execute(
        text(f"""
        SELECT encode(d.key, 'hex') AS key, p.id, p.state, p.freed
        FROM dedupe_keys d JOIN postbacks p ON p.id = d.postback_id
        WHERE d.key IN (SELECT decode(k, 'hex') FROM json_array_elements_text(:keys) k)
        ORDER BY p.id {"FOR SHARE OF p" if lock else ""}"""),  # noqa: S608 — literals of ours
        {"keys": as_json([key.hex() for key in keys])},
    )
    return {bytes.fromhex(row.key): Holder(row.id, State(row.state), row.freed) for row in found}
