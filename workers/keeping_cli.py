"""``holdfire retain`` and ``holdfire legal-hold``: how long evidence stays, and what must stay longer."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from infra.filters import AsJson, AskingError, Filters, iso_instant, with_filters
from infra.logging import configure_logging
from infra.open import open_store
from infra.settings import load_settings
from infra.store import audit
from infra.store.firing import database_now
from infra.store.keeping import keeping as store
from infra.store.keeping import legal_holds
from infra.store.keeping.legal_holds import LegalHold
from schemas.ids import parse as parse_id
from schemas.keeping import Policy
from workers import housekeeping, retaining
from workers.retaining import Retained

LONGEST_REASON = 500

Reason = Annotated[str | None, typer.Option("--reason", help="Why. It is kept in the audit.")]
Who = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="Who does it; else the login name and the host.")
]

holds = typer.Typer(
    help="Hold evidence for a legal dispute: neither retention nor erasure touches it.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(app: typer.Typer) -> None:
    app.command()(retain)
    app.add_typer(holds, name="legal-hold")


def retain(
    reason: Reason = None,
    who: Who = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would leave.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Retain evidence as long as the applied policy says, and no longer.

    Months that are past it go into archives, which `find` and `trail` read on, and
    then leave the database. Interrupted, it goes on where it was when run again.

    \b
    holdfire retain --dry-run
    holdfire retain --reason "monthly"
    """
    signed = None if dry_run else said("retain", reason)
    log_aside()
    with open_store() as engine:
        policy = store.applied(engine)
        if signed is None:
            done = retaining.foresee(engine, policy)
        else:
            done = carry_out(engine, policy, who or audit.operator(), signed, quiet=as_json)
    if as_json:
        typer.echo(orjson.dumps(housekeeping.as_json(done)).decode())
    else:
        _print(done, policy, dry_run=dry_run)


def carry_out(engine: Engine, policy: Policy, who: str, reason: str, *, quiet: bool = False) -> Retained:
    """Retain, and write down in the audit what it came to."""
    folder = housekeeping.archive_folder(policy, load_settings().data_dir)
    progress = (lambda _: None) if quiet else (lambda words: typer.echo(words, err=True))
    return housekeeping.run(engine, policy, folder, progress, who=who, reason=reason)


def _print(done: Retained, policy: Policy, *, dry_run: bool) -> None:
    will = "would leave" if dry_run else "left"
    for (month, destination), count in sorted(done.archived.items()):
        typer.echo(f"{month:%Y-%m}  {destination}: {count:,} attempts and checks {will}")
    for table, count in done.rows.items():
        typer.echo(f"{table}: {count:,} rows {will}")
    for file in done.expired:
        typer.echo(f"archive {file}: {'would be deleted' if dry_run else 'deleted'}")
    if done.dropped:
        typer.echo(f"Dropped from the database: {', '.join(f'{month:%Y-%m}' for month in done.dropped)}.")
    if done.stay_held:
        typer.echo(f"{done.stay_held:,} stay: they are under a legal hold.")
    if done.stay_open:
        typer.echo(f"{done.stay_open:,} stay: their postbacks have not ended.")
    if not (done.archived or done.rows or done.expired or done.dropped):
        ages = [policy.keeping.evidence, *policy.by_destination.values()]
        kept = "Nothing is old enough." if any(ages) else "Nothing is to leave: [keeping] gives no ages."
        typer.echo(kept)


