"""A report for people and for programs: buckets, causes with one example each, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from rich.text import Text

from infra.store.reports.reports import FindingRecord, ReportRecord
from investigations.columns import Columns, widths
from investigations.jsonable import instant
from investigations.page import label, line
from investigations.words import clock, money, visible
from schemas.ids import show
from schemas.money import plain
from schemas.reconciling.findings import CAUSES, Bucket, Side
from schemas.reconciling.shares import Standing
from schemas.reconciling.summary import NO_CURRENCY, CauseSummary, Summary, wire_summary

Json = dict[str, Any]
_STYLES = {
    Standing.NORMAL: "green",
    Standing.NOTICEABLE: "yellow",
    Standing.HIGH: "red",
    Standing.STRUCTURAL: "bold red",
}
SIDES = {
    Side.NOBODY: "nothing to settle",
    Side.US: "ours to mend",
    Side.NETWORK: "for the network",
    Side.OPEN: "open",
}
"""Whose move it is, as it is written."""


def bucket_name(bucket: Bucket) -> str:
    """``ours only`` for ``ours_only``."""
    return bucket.value.replace("_", " ")


def report_page(report: ReportRecord) -> Iterator[Text]:
    """All of a report but its single findings."""
    name = show("rp", report.id) if report.id else "a dry run"
    yield line((name, "bold"), f"  {report.destination}  {visible(report.file_name)}")
    yield line("")
    yield label("days", days_of(report))
    yield label("rows", f"{report.rows:,}, of which {report.bad_rows:,} could not be read")
    yield label("read as", read_as(report))
    summary = report.summary
    if summary is None:
        yield label("unfinished", "it was read, but never compared to its end; reconcile it again")
        return
    if report.id:
        yield label(
            "marked",
            f"{summary.marked:,} postbacks as counted; {summary.unmarked:,} earlier marks taken back",
        )
    yield line("")
    yield from _buckets(summary)
    yield from _notes(summary)
    if summary.causes:
        yield line("")
        yield from _causes(summary.causes)
        yield line("")
        yield from _steps(report, summary)


def days_of(report: ReportRecord) -> str:
    """Which days are compared, in which zone, dated by what."""
    options = report.options
    zone = f"in {options.time_zone or 'UTC'}, dated by {options.dated_by or 'event'}"
    if report.first_day is None or report.last_day is None:
        return f"all there are, {zone}"
    return f"{report.first_day} to {report.last_day}, {zone}"


def read_as(report: ReportRecord) -> str:
    """Which column is which, and how numbers and dates are written."""
    columns = (f"{field}={visible(column)}" for field, column in sorted(report.options.columns.items()))
    options = report.options
    how = [f"decimal {options.decimal or '.'}"]
    if options.date_format:
        how.append(f"dates {visible(options.date_format)}")
    if options.currency:
        how.append(options.currency)
    return f"{', '.join(columns)}; {', '.join(how)}"


def _buckets(summary: Summary) -> Iterator[Text]:
    rows = [("bucket", "count", "share", "value", "disputed", "of it", "at stake", "")]
    for each in summary.buckets:
        disputed = ("-", "-", "-")
        if each.bucket is not Bucket.MATCHED:
            disputed = (f"{each.disputed:,}", percent(each.disputed_share), amounts(each.stakes))
        means = "" if each.bucket is Bucket.MATCHED or not each.disputed else each.standing.words
        shown = (bucket_name(each.bucket), f"{each.count:,}", percent(each.share), amounts(each.amounts))
        rows.append((*shown, *disputed, means))
    yield from _table(rows, {i + 1: _STYLES[each.standing] for i, each in enumerate(summary.buckets)})


def _causes(causes: tuple[CauseSummary, ...]) -> Iterator[Text]:
    rows = [("bucket", "cause", "count", "value", "whose move", "for example")]
    rows += [
        (
            bucket_name(each.bucket), CAUSES[each.cause].title, f"{each.count:,}", amounts(each.amounts), SIDES[each.side],
            _example(each),
        )
        for each in causes
    ]  # fmt: skip
    yield from _table(rows, {})


def _example(each: CauseSummary) -> str:
    where = []
    if each.example_postback is not None:
        where.append(show("pb", each.example_postback))
    if each.example_line is not None:
        where.append(f"line {each.example_line}")
    return f"{', '.join(where)}: {visible(each.example)}" if where else visible(each.example)


def _table(rows: Sequence[tuple[str, ...]], styles: Mapping[int, str]) -> Iterator[Text]:
    sizes = widths(rows)
    for number, row in enumerate(rows):
        text = "  ".join(cell.ljust(size) for cell, size in zip(row, sizes, strict=True)).rstrip()
        yield line((text, "dim" if number == 0 else styles.get(number, "")))


def _notes(summary: Summary) -> Iterator[Text]:
    if summary.notes:
        yield line("")
    for note in summary.notes:
        yield line(f"note: {visible(note)}")


def _steps(report: ReportRecord, summary: Summary) -> Iterator[Text]:
    yield line(("what to do next", "dim"))
    for each in summary.causes:
        if each.side is not Side.NOBODY:
            yield line(f"  {CAUSES[each.cause].title} ({each.count:,}): {CAUSES[each.cause].step}")
    if report.id:
        disputes = sum(each.count for each in summary.causes if each.side is Side.NETWORK)
        name = show("rp", report.id)
        if disputes:
            yield line(f"  for the network's support: holdfire reports export {name} --support FILE.zip")
        yield line(f"  each of them: holdfire reports show {name} --bucket ours_only")


def percent(share: Decimal) -> str:
    """``4.2 %``; what is not nothing is never shown as nothing."""
    hundredths = share * 100
    return "<0.1 %" if 0 < hundredths < Decimal("0.1") else f"{hundredths:.1f} %"


def amounts(sums: Mapping[str, Decimal]) -> str:
    """``49.90 EUR + 12 USD``, or a dash."""
    shown = [
        plain(amount) if currency == NO_CURRENCY else money(amount, currency)
        for currency, amount in sums.items()
    ]
    return " + ".join(shown) or "-"


def report_json(report: ReportRecord) -> Json:
    """A report with its summary."""
    return {
        "id": show("rp", report.id) if report.id else None,
        "destination": report.destination,
        "network": report.network,
        "file_name": report.file_name,
        "sha256": report.sha256,
        "bytes": report.bytes,
        "aggregated": report.aggregated,
        "options": report.options.wire(),
        "first_day": None if report.first_day is None else report.first_day.isoformat(),
        "last_day": None if report.last_day is None else report.last_day.isoformat(),
        "rows": report.rows,
        "bad_rows": report.bad_rows,
        "who": report.who,
        "created_at": instant(report.created_at),
        "reconciled_at": instant(report.reconciled_at),
        "runs": report.runs,
        "summary": None if report.summary is None else _summary_json(report.summary),
    }


def _summary_json(summary: Summary) -> Json:
    wired = wire_summary(summary)
    for each in wired["causes"]:
        postback = each["example_postback"]
        each["example_postback"] = None if postback is None else show("pb", postback)
    return wired


FINDING_FIELDS = (
    "bucket", "cause", "side", "line", "postback", "conversion", "state", "our_click_id", "their_click_id", "our_order_id",
    "their_order_id", "our_value", "our_currency", "their_value", "their_currency", "their_day", "their_at", "days", "stake",
    "currency", "explanation", "step",
)  # fmt: skip
"""Of a finding in JSON and CSV."""


def finding_json(found: FindingRecord) -> Json:
    """One finding with both its sides."""
    return {
        "bucket": found.bucket.value,
        "cause": None if found.cause is None else found.cause.value,
        "side": found.side.value,
        "line": found.line,
        "postback": None if found.postback_id is None else show("pb", found.postback_id),
        "conversion": None if found.conversion_id is None else show("cv", found.conversion_id),
        "state": None if found.state is None else found.state.value,
        "our_click_id": found.our_click_id,
        "their_click_id": found.their_click_id,
        "our_order_id": found.our_order_id,
        "their_order_id": found.their_order_id,
        "our_value": None if found.our_value is None else plain(found.our_value),
        "our_currency": found.our_currency,
        "their_value": None if found.their_value is None else plain(found.their_value),
        "their_currency": found.their_currency,
        "their_day": None if found.their_day is None else found.their_day.isoformat(),
        "their_at": instant(found.their_at),
        "days": found.days,
        "stake": None if found.stake is None else plain(found.stake),
        "currency": found.currency,
        "explanation": found.explanation,
        "step": found.step,
    }


def finding_columns(found: list[FindingRecord]) -> Columns:
    """Findings as a listing."""
    header = ("bucket", "cause", "postback", "conversion", "line", "ours", "theirs", "order", "explanation")
    rows = [
        (
            bucket_name(each.bucket),
            "-" if each.cause is None else CAUSES[each.cause].title,
            "-" if each.postback_id is None else show("pb", each.postback_id),
            "-" if each.conversion_id is None else show("cv", each.conversion_id),
            "-" if each.line is None else str(each.line),
            "-" if each.our_value is None else money(each.our_value, each.our_currency),
            "-" if each.their_value is None else money(each.their_value, each.their_currency or ""),
            visible(each.our_order_id or each.their_order_id or "-"),
            visible(each.explanation),
        )
        for each in found
    ]
    return Columns(header, rows, ("conversion", "bucket", "order", "line"))


def reports_columns(found: list[ReportRecord]) -> Columns:
    """Reports as a listing."""
    header = (
        "report",
        "destination",
        "days",
        "rows",
        "ours only",
        "theirs only",
        "other",
        "standing",
        "reconciled (UTC)",
        "file",
    )
    return Columns(header, [_listed(each) for each in found], ("reconciled (UTC)", "rows", "other"))


def _listed(each: ReportRecord) -> tuple[str, ...]:
    summary = each.summary
    days = f"{each.first_day} to {each.last_day}" if each.first_day else "all"
    at = "-" if each.reconciled_at is None else clock(each.reconciled_at)[:19]
    if summary is None:
        return (show("rp", each.id), each.destination, days, f"{each.rows:,}", "-", "-", "-", "unfinished", at,
                visible(each.file_name))  # fmt: skip
    shares = {each.bucket: percent(each.disputed_share) for each in summary.buckets}
    others = sum(
        summary.bucket(kind).disputed for kind in (Bucket.DUPLICATE, Bucket.VALUE_MISMATCH, Bucket.DAY_SHIFT)
    )
    return (
        show("rp", each.id), each.destination, days, f"{each.rows:,}", shares[Bucket.OURS_ONLY],
        shares[Bucket.THEIRS_ONLY], f"{others:,}", summary.standing.value, at, visible(each.file_name),
    )  # fmt: skip
