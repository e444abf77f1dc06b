"""Keeping a report: its rows as they were read, its findings, and the marks on what the network has counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, text

from infra.db.engine import copy_rows, copy_text, copy_value
from infra.store.keeping import tombstones
from infra.store.reports import report_gathering
from infra.store.reports.reports import ReportRecord, report_of
from schemas.money import plain
from schemas.reconciling.findings import Bucket, Finding
from schemas.reconciling.options import ReportOptions
from schemas.reconciling.rows import LONGEST_RAW, ReadRow
from schemas.reconciling.summary import Summary, read_summary, wire_summary

SHADOWED = ("report_rows", "report_matches", "report_findings")
"""Tables that a run which keeps nothing has of its own, for as long as it lasts."""
_LOCKS = 0x5265706F  # "Repo": one reconciliation of a destination at a time


@dataclass(frozen=True, slots=True)
class NewReport:
    """A report about to be read: the same ``identity`` is the same report."""

    identity: str
    destination: str
    network: str
    file_name: str
    sha256: str
    bytes: int
    options: ReportOptions
    who: str


@dataclass(frozen=True, slots=True)
class Judged:
    """A finding and what it is about."""

    finding: Finding
    line: int | None = None
    postback_id: int | None = None
    conversion_id: int | None = None
    day: date | None = None
    times: int = 1
    """How many conversions it stands for: more than one in a report of sums alone."""


@contextmanager
def run_on(engine: Engine, destination: str, *, dry_run: bool) -> Iterator[Connection]:
    """A connection of its own for one reconciliation of ``destination``; a second one waits until it is done.

    In a dry run everything that would be kept goes into temporary tables of the same names. The connection ends with
    the run, and with it whatever stands in temporary tables.
    """
    connection = engine.connect()
    try:
        report_gathering.prepare(connection)
        connection.execute(
            text("SELECT pg_advisory_lock(:key, hashtext(:name))"), {"key": _LOCKS, "name": destination}
        )
        if dry_run:
            for table in SHADOWED:
                connection.execute(text(f"CREATE TEMP TABLE {table} (LIKE {table} INCLUDING DEFAULTS)"))
        connection.commit()
        yield connection
        connection.commit()
    finally:
        connection.invalidate()
        connection.close()


def begin(connection: Connection, new: NewReport) -> tuple[int, bool]:
    """The report's id, and whether its rows are all there from an earlier run."""
    row = connection.execute(
        text("""
        INSERT INTO reports (identity, destination, network, file_name, sha256, bytes, aggregated, options, who)
        VALUES (:identity, :destination, :network, :file_name, :sha256, :bytes, :aggregated, :options, :who)
        ON CONFLICT (identity) DO UPDATE SET file_name = excluded.file_name RETURNING id, rows"""),
        {
            "identity": new.identity,
            "destination": new.destination,
            "network": new.network,
            "file_name": new.file_name,
            "sha256": new.sha256,
            "bytes": new.bytes,
            "aggregated": new.options.aggregated,
            "options": orjson.dumps(new.options.wire()).decode(),
            "who": new.who,
        },
    ).one()
    there = text("SELECT count(*) FROM report_rows WHERE report_id = :id")
    whole = row.rows is not None and connection.execute(there, {"id": row.id}).scalar_one() == row.rows
    if not whole:
        # What a run that was cut short has left, or what the rows' age has: they are read anew.
        connection.execute(text("DELETE FROM report_rows WHERE report_id = :id"), {"id": row.id})
    connection.commit()
    return row.id, whole


_ROW_COLUMNS = (
    "report_id", "line", "conversions", "day", "occurred_at", "value", "click_id", "order_id", "name", "status",
    "currency", "raw", "problem",
)  # fmt: skip


def write_rows(connection: Connection, report_id: int, rows: Sequence[ReadRow]) -> None:
    """Append rows; committed when this returns, so that no transaction stays open for a whole report."""
    number = str(report_id)
    rows = tombstones.of_report(connection, rows)
    copy_rows(
        connection,
        "report_rows",
        _ROW_COLUMNS,
        (_row(number, row) for row in rows),
    )
    connection.commit()


