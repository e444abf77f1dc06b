"""How a report is read: what is given over what was remembered, and what it would be read as."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from infra.report_files import Known, OpenReport, RawRow, examine, open_report
from infra.store import destinations
from infra.store.reports import reports
from schemas.destination import Contract
from schemas.reconciling.options import UTF_16, ReportOptions
from schemas.reconciling.rows import ReadRow, RowReader, Writing

_SEEN_IN_A_FILE = ("utf-8", "utf-8-sig", "cp1252", *UTF_16)
"""Encodings that are told from the bytes."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a report would be read as: its columns, its first rows, and what is decided or guessed."""

    file_name: str
    header: tuple[str, ...]
    header_line: int
    columns: dict[str, str]
    options: ReportOptions
    rows: tuple[tuple[str, ...], ...]
    read: tuple[ReadRow, ...]
    """The same rows as they would be read, with what is wrong with each."""


class ReconcileError(ValueError):
    """A report that cannot be reconciled: what is wrong with the asking, and the remedy."""


def preview(
    engine: Engine, destination: str, path: Path, options: ReportOptions, name: str | None = None
) -> Preview:
    """What the report would be read as. Raises as ``reconcile`` does, and keeps nothing."""
    file = examine(path, name)
    contract = next(
        (
            each.contract
            for each in destinations.Destinations(engine).current()
            if each.contract.name == destination
        ),
        None,
    )
    if contract is None:
        raise ReconcileError(f"there is no destination {destination!r}; apply it first")
    merged, known_of = with_habit(
        options, reports.remembered(engine, destination, contract.network.slug), contract
    )
    with open_report(file, merged, known_of) as opened:
        options = decided(opened)
        reader = RowReader(opened.places, writing(options))
        shown = opened.sample[:10]
        return Preview(
            file.name,
            opened.header,
            opened.header_line,
            dict(options.columns),
            options,
            tuple(tuple(row.cells) for row in shown),
            tuple(read_row(reader, row) for row in shown),
        )


def with_habit(
    options: ReportOptions, habit: ReportOptions | None, contract: Contract
) -> tuple[ReportOptions, Known]:
    """What is given over what was remembered. Remembered columns count only where the report has them."""
    known = Known(contract.network.click_parameters, {} if habit is None else habit.columns)
    if habit is None:
        return options, known
    # What a file shows by itself is not taken from the one before it: networks change it, and people save as they like.
    own: dict[str, object] = {"columns": {}, "delimiter": None}
    if (habit.encoding or "").lower().replace("_", "-") in _SEEN_IN_A_FILE:
        own["encoding"] = None
    # Who says one of the two signs has not said the other: what was remembered of it may be the same character.
    if options.decimal is not None:
        own["thousands"] = None
    elif options.thousands is not None:
        own["decimal"] = None
    return options.over(habit.model_copy(update=own)), known


def decided(opened: OpenReport) -> ReportOptions:
    options = opened.options
    return options.model_copy(
        update={"time_zone": options.time_zone or "UTC", "dated_by": options.dated_by or "event"}
    )


def writing(options: ReportOptions) -> Writing:
    return Writing(
        options.zone,
        options.decimal or ".",
        options.thousands or None,
        options.date_format,
        options.currency,
        options.aggregated,
    )


def read_row(reader: RowReader, row: RawRow) -> ReadRow:
    if row.problem is not None:
        return ReadRow(row.line, raw=row.raw[:1_000], problem=row.problem)
    return reader.read(row.line, row.cells, row.raw)
