"""Rows of evidence on their way into archives, and out of the tables: each step can be interrupted and goes on.

A part is a file with its row in ``archives``. Its rows stand in file and tables until they are taken out: with their
whole month, or block by block where other destinations keep theirs. Who reads evidence prefers the tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, Row, text

from infra.archives.form import TABLES, Block, Columns, Values
from infra.archives.reading import ID_COLUMNS, Rows, id_of
from infra.archives.writing import Written
from infra.db.engine import as_json
from schemas.keeping import end_of, month_after

WINDOW = 2000
"""Attempts looked at in one query."""


class ArchiveMismatchError(RuntimeError):
    """The tables do not have what an archive says was in them: nothing was removed."""


@dataclass(frozen=True, slots=True)
class Head:
    """An attempt or check of a month, and whether it may leave."""

    id: int
    postback_id: int
    destination: str
    open: bool
    """Its postback has not ended: firing or rescue may still need the row."""
    held: bool
    """Legally."""


@dataclass(frozen=True, slots=True)
class Part:
    """One archive as ``archives`` has it."""

    id: int
    month: date
    destination: str
    part: int
    folder: str
    file: str
    sha256: bytes
    bytes: int
    blocks: int
    first_attempt: int
    last_attempt: int
    blocks_gone: int
    gone_at: datetime | None
    kept: bool
    expired_at: datetime | None

    @property
    def path(self) -> Path:
        return Path(self.folder) / self.file


PART_COLUMNS = """id, month, destination, part, folder, file, sha256, bytes, blocks, first_attempt, last_attempt,
    blocks_gone, gone_at, kept, expired_at"""


def part_of(row: Row[Any]) -> Part:
    """A row of ``archives`` as a value."""
    values = {name: row._mapping[name] for name in Part.__dataclass_fields__}
    return Part(**values | {"sha256": bytes(row.sha256)})


def span(month: date) -> dict[str, datetime]:
    """The month's instants, as the queries bind them."""
    start = end_of(_before(month))
    return {"start": start, "end": end_of(month)}


def _before(month: date) -> date:
    before = date(month.year - (month.month == 1), (month.month - 2) % 12 + 1, 1)
    assert month_after(before) == month
    return before


# Each branch by its primary key alone; what is looked at is decided on afterwards, so that a window has an end.
_HEADS = text("""
    WITH head AS (
        (SELECT attempt_id AS id, postback_id FROM intents
            WHERE intent_at >= :start AND intent_at < :end AND attempt_id > :after ORDER BY attempt_id LIMIT :window)
        UNION
        (SELECT id, postback_id FROM attempts
            WHERE intent_at >= :start AND intent_at < :end AND id > :after ORDER BY id LIMIT :window)
        UNION
        (SELECT id, postback_id FROM checks
            WHERE intent_at >= :start AND intent_at < :end AND id > :after ORDER BY id LIMIT :window)
        ORDER BY id LIMIT :window)
    SELECT h.id, h.postback_id, v.destination, p.due_at IS NOT NULL AS open,
        EXISTS (SELECT FROM legally_held l WHERE l.conversion_id = p.conversion_id) AS held
    FROM head h JOIN postbacks p ON p.id = h.postback_id JOIN destination_versions v ON v.id = p.version_id
    ORDER BY h.id""")


def heads(engine: Engine, month: date, after: int) -> list[Head]:
    """The next attempts and checks of a month, by id. Short of ``WINDOW`` they are the last."""
    with engine.connect() as connection:
        rows = connection.execute(_HEADS, span(month) | {"after": after, "window": WINDOW})
        return [Head(**row._mapping) for row in rows]


def columns(engine: Engine) -> Columns:
    """The columns of the evidence's tables, each with its type, in their order."""
    query = text("""
        SELECT a.attname AS name, format_type(a.atttypid, NULL) AS type FROM pg_attribute a
        WHERE a.attrelid = to_regclass(:table) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum""")
    with engine.connect() as connection:
        return {
            table: {row.name: row.type for row in connection.execute(query, {"table": table})}
            for table in TABLES
        }


