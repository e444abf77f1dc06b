"""Legal holds: what is under one is neither dropped nor erased, until the hold is lifted or ends by itself."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, text

from infra.store import audit
from infra.store.searching.search import Criteria, conversions_matching, postback_conditions
from schemas.lifecycle import State
from schemas.verdict import VerdictKind

_OF_CONVERSIONS = {"order_id", "click_id", "event_id", "source", "since", "until"}
"""Criteria by which conversions are found that became no postback, too."""


@dataclass(frozen=True, slots=True)
class LegalHold:
    """One hold: ``LH 3`` for people. ``conversions`` is None where it holds all of a destination."""

    id: int
    placed_at: datetime
    who: str
    reason: str
    destination: str | None
    criteria: dict[str, Any]
    until: datetime | None
    lifted_at: datetime | None
    lifted_by: str | None
    lift_reason: str | None
    active: bool
    conversions: int | None


class UnknownHoldError(LookupError):
    """No hold that could be lifted has this number."""


_COLUMNS = """h.id, h.placed_at, h.who, h.reason, h.destination, h.criteria, h.until, h.lifted_at, h.lifted_by, h.lift_reason,
    h.lifted_at IS NULL AND (h.until IS NULL OR h.until > now()) AS active"""
_COUNTED = """CASE WHEN h.destination IS NULL
    THEN (SELECT count(*) FROM legal_hold_conversions l WHERE l.hold_id = h.id) END AS conversions"""


def place(  # noqa: PLR0913 — what a hold is
    engine: Engine,
    criteria: Criteria,
    conversion_id: int | None,
    *,
    who: str,
    reason: str,
    until: datetime | None,
) -> LegalHold:
    """Hold what matches, now and as it comes to match; a destination alone is held whole."""
    alone = conversion_id is None and criteria == Criteria(destination=criteria.destination)
    values = {
        "who": who, "reason": reason, "until": until, "destination": criteria.destination if alone else None,
        "criteria": _wire(criteria, conversion_id),
    }  # fmt: skip
    with engine.begin() as connection:
        number: int = connection.execute(
            text("""INSERT INTO legal_holds (who, reason, destination, criteria, until)
                    VALUES (:who, :reason, :destination, :criteria, :until) RETURNING id"""),
            values,
        ).scalar_one()
        audit.write(connection, who=who, action="legal_hold.add", detail={"hold": number, "reason": reason})
    refresh(engine)
    return next(hold for hold in holds(engine) if hold.id == number)


def lift(engine: Engine, number: int, *, who: str, reason: str) -> None:
    """End a hold. Raises UnknownHoldError for one that is not there or was lifted before."""
    with engine.begin() as connection:
        done = connection.execute(
            text("""UPDATE legal_holds SET lifted_at = now(), lifted_by = :who, lift_reason = :reason
                    WHERE id = :id AND lifted_at IS NULL"""),
            {"id": number, "who": who, "reason": reason},
        )
        if done.rowcount != 1:
            raise UnknownHoldError(
                f"there is no legal hold {number} to lift; `holdfire legal-hold list` lists them"
            )
        audit.write(connection, who=who, action="legal_hold.lift", detail={"hold": number, "reason": reason})


def holds(engine: Engine) -> list[LegalHold]:
    """Every hold, newest first."""
    with engine.connect() as connection:
        query = text(f"SELECT {_COLUMNS}, {_COUNTED} FROM legal_holds h ORDER BY h.id DESC")  # noqa: S608 — our own words
        return [LegalHold(**row._mapping) for row in connection.execute(query)]


def refresh(engine: Engine) -> None:
    """Look again at what matches the holds that are active: what has come since is held as well."""
    for hold in holds(engine):
        if not hold.active or hold.destination is not None:
            continue
        found = _matching(engine, hold.criteria)
        with engine.begin() as connection:
            connection.execute(
                text("""INSERT INTO legal_hold_conversions (hold_id, conversion_id)
                        SELECT :hold, unnest(CAST(:ids AS bigint[])) ON CONFLICT DO NOTHING"""),
                {"hold": hold.id, "ids": found},
            )


def held_destinations(engine: Engine) -> dict[str, int]:
    """Destinations that are held whole, each with the number of a hold."""
    return {hold.destination: hold.id for hold in holds(engine) if hold.active and hold.destination}


def holding(connection: Connection, conversion_ids: Collection[int]) -> dict[int, int]:
    """Which of these conversions are held, each with the number of a hold; by their own, or by a destination's."""
    query = text("""
        SELECT l.conversion_id, min(l.hold_id) AS hold FROM legally_held l WHERE l.conversion_id = ANY(:ids)
        GROUP BY l.conversion_id
        UNION ALL
        SELECT p.conversion_id, min(h.id) FROM postbacks p JOIN destination_versions v ON v.id = p.version_id
            JOIN legal_holds h ON h.destination = v.destination
        WHERE p.conversion_id = ANY(:ids) AND h.lifted_at IS NULL AND (h.until IS NULL OR h.until > now())
        GROUP BY p.conversion_id""")
    return {row.conversion_id: row.hold for row in connection.execute(query, {"ids": list(conversion_ids)})}


def _wire(criteria: Criteria, conversion_id: int | None) -> str:
    given = {
        field.name: value
        for field in fields(Criteria)
        if (value := getattr(criteria, field.name)) not in (None, ())
    }
    return orjson.dumps(
        given | ({"conversion_id": conversion_id} if conversion_id else {}), default=str
    ).decode()


def _matching(engine: Engine, stored: dict[str, Any]) -> list[int]:
    if "conversion_id" in stored:
        return [stored["conversion_id"]]
    criteria = _criteria(stored)
    if stored.keys() <= _OF_CONVERSIONS:
        return conversions_matching(engine, criteria)
    where, values = postback_conditions(criteria)
    query = text(
        f"SELECT DISTINCT p.conversion_id FROM postbacks p JOIN conversions c ON c.id = p.conversion_id WHERE {where}"  # noqa: S608 — fixed fragments, values are bound
    )
    with engine.connect() as connection:
        wanted = {name: values[name] for name in query.compile().params}
        return sorted(connection.execute(query, wanted).scalars())


def _criteria(stored: dict[str, Any]) -> Criteria:
    known = {field.name for field in fields(Criteria)}
    criteria = Criteria(**{name: value for name, value in stored.items() if name in known})
    changes: dict[str, Any] = {
        "states": tuple(State(each) for each in stored.get("states", ())),
        "status_codes": tuple(stored["status_codes"]) if "status_codes" in stored else None,
        "verdict": VerdictKind(stored["verdict"]) if "verdict" in stored else None,
    }
    if "value" in stored:
        changes["value"] = tuple(None if end is None else Decimal(end) for end in stored["value"])
    for name in ("above", "below"):
        changes[name] = Decimal(stored[name]) if name in stored else None
    for name in ("above", "below"):
        changes[name] = Decimal(stored[name]) if name in stored else None
    if "value" in stored:
        lowest, highest = (None if each is None else Decimal(each) for each in stored["value"])
        changes["value"] = lowest, highest
    for name in ("since", "until"):
        changes[name] = datetime.fromisoformat(stored[name]) if name in stored else None
    return replace(criteria, **changes)
