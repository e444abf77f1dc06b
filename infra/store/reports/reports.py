"""Networks' reports as they are kept: what was read, what it came to, and the drill-down to each conversion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, Row, text

from schemas.lifecycle import State
from schemas.reconciling.findings import CAUSES, Bucket, Cause, Side
from schemas.reconciling.options import ReportOptions
from schemas.reconciling.summary import Summary, read_summary

PER_PAGE = 50


@dataclass(frozen=True, slots=True)
class ReportRecord:
    """A report as it stands. ``summary`` is None while it was read but never judged to its end."""

    id: int
    destination: str
    network: str
    file_name: str
    sha256: str
    bytes: int
    aggregated: bool
    options: ReportOptions
    """As they were decided: given, remembered, or guessed."""
    first_day: date | None
    last_day: date | None
    rows: int
    bad_rows: int
    who: str
    created_at: datetime
    reconciled_at: datetime | None
    runs: int
    """How often it was laid beside our log."""
    summary: Summary | None


@dataclass(frozen=True, slots=True)
class FindingRecord:
    """One row or postback of a report, with both sides of it as they are kept."""

    number: int
    """Its place in the paging of its bucket."""
    bucket: Bucket
    cause: Cause | None
    side: Side
    explanation: str
    line: int | None
    postback_id: int | None
    conversion_id: int | None
    day: date | None
    days: int | None
    stake: Decimal | None
    currency: str | None
    our_click_id: str | None
    our_order_id: str | None
    our_value: Decimal | None
    our_currency: str | None
    state: State | None
    their_click_id: str | None
    their_order_id: str | None
    their_value: Decimal | None
    their_currency: str | None
    their_at: datetime | None
    their_day: date | None
    raw: str | None

    @property
    def step(self) -> str:
        """What to do next."""
        return "Nothing." if self.cause is None else CAUSES[self.cause].step


@dataclass(frozen=True, slots=True)
class FindingsPage:
    """A page of findings; ``next`` is to be given as ``after`` for the one that follows, None at the end."""

    rows: list[FindingRecord]
    next: int | None


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be read, and why."""

    line: int
    raw: str
    problem: str


_REPORTS = "SELECT * FROM reports"


def reports(engine: Engine, *, destination: str | None = None) -> list[ReportRecord]:
    """All reports, the newest first."""
    query = f"{_REPORTS} WHERE CAST(:name AS text) IS NULL OR destination = :name ORDER BY id DESC"
    with engine.connect() as connection:
        return [_report(row) for row in connection.execute(text(query), {"name": destination})]


def report(engine: Engine, report_id: int) -> ReportRecord | None:
    """One report, or None if there is none with this id."""
    with engine.connect() as connection:
        row = connection.execute(text(f"{_REPORTS} WHERE id = :id"), {"id": report_id}).one_or_none()
    return None if row is None else _report(row)


def report_of(row: Row[Any]) -> ReportRecord:
    """A row of ``reports`` as a value."""
    return _report(row)


def _report(row: Row[Any]) -> ReportRecord:
    return ReportRecord(
        id=row.id,
        destination=row.destination,
        network=row.network,
        file_name=row.file_name,
        sha256=row.sha256,
        bytes=row.bytes,
        aggregated=row.aggregated,
        options=ReportOptions.model_validate(row.options),
        first_day=row.first_day,
        last_day=row.last_day,
        rows=row.rows or 0,
        bad_rows=row.bad_rows or 0,
        who=row.who,
        created_at=row.created_at,
        reconciled_at=row.reconciled_at,
        runs=row.runs,
        summary=None if row.summary is None else read_summary(row.summary),
    )


# Matches are pairs of numbers in a table of their own; both are read in one shape.
_SIDES = """
    LEFT JOIN report_rows t ON t.report_id = f.report_id AND t.line = f.line
    LEFT JOIN postbacks p ON p.id = f.postback_id LEFT JOIN conversions c ON c.id = f.conversion_id
    LEFT JOIN destination_versions v ON v.id = p.version_id"""
_SHOWN = """
    t.click_id AS their_click_id, t.order_id AS their_order_id, t.value AS their_value, t.currency AS their_currency,
    t.occurred_at AS their_at, t.day AS their_day, t.raw, p.state, c.order_id AS our_order_id,
    coalesce(p.reported, c.value) AS our_value, c.currency AS our_currency,
    coalesce(c.matched->v.destination->>'token', c.event->'click_ids'->>v.destination,
        c.event->'click_ids'->>(v.contract->'network'->>'slug'), c.event->>'partner_id') AS our_click_id"""
_OF_MATCHES = """(SELECT report_id, line AS number, 'matched' AS bucket, NULL::text AS cause, 'nobody' AS side,
        'in both logs, with the same value, on the same day' AS explanation, line, postback_id, conversion_id,
        NULL::date AS day, NULL::integer AS days, NULL::numeric AS stake, NULL::text AS currency
    FROM report_matches WHERE report_id = :id AND line > :after ORDER BY line LIMIT :limit) f"""