def rows(engine: Engine, month: date, ids: Sequence[int]) -> Rows:
    """Everything in the tables about these attempts and checks."""
    found: Rows = {}
    with engine.connect() as connection:
        for table in TABLES:
            order = "attempt_id, number" if table == "hops" else ID_COLUMNS[table]
            query = text(
                f"SELECT * FROM {table} WHERE {ID_COLUMNS[table]} = ANY(:ids) AND intent_at >= :start AND intent_at < :end"  # noqa: S608 — our own words
                f" ORDER BY {order}"
            )
            result = connection.execute(query, span(month) | {"ids": list(ids)})
            found[table] = [dict(row._mapping) for row in result]
    return found


def pending(engine: Engine, month: date | None = None) -> list[Part]:
    """Parts whose rows are not all out of the tables yet, oldest first."""
    query = text(f"""
        SELECT {PART_COLUMNS} FROM archives
        WHERE gone_at IS NULL AND month = coalesce(CAST(:month AS date), month) ORDER BY month, id""")  # noqa: S608 — our own words
    with engine.connect() as connection:
        return [part_of(row) for row in connection.execute(query, {"month": month})]


def next_part(engine: Engine, month: date, destination: str) -> int:
    query = text(
        "SELECT coalesce(max(part), 0) + 1 FROM archives WHERE month = :month AND destination = :destination"
    )
    with engine.connect() as connection:
        number: int = connection.execute(query, {"month": month, "destination": destination}).scalar_one()
        return number


# As the ledger's own: what must not be, among the rows that leave.
_WRONG = text("""
    SELECT count(*) FILTER (WHERE i.intent_at < p.release_at) AS fired_early,
        count(*) FILTER (WHERE p.state = 'voided' AND i.intent_at > p.settled_at) AS fired_after_void,
        count(*) FILTER (WHERE p.state = 'duplicate' AND i.intent_at > p.settled_at) AS duplicate_fired
    FROM intents i JOIN postbacks p ON p.id = i.postback_id
    WHERE i.attempt_id = ANY(:ids) AND i.intent_at >= :start AND i.intent_at < :end""")
_WRONG_VOIDED = text("""
    SELECT count(DISTINCT p.id) FROM attempts a JOIN postbacks p ON p.id = a.postback_id
    WHERE a.id = ANY(:ids) AND a.intent_at >= :start AND a.intent_at < :end AND p.state = 'voided'
        AND (a.verdict = 'delivered' OR a.state = 'delivered')""")
_RECORD = text("""
    INSERT INTO archives (month, destination, part, folder, file, bytes, sha256, blocks, first_attempt, last_attempt,
        first_postback, last_postback, intents, attempts, hops, checks, kept, wrong)
    VALUES (:month, :destination, :part, :folder, :file, :bytes, :sha256, :blocks, :first_attempt, :last_attempt,
        :first_postback, :last_postback, :intents, :attempts, :hops, :checks, :kept, CAST(:wrong AS jsonb))""")
# In the order of ids, as everything locks postbacks.
_MARK = text("""
    WITH r AS (
        SELECT * FROM json_to_recordset(:rows)
            AS r(id bigint, attempts integer, checks integer, status_code smallint, verdict text)),
    locked AS (SELECT p.id FROM postbacks p JOIN r USING (id) ORDER BY p.id FOR UPDATE OF p)
    UPDATE postbacks p SET archived = p.archived + r.attempts, archived_checks = p.archived_checks + r.checks,
        archived_status = CASE WHEN r.attempts > 0 THEN r.status_code ELSE p.archived_status END,
        archived_verdict = CASE WHEN r.attempts > 0 THEN r.verdict ELSE p.archived_verdict END
    FROM r WHERE p.id = r.id AND p.id IN (SELECT id FROM locked)""")


