"""Erasing: first what is known is sealed (tombstones, and nothing fires any more), then everything that repeats it is
cleared, and the rows that it was found by come last. So an erasure that was interrupted is found again and ends.

Nothing is let in while a step holds the lock: of an event and its erasure that come at the same time, the event is
either erased or refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, text

from infra.archives.reading import ID_COLUMNS
from infra.db.engine import as_json
from infra.store import audit, correcting
from infra.store.destinations import read_version
from infra.store.intake import SIGNALS_LOCK
from infra.store.keeping.legal_holds import holding
from infra.store.keeping.reach import Reach, find, tombstones_of
from infra.store.keeping.tombstones import ERASURE_LOCK, make_key
from infra.store.rulings import VOIDABLE_SQL, promote_duplicates
from infra.store.transactions import retried
from schemas.erasing import ERASED, Kind, bare_event, bare_row, digest, event_value, pseudonym

OPEN = ("held", "leased", "firing", "retrying")


class NotErasableError(RuntimeError):
    """Something stands against an erasure now: what, and what to do. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Order:
    """An erasure that was ordered: of what, by whom and why. ``never_again``: the person's own keys are sealed as well."""

    kind: Kind
    value: str
    who: str
    reason: str
    never_again: bool = False


def look(engine: Engine, kind: Kind, value: str) -> Reach:
    """What an erasure would reach now. Raises NotErasableError where a legal hold is on any of it."""
    with engine.connect() as connection:
        reach = find(connection, kind, value)
        _check_holds(connection, reach)
        return reach


def seal(engine: Engine, order: Order) -> tuple[int, Reach]:
    """Plant the tombstones and void what is held: from here on nothing of it comes back or leaves. Its number, and reach.

    Raises NotErasableError, with nothing changed, under a legal hold, or while any of it is on the wire.
    """

    def run(connection: Connection) -> tuple[int, Reach]:
        _alone(connection)
        reach = find(connection, order.kind, order.value)
        _check_holds(connection, reach)
        ids = connection.execute(
            text("SELECT id FROM postbacks WHERE id = ANY(:ids) ORDER BY id FOR UPDATE"),
            {"ids": reach.postbacks},
        )
        ids.all()
        reach = find(connection, order.kind, order.value)
        _check_still(reach)
        key = make_key(connection)
        rows = [
            {"digest": digest(key, kind, value).hex(), "kind": kind}
            for kind, value in sorted(tombstones_of(reach, never_again=order.never_again))
        ]
        number = _erasure(connection, order, as_json([row["digest"] for row in rows]))
        connection.execute(
            text("""
            INSERT INTO tombstones (digest, kind, erasure_id)
            SELECT decode(r.digest, 'hex'), r.kind, :erasure
            FROM json_to_recordset(:rows) AS r(digest text, kind text) ON CONFLICT DO NOTHING"""),
            {"rows": as_json(rows), "erasure": number},
        )
        _void(connection, reach)
        return number, reach

    return retried(engine, run)


def finish(engine: Engine, number: int, order: Order, counts: Mapping[str, int]) -> dict[str, int]:
    """Erase the rows that it is found by, in one transaction, and write down that it is done; what was erased, by table."""

    def run(connection: Connection) -> dict[str, int]:
        _alone(connection)
        reach = find(connection, order.kind, order.value)
        _check_still(reach)
        connection.execute(text("SELECT set_config('holdfire.keeping', 'erase', true)"))
        key = make_key(connection)
        _bare_evidence(connection, reach)
        names = _bare_conversions(connection, reach, key, number)
        _bare_signals(connection, reach, key, number, names)
        _bare_rest(connection, reach)
        done = {
            **counts, "conversions": len(reach.conversions), "postbacks": len(reach.postbacks),
            "signals": len(reach.signals), "attempts": len(reach.attempts), "clicks": counts.get("clicks", 0),
        }  # fmt: skip
        connection.execute(
            text("UPDATE erasures SET ended_at = clock_timestamp(), counts = :counts WHERE id = :id"),
            {"id": number, "counts": orjson.dumps(done).decode()},
        )
        detail = {"erasure": number, "kind": order.kind, "reason": order.reason, "counts": done}
        audit.write(connection, who=order.who, action="erase", detail=detail)
        return done

    return retried(engine, run)


