"""What came in over HTTP, as it was kept: found, read, and its events enqueued again after a mapping was mended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, Row, text

from infra.db.snapshot import snapshot
from infra.store import outbox
from infra.store.inbox import known_events, messages_of, sift
from infra.store.keeping import tombstones
from infra.store.transactions import retried
from schemas.arrival import Candidate, Refused
from schemas.erasing import ERASED_EVENT

PAGE = 200


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which requests; everything given must hold. ``failed``: something in it was refused, and no run mended it."""

    ids: tuple[int, ...] = ()
    source: str | None = None
    kind: str | None = None
    since: datetime | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """One time that a delivery's mapping was run again."""

    ran_at: datetime
    who: str
    accepted: int
    duplicates: int
    rejected: int
    answer: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kept:
    """A request as it came, what was answered, and the runs since."""

    request_id: int
    received_at: datetime
    kind: str
    source: str | None
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    peer: str | None
    key_id: int | None
    idempotency_key: str | None
    dedupe_id: str | None
    status_code: int
    accepted: int
    duplicates: int
    rejected: int
    answer: dict[str, Any]
    runs: list[Run] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Again:
    """What a run of a delivery's mapping came to."""

    request_id: int
    enqueued: list[str]
    """Event ids that were new."""
    duplicates: list[str]
    refused: list[Refused]
    ignored: str | None = None


_COLUMNS = """i.id AS request_id, i.received_at, i.kind, i.source, i.method, i.target, i.headers, i.body, i.peer, i.key_id,
    i.idempotency_key, i.dedupe_id, i.status_code, i.accepted, i.duplicates, i.rejected, i.answer"""
_FAILED = """(CASE WHEN EXISTS (SELECT FROM inbox_runs r WHERE r.inbox_id = i.id)
    THEN (SELECT r.rejected FROM inbox_runs r WHERE r.inbox_id = i.id ORDER BY r.id DESC LIMIT 1)
    ELSE i.rejected END) > 0 AND i.erased_at IS NULL"""


def _where(wanted: Wanted) -> tuple[str, dict[str, Any]]:
    conditions = {
        "i.id = ANY(:ids)": bool(wanted.ids),
        "i.source = :source": wanted.source is not None,
        "i.kind = :kind": wanted.kind is not None,
        "i.received_at >= :since": wanted.since is not None,
        _FAILED: wanted.failed,
    }
    words = " AND ".join(words for words, asked in conditions.items() if asked) or "true"
    values = {"ids": list(wanted.ids), "source": wanted.source, "kind": wanted.kind, "since": wanted.since}
    return words, {name: value for name, value in values.items() if f":{name}" in words}


def find(engine: Engine, wanted: Wanted, limit: int | None) -> tuple[list[Kept], int]:
    """The newest that match, without their runs, and how many there are in all."""
    where, values = _where(wanted)
    with snapshot(engine) as connection:
        rows = connection.execute(
            text(f"SELECT {_COLUMNS} FROM inbox i WHERE {where} ORDER BY i.id DESC LIMIT :limit"),  # noqa: S608 — our own words
            values | {"limit": limit},
        ).all()
        count = text(f"SELECT count(*) FROM inbox i WHERE {where}")  # noqa: S608 — our own words
        return [_kept(row) for row in rows], int(connection.execute(count, values).scalar_one())


def read(engine: Engine, request_id: int) -> Kept | None:
    """One request with its runs, oldest first."""
    found, _ = find(engine, Wanted(ids=(request_id,)), 1)
    if not found:
        return None
    with engine.connect() as connection:
        rows = connection.execute(
            text("""SELECT ran_at, who, accepted, duplicates, rejected, answer FROM inbox_runs
                    WHERE inbox_id = :id ORDER BY id"""),
            {"id": request_id},
        )
        found[0].runs.extend(Run(*row) for row in rows)
    return found[0]


def walk(engine: Engine, wanted: Wanted) -> Iterator[Kept]:
    """Every request that matches, oldest first, a page at a time; those that come meanwhile are left out."""
    where, values = _where(wanted)
    with engine.connect() as connection:
        last = connection.execute(text("SELECT coalesce(max(id), 0) FROM inbox")).scalar_one()
    after = 0
    query = text(
        f"SELECT {_COLUMNS} FROM inbox i WHERE {where} AND i.id > :after AND i.id <= :last ORDER BY i.id LIMIT :page"  # noqa: S608 — our own words
    )
    while True:
        with engine.connect() as connection:
            rows = connection.execute(query, values | {"after": after, "last": last, "page": PAGE}).all()
        for row in rows:
            yield _kept(row)
        if len(rows) < PAGE:
            return
        after = rows[-1].request_id


def _kept(row: Row[Any]) -> Kept:
    found = dict(row._mapping)
    found["headers"] = [(name, value) for name, value in row.headers]
    found["body"] = bytes(row.body)
    return Kept(**found)


def enqueue_again(  # noqa: PLR0913 — what a run is made of
    engine: Engine,
    request_id: int,
    candidates: Sequence[Candidate],
    refused: list[Refused],
    ignored: str | None,
    *,
    who: str,
    dry_run: bool = False,
) -> Again:
    """Enqueue those events of a delivery that are not known, and record the run: one transaction.

    Their messages are sent by whoever relays next, within seconds.
    """
    with engine.connect() as connection:
        if tombstones.any_stand(connection):
            candidates, erased = _sift_erased(connection, candidates)
            refused = [*refused, *erased]
        known = known_events(connection, {each.key for each in candidates})
    taken, duplicates = sift(candidates, known)
    again = Again(
        request_id, [each.key[1] for each in taken], [each.key[1] for each in duplicates], refused, ignored
    )
    if dry_run:
        return again
    messages = list(messages_of(taken))

    def commit(connection: Any) -> None:
        outbox.write(connection, messages)
        connection.execute(
            text("""
            INSERT INTO inbox_runs (inbox_id, who, accepted, duplicates, rejected, answer)
            VALUES (:id, :who, :accepted, :duplicates, :rejected, :answer)"""),
            {
                "id": request_id,
                "who": who,
                "accepted": len(taken),
                "duplicates": len(duplicates),
                "rejected": len(refused),
                "answer": orjson.dumps(outcome(again)).decode(),
            },
        )

    retried(engine, commit)
    outbox.hold_back(engine, messages)
    return again


def _sift_erased(
    connection: Connection, candidates: Sequence[Candidate]
) -> tuple[list[Candidate], list[Refused]]:
    """What a mapping found of a delivery that came before an erasure; intake looks again, under its lock."""
    gone = tombstones.buried(
        connection, [tombstones.names_of(orjson.loads(each.body)) for each in candidates]
    )
    kept = [each for each, is_gone in zip(candidates, gone, strict=True) if not is_gone]
    refused = [
        Refused(each.index, [ERASED_EVENT]) for each, is_gone in zip(candidates, gone, strict=True) if is_gone
    ]
    return kept, refused


def outcome(again: Again) -> dict[str, Any]:
    """A run as JSON-ready values."""
    problems = [
        {"code": problem.code, "field": problem.field, "reason": problem.reason, "remedy": problem.remedy}
        for each in again.refused
        for problem in each.problems
    ]
    return {
        "enqueued": again.enqueued,
        "duplicates": again.duplicates,
        "rejected": problems,
        "ignored": again.ignored,
    }
