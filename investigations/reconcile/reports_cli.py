"""``holdfire reports``: list, show and export reports that were reconciled."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Engine

from infra.filters import AsJson, AskingError
from infra.open import open_store
from infra.store import audit
from infra.store.reports import reports
from infra.store.reports.reports import PER_PAGE, ReportRecord
from investigations.columns import show_columns
from investigations.export.cells import BOM, csv_text
from investigations.page import print_json, say, show, stdout
from investigations.reconcile.pages import (
    FINDING_FIELDS,
    finding_columns,
    finding_json,
    report_json,
    report_page,
    reports_columns,
)
from investigations.reconcile.support import write_support
from investigations.words import visible
from schemas.ids import parse
from schemas.ids import show as shown
from schemas.reconciling.findings import Bucket, Cause, Side

NOT_FOUND = 1

Id = Annotated[str, typer.Argument(metavar="REPORT", help="rp_N.")]
OfBucket = Annotated[Bucket | None, typer.Option("--bucket", help="Only findings of this bucket.")]
OfCause = Annotated[Cause | None, typer.Option("--cause", help="Only findings of this cause.")]
OfSide = Annotated[Side | None, typer.Option("--side", help="Only what is theirs to settle.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="List, show and export the networks' reports that were reconciled.", no_args_is_help=True
    )
    group.command("list")(listing)
    group.command("show")(one)
    group.command("export")(export)
    app.add_typer(group, name="reports")


def listing(
    destination: Annotated[str | None, typer.Option(help="Only reports of this destination.")] = None,
    as_json: AsJson = False,
) -> None:
    """List all reports, the newest first."""
    with open_store() as engine:
        found = reports.reports(engine, destination=destination)
    if as_json:
        print_json(map(report_json, found))
    elif found:
        show_columns(stdout(), reports_columns(found))
    say(f"{len(found)} report{'s' * (len(found) != 1)}.")


def one(  # noqa: PLR0913, PLR0917 — a command's options are its parameters
    identifier: Id,
    bucket: OfBucket = None,
    cause: OfCause = None,
    side: OfSide = None,
    bad_rows: Annotated[
        bool, typer.Option("--bad-rows", help="List the rows that could not be read.")
    ] = False,
    after: Annotated[int, typer.Option(help="Go on after the page that ended here.", min=0)] = 0,
    limit: Annotated[int, typer.Option(help="At most so many findings.", min=1)] = PER_PAGE,
    as_json: AsJson = False,
) -> None:
    """Show what a report came to; with a bucket, cause or side, each of its findings, a page at a time."""
    with open_store() as engine:
        report = find_report(engine, identifier)
        if bad_rows:
            _bad_rows(engine, report, after, limit, as_json=as_json)
            return
        if bucket is None and cause is None and side is None:
            if as_json:
                print_json([report_json(report)])
            else:
                show(report_page(report))
            return
        page = reports.findings(
            engine, report.id, bucket=bucket, cause=cause, side=side, after=after, limit=limit
        )
    if as_json:
        print_json(map(finding_json, page.rows))
    elif page.rows:
        show_columns(stdout(), finding_columns(page.rows))
    more = "" if page.next is None else f" More: --after {page.next}."
    say(f"{len(page.rows)} finding{'s' * (len(page.rows) != 1)}.{more}")


def _bad_rows(engine: Engine, report: ReportRecord, after: int, limit: int, *, as_json: bool) -> None:
    found = reports.bad_rows(engine, report.id, after=after, limit=limit)
    if as_json:
        print_json({"line": each.line, "problem": each.problem, "raw": each.raw} for each in found)
    else:
        for each in found:
            typer.echo(f"line {each.line}: {visible(each.problem)}\n    {visible(each.raw)}")
    more = f" More: --after {found[-1].line}." if len(found) == limit else ""
    say(f"{len(found)} of {report.bad_rows:,} rows that could not be read.{more}")


def export(  # noqa: PLR0913, PLR0917 — a command's options are its parameters
    identifier: Id,
    bucket: OfBucket = None,
    cause: OfCause = None,
    side: OfSide = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to; standard output if left out.")
    ] = None,
    support: Annotated[
        Path | None, typer.Option("--support", help="Write the draft for the network's support, a zip, here.")
    ] = None,
) -> None:
    """Export findings as CSV, or the draft for the network's support with the evidence of every dispute."""
    with open_store() as engine:
        report = find_report(engine, identifier)
        if support is not None:
            if output is not None or bucket is not None or cause is not None or side is not None:
                raise AskingError(
                    "reports export: --support chooses what is disputed by itself; leave the others out"
                )
            with support.open("wb") as target:
                counts = write_support(engine, report, target)
            say(
                f"{support}: {counts.findings:,} findings, {counts.conversions:,} conversions with their evidence."
            )
            if counts.left_out:
                say(f"{counts.left_out:,} more are in its CSV, without their exchanges.")
            return
        asked = {"bucket": bucket, "cause": cause, "side": side}
        name = shown("rp", report.id)
        audit.record(engine, who=audit.operator(), action="export.csv", detail={"name": name, "asked": asked})
        lines = csv_text(FINDING_FIELDS, _cells(engine, report, bucket, cause, side))
        if output is None:
            sys.stdout.writelines(lines)
            return
        with output.open("w", encoding="utf-8", newline="") as target_text:
            target_text.write(BOM)
            target_text.writelines(lines)


def _cells(
    engine: Engine, report: ReportRecord, bucket: Bucket | None, cause: Cause | None, side: Side | None
) -> Iterator[list[str]]:
    for each in reports.all_findings(engine, report.id, bucket=bucket, cause=cause, side=side):
        told = finding_json(each)
        yield ["" if told[name] is None else str(told[name]) for name in FINDING_FIELDS]


def find_report(engine: Engine, identifier: str) -> ReportRecord:
    """The report of an ``rp_N``. Ends the command with exit code 1 if there is none."""
    found = parse(identifier)
    if found is None or found[0] != "rp":
        raise AskingError(f"{identifier!r} is no report; write rp_N as `holdfire reports list` shows it")
    report = reports.report(engine, found[1])
    if report is None:
        say(f"holdfire: there is no report {shown('rp', found[1])}; see `holdfire reports list`")
        raise typer.Exit(NOT_FOUND)
    return report