def _row(number: str, row: ReadRow) -> tuple[str, ...]:
    # A line that was kept whole and needs no escaping has no cell that does.
    whole = copy_text(row.raw)
    written = _as_it_is if whole is row.raw and len(row.raw) < LONGEST_RAW else copy_text
    return (
        number, str(row.line), copy_value(row.conversions), row.day or "\\N", row.at or "\\N", row.value or "\\N",
        written(row.click_id), written(row.order_id), written(row.name), written(row.status), row.currency or "\\N",
        whole, copy_text(row.problem),
    )  # fmt: skip


def _as_it_is(value: str | None) -> str:
    return "\\N" if value is None else value


def days_of(connection: Connection, report_id: int) -> tuple[date | None, date | None]:
    """The first and the last day of a report's readable rows."""
    query = text(
        "SELECT min(day) AS first, max(day) AS last FROM report_rows WHERE report_id = :id AND problem IS NULL"
    )
    row = connection.execute(query, {"id": report_id}).one()
    return row.first, row.last


def sizes(connection: Connection, report_id: int) -> tuple[int, int]:
    """How many rows a report has that was read, and how many of them are bad."""
    row = connection.execute(
        text("SELECT rows, bad_rows FROM reports WHERE id = :id"), {"id": report_id}
    ).one()
    return row.rows, row.bad_rows


def finish_rows(connection: Connection, report_id: int, rows: int, bad_rows: int) -> None:
    """All rows are there."""
    connection.execute(
        text("UPDATE reports SET rows = :rows, bad_rows = :bad WHERE id = :id"),
        {"rows": rows, "bad": bad_rows, "id": report_id},
    )
    connection.commit()
    connection.execute(text("ANALYZE report_rows"))
    connection.commit()


def clear_findings(connection: Connection, report_id: int) -> None:
    """Forget what an earlier run found: this one judges by the log of now."""
    for table in ("report_matches", "report_findings"):
        connection.execute(text(f"DELETE FROM {table} WHERE report_id = :id"), {"id": report_id})  # noqa: S608 — fixed names


def keep_matches(connection: Connection, report_id: int) -> dict[str | None, tuple[int, Decimal]]:
    """Keep the pairs that agree in everything. Returns how many by currency, and what they are worth."""
    connection.execute(
        text("""INSERT INTO report_matches (report_id, line, postback_id, conversion_id)
            SELECT :id, line, postback_id, conversion_id FROM r_compared WHERE clean ORDER BY line"""),
        {"id": report_id},
    )
    rows = connection.execute(
        text("""SELECT currency, count(*) AS n, coalesce(sum(our_value), 0) AS amount
            FROM r_compared WHERE clean GROUP BY currency""")
    )
    return {row.currency: (row.n, row.amount) for row in rows}


_FINDING_COLUMNS = (
    "report_id", "number", "bucket", "cause", "side", "line", "postback_id", "conversion_id", "day", "days", "stake",
    "currency", "explanation",
)  # fmt: skip


def write_findings(
    connection: Connection, report_id: int, first_number: int, judged: Sequence[Judged]
) -> None:
    """Append findings, numbered from ``first_number`` on. Those that matched plainly after all go to the matches."""
    whole = [each for each in judged if each.finding.bucket is Bucket.MATCHED and each.finding.cause is None]
    copy_rows(
        connection,
        "report_matches",
        ("report_id", "line", "postback_id", "conversion_id"),
        (
            (str(report_id), str(each.line), str(each.postback_id), str(each.conversion_id))
            for each in whole
            if each.postback_id is not None
        ),
    )
    copy_rows(
        connection,
        "report_findings",
        _FINDING_COLUMNS,
        (
            _finding(report_id, number, each)
            for number, each in enumerate(judged, first_number)
            if each.finding.cause is not None
        ),
    )


def _finding(report_id: int, number: int, each: Judged) -> tuple[str, ...]:
    found = each.finding
    return (
        str(report_id), str(number), found.bucket.value, copy_text(found.cause), found.side.value, copy_value(each.line),
        copy_value(each.postback_id), copy_value(each.conversion_id), "\\N" if each.day is None else each.day.isoformat(),
        copy_value(found.days), "\\N" if found.stake is None else plain(found.stake), copy_text(found.currency),
        copy_text(found.explanation),
    )  # fmt: skip