@holds.command("add")
@with_filters
def add(  # noqa: PLR0913 — a command's options are its parameters
    *,
    filters: Filters,
    conversion: Annotated[
        str | None, typer.Option("--conversion", metavar="cv_N", help="Of this conversion.")
    ] = None,
    ends: Annotated[
        str | None, typer.Option("--ends", metavar="INSTANT", help="When it ends by itself: 2027-06-30.")
    ] = None,
    reason: Reason = None,
    who: Who = None,
    as_json: AsJson = False,
) -> None:
    """Add a hold on all that the filters find, now and as it comes to match.

    \b
    holdfire legal-hold add --order 1234 --reason "case 12/26"
    holdfire legal-hold add --destination push-eu --since 90d --reason "invoice dispute"
    """
    given = filters.given()
    if (conversion is None) == (not given):
        raise AskingError(
            "legal-hold add: give --conversion cv_N, or filters; `holdfire find` shows what they find"
        )
    why = said("legal-hold add", reason)
    with open_store() as engine:
        hold = legal_holds.place(
            engine,
            filters.criteria(database_now(engine)),
            None if conversion is None else _conversion(conversion),
            who=who or audit.operator(),
            reason=why,
            until=None if ends is None else _instant(ends),
        )
    if as_json:
        typer.echo(orjson.dumps(asdict(hold)).decode())
        return
    what = f"all of {hold.destination}" if hold.conversions is None else f"{hold.conversions} conversions"
    typer.echo(f"Legal hold {hold.id}: {what}. Nothing of it is dropped or erased until it is lifted.")


@holds.command("list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Those that ended, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List holds, newest first."""
    with open_store() as engine:
        legal_holds.refresh(engine)
        found = [hold for hold in legal_holds.holds(engine) if everything or hold.active]
    if as_json:
        for hold in found:
            typer.echo(orjson.dumps(asdict(hold)).decode())
        return
    table = Table("hold", "since", "by", "what", "conversions", "ends", "reason", box=None)
    for hold in found:
        table.add_row(
            str(hold.id), f"{hold.placed_at:%Y-%m-%d}", _safe(hold.who), _safe(what_it_holds(hold)),
            "all" if hold.conversions is None else str(hold.conversions), _end(hold), _safe(hold.reason),
        )  # fmt: skip
    if found:
        Console().print(table)
    else:
        typer.echo("No legal hold.")


@holds.command("lift")
def lift(
    number: Annotated[int, typer.Argument(metavar="HOLD", help="Its number.")],
    reason: Reason = None,
    who: Who = None,
) -> None:
    """Lift a hold: what was under it follows the retention again."""
    why = said("legal-hold lift", reason)
    with open_store() as engine:
        legal_holds.lift(engine, number, who=who or audit.operator(), reason=why)
    typer.echo(f"Legal hold {number} is lifted.")


def log_aside() -> None:
    """What is logged goes beside what is printed, in the form that the environment asks for."""
    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)


def what_it_holds(hold: LegalHold) -> str:
    """A hold's criteria in words."""
    return ", ".join(
        f"{name.removesuffix('_id')} {', '.join(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value}"
        for name, value in hold.criteria.items()
    )


def said(command: str, reason: str | None) -> str:
    """The reason, which must be given. Raises AskingError."""
    words = (reason or "").strip()
    if not words:
        raise AskingError(
            f'{command}: --reason is missing; say why, such as --reason "case 12/26": it is kept'
        )
    if len(words) > LONGEST_REASON:
        raise AskingError(f"{command}: --reason has {len(words)} characters; say it in {LONGEST_REASON}")
    return words


def _end(hold: LegalHold) -> str:
    if hold.lifted_at is not None:
        return f"lifted {hold.lifted_at:%Y-%m-%d}"
    return "" if hold.until is None else f"{hold.until:%Y-%m-%d}"


def _safe(words: str) -> str:
    return words.encode("unicode_escape").decode() if not words.isprintable() else words


def _conversion(text: str) -> int:
    parsed = parse_id(text)
    if parsed is None or parsed[0] != "cv":
        raise AskingError(f"--conversion: {text!r} is no conversion; write cv_12")
    return parsed[1]


def _instant(text: str) -> datetime:
    try:
        instant = iso_instant(text)
    except ValueError:
        raise AskingError(
            f"--ends: {text!r} is no instant; write 2027-06-30 or 2027-06-30T10:00:00Z"
        ) from None
    if instant <= datetime.now(UTC):
        raise AskingError(f"--ends: {text} is past; give an instant to come")
    return instant
