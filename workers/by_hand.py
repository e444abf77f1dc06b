"""What people do by hand: ``void``, ``extend`` and ``release`` one postback, or all that a filter of ``find`` finds."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic_core import PydanticCustomError

from infra.filters import AsJson, AskingError, Filters, iso_instant, with_filters
from infra.open import open_store
from infra.selecting import DryRun, Identifier, Reason, Who, read_selection, read_signature
from infra.store.by_hand import carry_out, consider
from infra.store.selection import extent
from schemas.by_hand import Act, Errand, Extension
from schemas.durations import parse as parse_duration
from workers.by_hand_page import Report


def register(app: typer.Typer) -> None:
    for command in (void, extend, release):
        app.command()(command)


@with_filters
def void(  # noqa: PLR0913 — a command's options are its parameters
    identifier: Identifier = None,
    *,
    filters: Filters,
    reason: Reason = None,
    who: Who = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Void postbacks by hand: they never fire.

    One, all of a conversion, or all that match. What is on the wire makes no
    further attempt. What the network has is refused: a refund signal corrects it.
    Exits 1 if something is refused or nothing is found.

    \b
    holdfire void pb_12 --reason "fraud ring"
    holdfire void --destination push-eu --state held --since 2d --dry-run
    """
    _run(Errand(Act.VOID), identifier, filters, reason, who, dry_run=dry_run, as_json=as_json)


@with_filters
def extend(  # noqa: PLR0913 — a command's options are its parameters
    identifier: Identifier = None,
    *,
    by: Annotated[
        str | None, typer.Option("--by", help="So much longer: 36h, 7d; from its end or now, the later.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Up to an instant in ISO 8601: 2026-12-24T10:00:00Z.")
    ] = None,
    filters: Filters,
    reason: Reason = None,
    who: Who = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Extend the windows of held postbacks by hand.

    Never to an earlier end, nor beyond a network's age limit.
    Exits 1 if something is refused or nothing is found.

    \b
    holdfire extend cv_7 --by 7d --reason "the parcel is late"
    holdfire extend --network xandr --state held --to 2027-01-08 --reason "Christmas"
    """
    errand = Errand(Act.EXTEND, _extension(by, to))
    _run(errand, identifier, filters, reason, who, dry_run=dry_run, as_json=as_json)


@with_filters
def release(  # noqa: PLR0913 — a command's options are its parameters
    identifier: Identifier = None,
    *,
    due: Annotated[
        bool, typer.Option("--due", help='In a pass: first let go what is due where release = "manual".')
    ] = False,
    filters: Filters,
    reason: Reason = None,
    who: Who = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Release what is due, in a pass; or, by hand and with a reason, what is held.

    A pass, without an ID and filters, is for those whose own scheduler drives the
    releases: it takes back what dead workers held and hands all that is due to the
    workers. Exits 1 if something stays due because no worker takes it.

    \b
    holdfire release
    holdfire release --due --destination push-eu

    By hand, what an ID or filters name fires now, before its window ends; that is
    also the credit decision that it may be waiting for.
    Exits 1 if something is refused or nothing is found.

    \b
    holdfire release pb_12 --reason "approved by phone"
    holdfire release --destination push-eu --reason "campaign ends today"
    """
    if identifier is not None or reason is not None or filters.given() - {"destination"}:
        if due:
            raise AskingError(
                "release: --due is for a pass, which has neither ID nor --reason and of the filters --destination only"
            )
        _run(Errand(Act.RELEASE), identifier, filters, reason, who, dry_run=dry_run, as_json=as_json)
        return
    if filters.destination is not None and not due:
        raise AskingError(
            "release: --destination goes with --due, for a pass that lets go what waits for it, or with --reason, "
            "which releases all that its destination holds by hand"
        )
    if who is not None or as_json:
        raise AskingError(
            "release: --as and --json go with a release by hand; give an ID or filters, and --reason"
        )
    from workers.cli import release_pass  # noqa: PLC0415 — the commands start fast

    release_pass(due=due, destination=filters.destination, dry_run=dry_run)


def _run(  # noqa: PLR0913 — as the commands have it
    errand: Errand,
    identifier: str | None,
    filters: Filters,
    reason: str | None,
    who: str | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    if identifier is None and not filters.given():
        raise AskingError(f"{errand.act}: name an ID or a filter; `holdfire find` shows what a filter finds")
    signature = None if dry_run else read_signature(errand.act, reason, who)
    with open_store() as engine:
        selection = read_selection(engine, errand.act, identifier, filters)
        there = extent(engine, selection)
        report = Report(errand.act, there.count, dry_run=dry_run, as_json=as_json)
        batches = (
            consider(engine, selection, errand, there.last)
            if signature is None
            else carry_out(engine, selection, errand, signature, there.last)
        )
        try:
            for batch in batches:
                report.add(batch)
        except KeyboardInterrupt:
            report.close("Interrupted: so much is done, and calling it again does the rest.")
            raise
    report.close()
    if report.refused or not report.moved:
        raise typer.Exit(1)


def _extension(by: str | None, to: str | None) -> Extension:
    if (by is None) == (to is None):
        raise AskingError("extend: give one of --by, such as 7d, and --to, such as 2026-12-24T10:00:00Z")
    if to is not None:
        try:
            return Extension(to=iso_instant(to))
        except ValueError:
            raise AskingError(f"--to: {to!r} is no instant; write 2026-12-24T10:00:00Z") from None
    try:
        return Extension(by=parse_duration(by))
    except PydanticCustomError as error:
        raise AskingError(f"--by: {error.message()}") from None