@dataclass(slots=True)
class Leaving:
    """What of a postback is in a part, and how its last attempt there ended."""

    attempts: int = 0
    checks: int = 0
    number: int = 0
    status_code: int | None = None
    verdict: str | None = None

    def add_attempt(self, row: Values) -> None:
        self.attempts += 1
        if row["number"] >= self.number:
            self.number, self.status_code, self.verdict = row["number"], row["status_code"], row["verdict"]


@dataclass(frozen=True, slots=True)
class Filed:
    """A part that is about to be recorded: its file, the ids in it, and how many rows each postback has there."""

    month: date
    destination: str
    part: int
    written: Written
    ids: Sequence[int]
    by_postback: Mapping[int, Leaving]
    kept: bool


def record(engine: Engine, filed: Filed) -> None:
    """A file is whole and was read back: from here on its rows are in an archive, for all that read and count."""
    written, directory = filed.written, filed.written.directory
    values = {table: directory.rows(table) for table in TABLES} | {
        "month": filed.month, "destination": filed.destination, "part": filed.part,
        "folder": str(written.path.parent), "file": written.path.name, "bytes": written.bytes,
        "sha256": written.sha256, "blocks": len(directory.blocks),
        "first_attempt": directory.blocks[0].first_attempt, "last_attempt": directory.blocks[-1].last_attempt,
        "first_postback": written.first_postback, "last_postback": written.last_postback, "kept": filed.kept,
    }  # fmt: skip
    marks = [
        {
            "id": number,
            "attempts": each.attempts,
            "checks": each.checks,
            "status_code": each.status_code,
            "verdict": each.verdict,
        }
        for number, each in sorted(filed.by_postback.items())
    ]
    with engine.begin() as connection:
        asked = span(filed.month) | {"ids": list(filed.ids)}
        wrong = dict(connection.execute(_WRONG, asked).one()._mapping)
        wrong["voided_but_delivered"] = connection.execute(_WRONG_VOIDED, asked).scalar_one()
        wrong = {key: count for key, count in wrong.items() if count}
        connection.execute(_RECORD, values | {"wrong": orjson.dumps(wrong).decode()})
        connection.execute(_MARK, {"rows": as_json(marks)})


def remove_block(engine: Engine, part: Part, number: int, block: Block, rows: Rows) -> None:
    """Take the rows of a part's block out of the tables. Raises ArchiveMismatchError when they are not what is there.

    The trigger that refuses to remove evidence lets this transaction alone do it.
    """
    with engine.begin() as connection:
        connection.execute(text("SELECT set_config('holdfire.keeping', 'retain', true)"))
        for table in TABLES:
            ids = sorted({id_of(table, row) for row in rows[table]})
            statement = text(
                f"DELETE FROM {table} WHERE {ID_COLUMNS[table]} = ANY(:ids) AND intent_at >= :start AND intent_at < :end"  # noqa: S608 — our own words
            )
            gone = connection.execute(statement, span(part.month) | {"ids": ids}).rowcount if ids else 0
            if gone != block.rows[table]:
                raise ArchiveMismatchError(
                    f"{part.file}: block {number} has {block.rows[table]} rows of {table}, and the table {gone}; "
                    "run `holdfire doctor`, and keep both"
                )
        _count_gone(connection, part, number, block)


def _count_gone(connection: Connection, part: Part, number: int, block: Block) -> None:
    done = connection.execute(
        text("""
        UPDATE archives SET blocks_gone = blocks_gone + 1, gone_intents = gone_intents + :intents,
            gone_attempts = gone_attempts + :attempts, gone_hops = gone_hops + :hops,
            gone_checks = gone_checks + :checks,
            gone_at = CASE WHEN blocks_gone + 1 = blocks THEN now() END
        WHERE id = :id AND blocks_gone = :number"""),
        {"id": part.id, "number": number, **block.rows},
    )
    if done.rowcount != 1:
        raise ArchiveMismatchError(f"{part.file}: another process takes its rows out at the same time")