_OF_FINDINGS = """(SELECT * FROM report_findings WHERE report_id = :id AND number > :after
        AND (CAST(:bucket AS text) IS NULL OR bucket = :bucket) AND (CAST(:cause AS text) IS NULL OR cause = :cause)
        AND (CAST(:side AS text) IS NULL OR side = :side)
    ORDER BY number LIMIT :limit) f"""


def findings(  # noqa: PLR0913 — a report, what of it, and which page
    engine: Engine,
    report_id: int,
    *,
    bucket: Bucket | str | None = None,
    cause: Cause | str | None = None,
    side: Side | str | None = None,
    after: int | None = None,
    limit: int = PER_PAGE,
) -> FindingsPage:
    """Findings of a report, paged by key. Without a ``bucket`` all but what matched plainly."""
    plain = bucket == Bucket.MATCHED and cause is None
    source = _OF_MATCHES if plain else _OF_FINDINGS
    query = text(f"SELECT f.*, {_SHOWN} FROM {source} {_SIDES} ORDER BY f.number")  # noqa: S608 — fixed fragments
    values = {
        "id": report_id,
        "bucket": bucket,
        "cause": cause,
        "side": side,
        "after": after or 0,
        "limit": limit + 1,
    }
    with engine.connect() as connection:
        bound = {name: values[name] for name in query.compile().params}
        rows = [_finding(row) for row in connection.execute(query, bound)]
    more = len(rows) > limit
    return FindingsPage(rows[:limit], rows[limit - 1].number if more else None)


def all_findings(
    engine: Engine,
    report_id: int,
    *,
    bucket: str | None = None,
    cause: str | None = None,
    side: str | None = None,
) -> Iterator[FindingRecord]:
    """Every finding, a page at a time."""
    after: int | None = 0
    while after is not None:
        page = findings(engine, report_id, bucket=bucket, cause=cause, side=side, after=after, limit=2_000)
        yield from page.rows
        after = page.next


def bad_rows(engine: Engine, report_id: int, *, after: int = 0, limit: int = PER_PAGE) -> list[BadRow]:
    """Rows that could not be read, by line."""
    query = text("""SELECT line, raw, problem FROM report_rows
        WHERE report_id = :id AND problem IS NOT NULL AND line > :after ORDER BY line LIMIT :limit""")
    with engine.connect() as connection:
        rows = connection.execute(query, {"id": report_id, "after": after, "limit": limit})
        return [BadRow(row.line, row.raw, row.problem) for row in rows]


def counted_by(engine: Engine, postback_ids: list[int]) -> Mapping[int, int]:
    """By postback: the last report that has counted it."""
    query = text("SELECT postback_id, report_id FROM reconciled WHERE postback_id = ANY(:ids)")
    with engine.connect() as connection:
        return {row.postback_id: row.report_id for row in connection.execute(query, {"ids": postback_ids})}


def remembered(engine: Engine, destination: str, network: str) -> ReportOptions | None:
    """How reports of the destination, or else of its network, were read last."""
    query = text("""SELECT options FROM report_mappings WHERE (scope = 'destination' AND name = :destination)
        OR (scope = 'network' AND name = :network) ORDER BY scope = 'destination' DESC LIMIT 1""")
    with engine.connect() as connection:
        found = connection.execute(
            query, {"destination": destination, "network": network}
        ).scalar_one_or_none()
    return None if found is None else ReportOptions.model_validate(found)


def remember(connection: Connection, destination: str, network: str, options: ReportOptions) -> None:
    """Keep how a report was read, for the next one."""
    statement = text("""INSERT INTO report_mappings (scope, name, options) VALUES (:scope, :name, :options)
        ON CONFLICT (scope, name) DO UPDATE SET options = excluded.options, updated_at = now()""")
    written = orjson.dumps(options.lasting().wire()).decode()
    for scope, name in (("destination", destination), ("network", network)):
        connection.execute(statement, {"scope": scope, "name": name, "options": written})


def _finding(row: Row[Any]) -> FindingRecord:
    return FindingRecord(
        number=row.number,
        bucket=Bucket(row.bucket),
        cause=None if row.cause is None else Cause(row.cause),
        side=Side(row.side),
        explanation=row.explanation,
        line=row.line,
        postback_id=row.postback_id,
        conversion_id=row.conversion_id,
        day=row.day,
        days=row.days,
        stake=row.stake,
        currency=row.currency,
        our_click_id=row.our_click_id,
        our_order_id=row.our_order_id,
        our_value=row.our_value,
        our_currency=row.our_currency,
        state=None if row.state is None else State(row.state),
        their_click_id=row.their_click_id,
        their_order_id=row.their_order_id,
        their_value=row.their_value,
        their_currency=row.their_currency,
        their_at=row.their_at,
        their_day=row.their_day,
        raw=row.raw,
    )
