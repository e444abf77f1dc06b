"""The audit: what people did, append-only."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, text

from infra.db.snapshot import snapshot
from schemas.ids import parse

BATCH = 1000


@dataclass(frozen=True, slots=True)
class Sought:
    """Which acts; everything given must hold.

    ``who``: in full, or the name before the ``@``. ``action``: in full, or what stands before its point (``users``).
    ``subject``: an id of ours (``pb_34``, ``cv_12``), or any value of the detail, such as a destination's name.
    """

    who: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One thing that somebody did."""

    id: int
    at: datetime
    who: str
    action: str
    detail: dict[str, Any]
    postback_id: int | None


_CONDITIONS = {
    "who": "(who = :who OR split_part(regexp_replace(who, '^console:', ''), '@', 1) = :who)",
    "action": "(action = :action OR starts_with(action, :action || '.'))",
    "since": "at >= :since",
    "until": "at < :until",
    "subject": "jsonb_path_exists(detail, '$.** ? (@ == $subject)', jsonb_build_object('subject', CAST(:subject AS text)))",
    "pb": "postback_id = :number",
    "cv": "postback_id IN (SELECT id FROM postbacks WHERE conversion_id = :number)",
}


def record(engine: Engine, *, who: str, action: str, detail: dict[str, Any]) -> None:
    """Write down that ``who`` did ``action``; committed when this returns. ``detail`` must hold no secret."""
    with engine.begin() as connection:
        write(connection, who=who, action=action, detail=detail)


def write(connection: Connection, *, who: str, action: str, detail: dict[str, Any]) -> None:
    """As ``record``, within the transaction that does it."""
    connection.execute(
        text("INSERT INTO audit (who, action, detail) VALUES (:who, :action, :detail)"),
        {"who": who, "action": action, "detail": orjson.dumps(detail, default=str).decode()},
    )


def operator() -> str:
    """Who runs this process, for the audit: the login name and the host."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # an id without a name, as in containers
        name = "unknown"
    return f"{name}@{socket.gethostname()}"


def find(engine: Engine, sought: Sought, *, before: int | None = None, limit: int = 100) -> list[AuditRecord]:
    """Acts, newest first: those older than the one with the id ``before``, if it is given."""
    values: dict[str, Any] = {
        "who": sought.who,
        "action": sought.action,
        "since": sought.since,
        "until": sought.until,
        "before": before,
    }
    wanted = [_CONDITIONS[name] for name in ("who", "action", "since", "until") if values[name] is not None]
    wanted += [] if before is None else ["id < :before"]
    if sought.subject is not None:
        of_postback = parse(sought.subject)
        values |= {"subject": sought.subject, "number": of_postback[1] if of_postback else None}
        either = [_CONDITIONS["subject"]]
        if of_postback and of_postback[0] in {"pb", "cv"}:
            either.append(_CONDITIONS[of_postback[0]])
        wanted.append(f"({' OR '.join(either)})")
    query = text(
        f"SELECT id, at, who, action, detail, postback_id FROM audit WHERE {' AND '.join(wanted) or 'true'} "  # noqa: S608 — our own words
        "ORDER BY id DESC LIMIT :limit"
    )
    values["limit"] = limit
    with snapshot(engine) as connection:
        bound = {name: values[name] for name in query.compile().params}
        return [AuditRecord(*row) for row in connection.execute(query, bound)]


def walk(engine: Engine, sought: Sought) -> Iterator[AuditRecord]:
    """All that match, newest first, however many."""
    before = None
    while found := find(engine, sought, before=before, limit=BATCH):
        yield from found
        before = found[-1].id


def actions(engine: Engine) -> list[str]:
    """Every kind of act there is."""
    # A loose scan: one step of the index a kind, however many acts there are of it.
    query = text("""
        WITH RECURSIVE kinds AS (
            (SELECT action FROM audit ORDER BY action LIMIT 1)
            UNION ALL
            SELECT (SELECT a.action FROM audit a WHERE a.action > k.action ORDER BY a.action LIMIT 1)
            FROM kinds k WHERE k.action IS NOT NULL)
        SELECT action FROM kinds WHERE action IS NOT NULL ORDER BY action""")
    with snapshot(engine) as connection:
        return list(connection.execute(query).scalars())
