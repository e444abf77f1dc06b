"""Reconciling a report: the one way in, for the command, the page and programs."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine

from infra.report_files import examine, open_report
from infra.store import destinations
from infra.store.reports import report_writing, reports
from infra.store.reports.reports import ReportRecord
from investigations.reconcile.reading import Preview, ReconcileError, decided, preview, with_habit
from investigations.reconcile.working import Progress, Work
from schemas.destination import Contract
from schemas.reconciling.options import ReportOptions


def quiet(stage: str, done: int) -> None:
    """Progress for nobody."""


def reconcile(  # noqa: PLR0913, PLR0917 — what, with what, how, by whom
    engine: Engine,
    destination: str,
    path: Path,
    options: ReportOptions,
    who: str,
    progress: Progress = quiet,
    name: str | None = None,
) -> int:
    """Reconcile a report and keep what it came to. Returns the report's id: the same one for the same report.

    Raises MappingError where the report cannot be read, ReconcileError for a destination that never was.
    """
    return run(engine, destination, path, options, who, progress, name=name).id


def run(  # noqa: PLR0913, PLR0917 — as above
    engine: Engine,
    destination: str,
    path: Path,
    options: ReportOptions,
    who: str,
    progress: Progress = quiet,
    *,
    name: str | None = None,
    dry_run: bool = False,
) -> ReportRecord:
    """As ``reconcile``; in a dry run nothing is kept and nothing is marked, and the report's id is 0."""
    file = examine(path, name)
    with report_writing.run_on(engine, destination, dry_run=dry_run) as connection:
        versions = report_writing.versions_of(connection, destination)
        if not versions:
            known = ", ".join(destinations.names(engine)) or "none was ever applied"
            raise ReconcileError(f"there is no destination {destination!r}; there are: {known}")
        contract = Contract.model_validate(versions[0][1])
        habit = reports.remembered(engine, destination, contract.network.slug)
        merged, known_of = with_habit(options, habit, contract)
        with open_report(file, merged, known_of) as opened:
            work = Work(
                connection,
                contract,
                tuple(version for version, _ in versions),
                file,
                decided(opened),
                who,
                progress,
                dry_run,
            )
            return work.run(opened)


__all__ = ["Preview", "Progress", "ReconcileError", "preview", "quiet", "reconcile", "run"]