def unfinished(engine: Engine) -> list[int]:
    """Erasures that began and did not end."""
    with engine.connect() as connection:
        return list(
            connection.execute(text("SELECT id FROM erasures WHERE ended_at IS NULL ORDER BY id")).scalars()
        )


def _alone(connection: Connection) -> None:
    for key in (SIGNALS_LOCK, ERASURE_LOCK):
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


def _check_holds(connection: Connection, reach: Reach) -> None:
    held = holding(connection, reach.conversions)
    if held:
        numbers = ", ".join(str(each) for each in sorted(set(held.values())))
        raise NotErasableError(
            f"{len(held)} of {len(reach.conversions)} conversions are under legal hold {numbers}; "
            f"lift it with `holdfire legal-hold lift {min(held.values())} --reason ...`, or wait until it ends"
        )


def _check_still(reach: Reach) -> None:
    firing = reach.states.get("firing", 0)
    if firing:
        raise NotErasableError(
            f"{firing} of its postbacks are on the wire at this moment; run it again in a minute"
        )
    if reach.replaying:
        raise NotErasableError(
            f"{reach.replaying} of its postbacks are being fired again; stop that run with `holdfire replay`, "
            "or run this again once they have ended"
        )


def _erasure(connection: Connection, order: Order, digests: str) -> int:
    """One that was interrupted goes on under its number."""
    begun: int | None = connection.execute(
        text("""
        SELECT min(e.id) FROM tombstones t JOIN erasures e ON e.id = t.erasure_id
        WHERE e.ended_at IS NULL AND encode(t.digest, 'hex') = ANY(ARRAY(SELECT json_array_elements_text(:digests)))"""),
        {"digests": digests},
    ).scalar_one()
    if begun is not None:
        return begun
    number: int = connection.execute(
        text("INSERT INTO erasures (who, reason, kind) VALUES (:who, :reason, :kind) RETURNING id"),
        {"who": order.who, "reason": order.reason, "kind": order.kind},
    ).scalar_one()
    return number


def _void(connection: Connection, reach: Reach) -> None:
    """What waits never fires, what is a duplicate never takes a place, and what a correction was to tell is lost."""
    voided = sorted(
        connection.execute(
            text(f"""
            UPDATE postbacks SET state = 'voided', void_reason = 'erased', reason = 'erased', due_at = NULL,
                lease_token = NULL, settled_at = clock_timestamp()
            WHERE id = ANY(:ids) AND state IN {VOIDABLE_SQL} RETURNING id"""),  # noqa: S608 — literals of ours
            {"ids": reach.postbacks},
        ).scalars()
    )
    connection.execute(
        text("UPDATE postbacks SET void_reason = 'erased' WHERE id = ANY(:ids) AND state = 'duplicate'"),
        {"ids": reach.postbacks},
    )
    promote_duplicates(connection, voided)
    originals = list(
        connection.execute(
            text(
                "SELECT DISTINCT adjusts FROM postbacks WHERE id = ANY(:ids) AND adjusts IS NOT NULL ORDER BY 1"
            ),
            {"ids": voided},
        ).scalars()
    )
    correcting.look_again(connection, originals, lambda number: read_version(connection, number), originals)