def totals(connection: Connection) -> tuple[int, int]:
    """How many of our postbacks of the report's days were delivered and stand, and how many of its rows count."""
    row = connection.execute(
        text("""SELECT (SELECT count(*) FROM r_ours WHERE in_period AND state = 'delivered' AND NOT retracted) AS told,
            (SELECT count(*) FROM r_theirs WHERE counted) AS listed""")
    ).one()
    return row.told, row.listed


# A postback is paired once: in a match or in a finding.
_COUNTED = """(SELECT postback_id FROM report_matches WHERE report_id = :id
    UNION ALL SELECT postback_id FROM report_findings WHERE report_id = :id
        AND bucket IN ('matched', 'value_mismatch', 'day_shift') AND postback_id IS NOT NULL)"""


def mark(connection: Connection, report_id: int) -> tuple[int, int]:
    """Mark what the report counts, and take back the marks of what it no longer has. Returns how many of each.

    The later report has the last word, however often an earlier one is run again.
    """
    connection.execute(text("ANALYZE report_matches, report_findings"))
    own = connection.execute(
        text(f"""
        DELETE FROM reconciled r WHERE r.report_id = :id
            AND NOT EXISTS (SELECT FROM {_COUNTED} k WHERE k.postback_id = r.postback_id)"""),  # noqa: S608 — fixed fragments
        {"id": report_id},
    ).rowcount
    gone = connection.execute(
        text("""
        DELETE FROM reconciled r USING report_findings f
        WHERE f.report_id = :id AND f.bucket = 'ours_only' AND f.postback_id = r.postback_id AND r.report_id < :id"""),
        {"id": report_id},
    ).rowcount
    connection.execute(
        text(f"""
        INSERT INTO reconciled (postback_id, report_id)
        SELECT k.postback_id, :id FROM {_COUNTED} k
        WHERE NOT EXISTS (SELECT FROM report_findings f
            WHERE f.postback_id = k.postback_id AND f.report_id > :id AND f.bucket = 'ours_only')
        ON CONFLICT (postback_id) DO UPDATE SET report_id = excluded.report_id, at = now()
        WHERE reconciled.report_id < excluded.report_id"""),  # noqa: S608 — fixed fragments
        {"id": report_id},
    )
    kept = connection.execute(
        text("SELECT count(*) FROM reconciled WHERE report_id = :id"), {"id": report_id}
    ).scalar_one()
    return int(kept), int(own + gone)


def finish(
    connection: Connection, report_id: int, first: date | None, last: date | None, summary: Summary
) -> ReportRecord:
    """Keep what the report came to; committed when this returns."""
    row = connection.execute(
        text("""UPDATE reports SET summary = :summary, first_day = :first, last_day = :last, reconciled_at = now(),
            runs = runs + 1 WHERE id = :id RETURNING *"""),
        {
            "summary": orjson.dumps(wire_summary(summary)).decode(),
            "first": first,
            "last": last,
            "id": report_id,
        },
    ).one()
    return report_of(row)


def earlier_summaries(
    connection: Connection, destination: str, report_id: int, last: date | None, limit: int
) -> list[Summary]:
    """What the destination's reports of other days before this one came to, newest first. Id 0: before now."""
    rows = connection.execute(
        text("""
        SELECT o.summary FROM reports o WHERE o.destination = :name AND o.summary IS NOT NULL
            AND (:id = 0 OR o.id < :id) AND o.last_day IS DISTINCT FROM :last ORDER BY o.id DESC LIMIT :limit"""),
        {"name": destination, "id": report_id, "last": last, "limit": limit},
    )
    return [read_summary(row.summary) for row in rows]


def versions_of(connection: Connection, destination: str) -> list[tuple[int, Any]]:
    """Ids and contracts of every version of a destination, the newest first."""
    rows = connection.execute(
        text("SELECT id, contract FROM destination_versions WHERE destination = :name ORDER BY number DESC"),
        {"name": destination},
    )
    return [(row.id, row.contract) for row in rows]
