"""``holdfire reconcile``: lay a network's own report beside our log."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from infra.filters import AsJson, AskingError
from infra.open import open_store
from infra.store import audit
from infra.store.reports.reports import ReportRecord
from investigations.page import print_json, say, show
from investigations.reconcile.pages import report_json, report_page
from investigations.reconcile.running import run
from schemas.reconciling.options import ReportOptions, read_options
from schemas.reconciling.shares import Standing

OVER = 1
"""Exit code of a report whose disputed share is above 5 % somewhere: a scheduled check wants to hear of it."""

_STAGES = {
    "reading": "reading the report",
    "gathering": "gathering our side",
    "pairing": "pairing rows and postbacks",
    "judging": "judging what differs",
    "marking": "marking what is counted",
}


def register(app: typer.Typer) -> None:
    app.command()(reconcile)


def reconcile(  # noqa: PLR0913, PLR0917 — a command's options are its parameters
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="The destination that the report is of.")
    ],
    report: Annotated[Path, typer.Argument(metavar="REPORT", help="The network's own report: CSV or XLSX.")],
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="FIELD=COLUMN", help="Which column is which; may be given several times."
        ),
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option(help="The zone that the network dates in, as Europe/Berlin.")
    ] = None,
    currency: Annotated[str | None, typer.Option(help="Of the amounts, where no column says.")] = None,
    decimal: Annotated[str | None, typer.Option(help="The decimal sign: . or ,")] = None,
    thousands: Annotated[str | None, typer.Option(help="The thousands separator; '' for none.")] = None,
    date_format: Annotated[str | None, typer.Option(help="As %d.%m.%Y %H:%M, epoch_s or epoch_ms.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="Between cells, where it cannot be guessed.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of the text, where it cannot be guessed.")] = None,
    sheet: Annotated[str | None, typer.Option(help="Of a workbook; the first if left out.")] = None,
    dated_by: Annotated[
        str | None, typer.Option(help="What the network dates by: event, click or delivery.")
    ] = None,
    first_day: Annotated[
        str | None, typer.Option("--from", metavar="DAY", help="The first day to compare.")
    ] = None,
    last_day: Annotated[
        str | None, typer.Option("--to", metavar="DAY", help="The last day to compare.")
    ] = None,
    window: Annotated[
        str | None,
        typer.Option("--attribution-window", help="How long after a click the network attributes, as 30d."),
    ] = None,
    counted: Annotated[
        list[str] | None,
        typer.Option("--counted", metavar="STATUS", help="A status that counts; several times."),
    ] = None,
    aggregated: Annotated[
        bool, typer.Option("--aggregated", help="The report sums up days and lists no conversions.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and compare; keep nothing and mark nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Reconcile a network's own report with our log.

    Every conversion goes into one bucket with its cause. Exit code 1 if a disputed share is above 5 %.
    """
    options = read_options(
        {
            "columns": read_columns(columns or []),
            "time_zone": time_zone,
            "currency": currency,
            "decimal": decimal,
            "thousands": thousands,
            "date_format": date_format,
            "delimiter": delimiter,
            "encoding": encoding,
            "sheet": sheet,
            "dated_by": dated_by,
            "first_day": _day("--from", first_day),
            "last_day": _day("--to", last_day),
            "attribution_window": window,
            "counted": tuple(counted or ()),
            "aggregated": aggregated,
        }
    )
    if not report.is_file():
        raise AskingError(f"reconcile: {report} is no file; name the report as it was downloaded")
    found = _run(destination, report, options, dry_run=dry_run)
    if as_json:
        print_json([report_json(found)])
    else:
        show(report_page(found))
    if dry_run:
        say("A dry run: nothing was kept, and nothing was marked.")
    assert found.summary is not None
    if found.summary.standing in {Standing.HIGH, Standing.STRUCTURAL}:
        raise typer.Exit(OVER)


def _run(destination: str, report: Path, options: ReportOptions, *, dry_run: bool) -> ReportRecord:
    console = Console(stderr=True, highlight=False, markup=False)
    shown = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.fields[done]}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    with open_store() as engine, shown:
        task = shown.add_task("looking through the report", total=None, done="")

        def progress(stage: str, done: int) -> None:
            shown.update(task, description=_STAGES[stage], done=f"{done:,}" if done else "")

        return run(engine, destination, report, options, audit.operator(), progress, dry_run=dry_run)


def read_columns(pairs: list[str]) -> dict[str, str]:
    """``click_id=Click ID`` as field and column. Raises AskingError."""
    columns: dict[str, str] = {}
    for pair in pairs:
        field, equals, column = pair.partition("=")
        if not equals or not field.strip() or not column.strip():
            raise AskingError(f"--map: {pair!r} is no mapping; write click_id=COLUMN")
        columns[field.strip()] = column.strip()
    return columns


def _day(option: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise AskingError(f"{option}: {text!r} is no day; write it like 2026-11-30") from None
