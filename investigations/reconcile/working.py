"""The stages of one reconciliation: rows in, both sides gathered and paired, what differs judged, and all of it kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import islice
from typing import Final

import orjson
from sqlalchemy import Connection

from infra.report_files import OpenReport, ReportFile
from infra.store import audit
from infra.store.reports import (
    report_facts,
    report_gathering,
    report_near,
    report_pairing,
    report_patterns,
    report_writing,
    reports,
)
from infra.store.reports.report_gathering import Scope
from infra.store.reports.report_patterns import Patterns
from infra.store.reports.report_writing import Judged, NewReport
from infra.store.reports.reports import ReportRecord
from investigations.bodies import readable
from investigations.reconcile.aggregating import judge_days
from investigations.reconcile.reading import read_row, writing
from schemas.destination import Contract
from schemas.ids import show
from schemas.money import plain
from schemas.reconciling.columns import uncounted
from schemas.reconciling.facts import Ours, Terms
from schemas.reconciling.findings import Bucket
from schemas.reconciling.options import ReportOptions
from schemas.reconciling.pairs import judge_pair, judge_repeat
from schemas.reconciling.rows import RowReader
from schemas.reconciling.shares import SUSTAINED_REPORTS
from schemas.reconciling.shifts import common_ratio, shift_of_days, shift_of_instants
from schemas.reconciling.summary import Summary, Tally, summarise
from schemas.reconciling.uncounted import judge_ours
from schemas.reconciling.untold import judge_theirs

ROWS_PER_COPY: Final = 10_000
FINDINGS_PER_COPY: Final = 2_000

Progress = Callable[[str, int], None]
"""Told what is being done, and of how many rows or findings it is done."""


def identity(destination: str, sha256: str, options: ReportOptions) -> str:
    """What makes a report the same one again: destination, file and how it is read."""
    told = [destination, sha256, options.wire()]
    return hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class Work:
    connection: Connection
    contract: Contract
    versions: tuple[int, ...]
    file: ReportFile
    options: ReportOptions
    who: str
    progress: Progress
    dry_run: bool

    def run(self, opened: OpenReport) -> ReportRecord:
        """The stages in order."""
        number, rows, bad = self._rows(opened)
        first, last = self._period(number)
        scope = Scope(
            self.contract,
            self.versions,
            self.options.time_zone or "UTC",
            self.options.dated_by or "event",
            first,
            last,
        )
        report_writing.clear_findings(self.connection, number)
        judge = self._days if self.options.aggregated else self._conversions
        summary = judge(number, scope, self._notes(rows, bad, first))
        if self.dry_run:
            return self._unkept(first, last, rows, bad, summary)
        self.progress("marking", 0)
        marked, unmarked = (0, 0) if self.options.aggregated else report_writing.mark(self.connection, number)
        summary = replace(summary, marked=marked, unmarked=unmarked)
        record = report_writing.finish(self.connection, number, first, last, summary)
        reports.remember(self.connection, self.contract.name, self.contract.network.slug, self.options)
        audit.write(
            self.connection,
            who=self.who,
            action="report.reconcile",
            detail={"report": show("rp", number), "destination": self.contract.name, "file": self.file.name,
                    "sha256": self.file.sha256, "marked": marked, "unmarked": unmarked},
        )  # fmt: skip
        self.connection.commit()
        return record

    def _rows(self, opened: OpenReport) -> tuple[int, int, int]:
        """Read the rows into the store, unless they are there from an earlier run. Returns id, rows and bad rows."""
        number, there = 0, False
        if not self.dry_run:
            new = NewReport(
                identity(self.contract.name, self.file.sha256, self.options), self.contract.name,
                self.contract.network.slug, self.file.name, self.file.sha256, self.file.bytes, self.options, self.who,
            )  # fmt: skip
            number, there = report_writing.begin(self.connection, new)
        if there:
            return number, *report_writing.sizes(self.connection, number)
        rows = bad = 0
        reader = RowReader(opened.places, writing(self.options))
        read = (read_row(reader, row) for row in opened.rows)
        # While the database takes one batch in, the next one is read.
        with ThreadPoolExecutor(1) as writer:
            pending: Future[None] | None = None
            while batch := list(islice(read, ROWS_PER_COPY)):
                bad += sum(each.problem is not None for each in batch)
                rows += len(batch)
                if pending is not None:
                    pending.result()
                pending = writer.submit(report_writing.write_rows, self.connection, number, batch)
                self.progress("reading", rows)
            if pending is not None:
                pending.result()
        report_writing.finish_rows(self.connection, number, rows, bad)
        return number, rows, bad

    def _period(self, number: int) -> tuple[date | None, date | None]:
        """The days that are compared: those asked for, or those that the report has rows of."""
        first, last = report_writing.days_of(self.connection, number)
        return self.options.first_day or first, self.options.last_day or last

    def _conversions(self, number: int, scope: Scope, notes: list[str]) -> Summary:
        connection = self.connection
        network = self.contract.network
        listed = report_facts.statuses(connection, number)
        not_counted = uncounted(listed, self.options.counted)
        if not_counted:
            notes.append(f"rows with the status {', '.join(sorted(not_counted))} are taken as not counted")
        self.progress("gathering", 0)
        report_gathering.gather_theirs(connection, number, scope, not_counted)
        report_gathering.gather_ours(connection, scope)
        self.progress("pairing", 0)
        report_pairing.pair(connection, sub_id=network.sub_id)
        report_pairing.compare(connection, tells_value=self.contract.tells_value)
        found = report_patterns.patterns(connection, scope.zone)
        report_pairing.find_repeats(connection, sub_id=network.sub_id)
        report_near.find_near(connection)
        report_facts.look_elsewhere(connection)
        report_facts.look_among_refused(connection, scope.first, scope.last)
        terms = self._terms(scope, found)
        notes += _remarks(terms, found)
        tally = Tally()
        for currency, (count, amount) in report_writing.keep_matches(connection, number).items():
            tally.counts[Bucket.MATCHED] += count
            tally.add_amount(Bucket.MATCHED, currency, amount)
        self._write(number, tally, self._judged(terms))
        told, rows = report_writing.totals(connection)
        return summarise(
            tally, told=told, listed=rows, earlier=self._earlier(number, scope.last), notes=notes
        )

    def _days(self, number: int, scope: Scope, notes: list[str]) -> Summary:
        self.progress("gathering", 0)
        report_gathering.gather_ours(self.connection, scope)
        tally = Tally()
        days = judge_days(self.connection, number, scope, notes)
        self._write(number, tally, iter(days.judged))
        tally.counts[Bucket.MATCHED] += days.agreeing
        for currency, amount in days.amounts.items():
            tally.add_amount(Bucket.MATCHED, currency, amount)
        return summarise(
            tally, told=days.told, listed=days.listed, earlier=self._earlier(number, scope.last), notes=notes
        )

    def _write(self, number: int, tally: Tally, judged: Iterator[Judged]) -> None:
        batch: list[Judged] = []
        written = 0
        for each in judged:
            tally.add(each.finding, each.line, each.postback_id, each.times)
            batch.append(each)
            if len(batch) == FINDINGS_PER_COPY:
                report_writing.write_findings(self.connection, number, written + 1, batch)
                written += len(batch)
                batch = []
                self.progress("judging", written)
        report_writing.write_findings(self.connection, number, written + 1, batch)

    def _judged(self, terms: Terms) -> Iterator[Judged]:
        """Everything that does not plainly agree, judged with its evidence."""
        name = self.contract.name
        for ours, theirs, answer in report_facts.odd_pairs(self.connection, name):
            yield Judged(
                judge_pair(_with_body(ours, answer), theirs, terms), theirs.line, ours.postback_id, ours.conversion_id,
                theirs.day or ours.day,
            )  # fmt: skip
        for ours, theirs in report_facts.repeats(self.connection, name):
            if theirs.counted:
                yield Judged(
                    judge_repeat(theirs, ours),
                    theirs.line,
                    ours.postback_id,
                    ours.conversion_id,
                    theirs.day or ours.day,
                )
        for ours, near, answer in report_facts.ours_left(self.connection, name):
            yield Judged(
                judge_ours(_with_body(ours, answer), terms, near), None if near is None else near.line,
                ours.postback_id, ours.conversion_id, ours.day,
            )  # fmt: skip
        for theirs, close, elsewhere, refused in report_facts.theirs_left(self.connection, name):
            finding = judge_theirs(theirs, near=close, elsewhere=elsewhere, refused=refused)
            if finding.currency is None and finding.stake is not None:
                finding = replace(finding, currency=self.options.currency)
            of = close or elsewhere
            yield Judged(
                finding, theirs.line, None if of is None else of.postback_id, None if of is None else of.conversion_id,
                theirs.day,
            )  # fmt: skip

    def _terms(self, scope: Scope, found: Patterns) -> Terms:
        network = self.contract.network
        shift = (
            shift_of_days(found.days, found.other_days)
            if found.dates_only
            else shift_of_instants(found.instants, found.other_days)
        )
        return Terms(
            first=scope.first,
            last=scope.last,
            zone=self.options.zone,
            dated_by=scope.dated_by,
            dates_only=found.dates_only,
            shift=shift,
            ratio=common_ratio(found.ratios, found.other_values),
            window=self.options.attribution_window,
            age_limit=network.age_limit,
            tells_value=self.contract.tells_value,
            delivered_means=network.delivered_means,
            shape=found.shape,
            counted_until=found.counted_until,
        )

    def _earlier(self, number: int, last: date | None) -> dict[Bucket, list[Decimal]]:
        summaries = report_writing.earlier_summaries(
            self.connection, self.contract.name, number, last, SUSTAINED_REPORTS - 1
        )
        return {bucket: [each.bucket(bucket).disputed_share for each in summaries] for bucket in Bucket}

    def _notes(self, rows: int, bad: int, first: date | None) -> list[str]:
        notes = []
        if not rows:
            notes.append("the report has no rows: export it again, unless the network really counted nothing")
        if bad:
            notes.append(f"{bad:,} of {rows:,} rows could not be read: they are kept, each with its reason")
        if first is None:
            notes.append(
                "the report has no dates: it is compared with everything that the destination ever held"
            )
        if not self.contract.tells_value and "value" in self.options.columns:
            notes.append("the destination sends no value, so values are not compared")
        return notes

    def _unkept(
        self, first: date | None, last: date | None, rows: int, bad: int, summary: Summary
    ) -> ReportRecord:
        now = datetime.now(UTC)
        self.connection.rollback()
        return ReportRecord(
            0, self.contract.name, self.contract.network.slug, self.file.name, self.file.sha256, self.file.bytes,
            self.options.aggregated, self.options, first, last, rows, bad, self.who, now, now, 0, summary,
        )  # fmt: skip


def _with_body(ours: Ours, answer: report_facts.Answered) -> Ours:
    if not answer.body:
        return ours
    text = readable(answer.head, answer.body).text or ""
    return replace(ours, evidence=replace(ours.evidence, body=text))


def _remarks(terms: Terms, found: Patterns) -> list[str]:
    """What explains many differences at once."""
    notes = []
    if terms.shift is not None:
        hours = terms.shift.total_seconds() / 3600
        notes.append(
            f"a clock {hours:+g} h from {terms.zone.key} explains most of the {found.other_days:,} days that differ: "
            "give the report's own zone with --time-zone"
        )
    if terms.ratio is not None:
        notes.append(
            f"most values that differ are {plain(terms.ratio)} of ours: a commission, or another currency?"
        )
    if terms.delivered_means == "tried":
        notes.append(
            "this network answers the same when it counted nothing: only its report says what it counted"
        )
    return notes