def _bare_evidence(connection: Connection, reach: Reach) -> None:
    for table, key in ID_COLUMNS.items():
        query = text(f"SELECT * FROM {table} WHERE {key} = ANY(:ids)")  # noqa: S608 — one of ours
        for row in connection.execute(query, {"ids": reach.attempts}).all():
            values = dict(row._mapping)
            changed = bare_row(table, values)
            place = {
                name: values[name] for name in (key, "intent_at", *(("number",) if table == "hops" else ()))
            }
            sets = ", ".join(f"{name} = :{name}" for name in changed)
            where = " AND ".join(f"{name} = :its_{name}" for name in place)
            connection.execute(
                text(f"UPDATE {table} SET {sets} WHERE {where}"),  # noqa: S608 — one of ours
                {**changed, **{f"its_{name}": value for name, value in place.items()}},
            )


def _bare_conversions(connection: Connection, reach: Reach, key: bytes, number: int) -> dict[str, str]:
    """Returns the new name of each event id, for the signals that name it."""
    rows = connection.execute(
        text(
            "SELECT id, source, event_id, order_id, event::text AS event, refusals FROM conversions WHERE id = ANY(:ids)"
        ),
        {"ids": reach.conversions},
    ).all()
    names: dict[str, str] = {}
    for row in rows:
        name = names[row.event_id] = pseudonym(key, "event", event_value(row.source, row.event_id))
        order = None if row.order_id is None else pseudonym(key, "order", row.order_id)
        event = bare_event(orjson.loads(row.event), {"event_id": name, "order_id": order})
        connection.execute(
            text("""
            UPDATE conversions SET event_id = :name, order_id = :order, click_ids = '{}', lead_id = NULL,
                customer_id = NULL, device_id = NULL, matched = NULL, event = :event, erasure_id = :erasure,
                refusals = CASE WHEN refusals IS NULL THEN NULL ELSE '{}'::json END,
                unrouted_reason = CASE WHEN unrouted_reason IS NULL THEN NULL ELSE :erased END
            WHERE id = :id"""),
            {"id": row.id, "name": name, "order": order, "event": orjson.dumps(event).decode(), "erasure": number,
             "erased": ERASED},
        )  # fmt: skip
    return names


def _bare_signals(
    connection: Connection, reach: Reach, key: bytes, number: int, names: Mapping[str, str]
) -> None:
    rows = connection.execute(
        text("""SELECT id, source, event_id, order_id, conversion_event_id, event::text AS event
                FROM signals WHERE id = ANY(:ids)"""),
        {"ids": reach.signals},
    ).all()
    for row in rows:
        named: dict[str, Any] = {
            "event_id": pseudonym(key, "event", event_value(row.source, row.event_id)),
            "order_id": None if row.order_id is None else pseudonym(key, "order", row.order_id),
            "conversion_event_id": None
            if row.conversion_event_id is None
            else names.get(row.conversion_event_id, pseudonym(key, "event_id", row.conversion_event_id)),
        }
        event = bare_event(orjson.loads(row.event), named)
        connection.execute(
            text("""
            UPDATE signals SET event_id = :event_id, order_id = :order_id, conversion_event_id = :conversion_event_id,
                event = :event, erasure_id = :erasure WHERE id = :id"""),
            {"id": row.id, **named, "event": orjson.dumps(event).decode(), "erasure": number},
        )


def _bare_rest(connection: Connection, reach: Reach) -> None:
    connection.execute(
        text("UPDATE matches SET key_value = :erased, click_id = :erased WHERE conversion_id = ANY(:ids)"),
        {"ids": reach.conversions, "erased": ERASED},
    )
    connection.execute(
        text("DELETE FROM dedupe_keys WHERE postback_id = ANY(:ids)"), {"ids": reach.postbacks}
    )
    traces = reach.traces
    rows = connection.execute(
        text("SELECT id, reason FROM postbacks WHERE id = ANY(:ids) AND reason IS NOT NULL"),
        {"ids": reach.postbacks},
    ).all()
    for row in rows:
        if (clean := traces.without(row.reason)) != row.reason:
            connection.execute(
                text("UPDATE postbacks SET reason = :reason WHERE id = :id"), {"id": row.id, "reason": clean}
            )
