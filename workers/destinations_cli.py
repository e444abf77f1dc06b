"""``holdfire destinations``: check, apply, list, render and try. Only ``apply`` changes what is fired."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from infra.catalogue import Config, ConfigError, load_catalogue, load_config
from infra.open import open_store
from infra.settings import load_settings
from infra.store import audit
from infra.store import destinations as store
from infra.store.keeping import keeping
from infra.store.releasing import waiting_by_destination
from infra.store.stopping.stopping import stops
from schemas.destination import Contract, DestinationVersion
from schemas.network import AdjustmentKind
from workers import destinations_page as page
from workers import trying

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="The holdfire.toml; HOLDFIRE_CONFIG names it otherwise.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
EventOption = Annotated[
    str | None, typer.Option("--event", metavar="FILE|-", help="A conversion event as JSON.")
]
ExampleOption = Annotated[bool, typer.Option("--example", help="Use the network's own example event.")]
AppliedOption = Annotated[
    bool, typer.Option("--applied", help="Use the version that is applied, not the one in the file.")
]
AdjustmentOption = Annotated[
    AdjustmentKind | None,
    typer.Option(
        "--adjustment",
        help="Show the correction instead, as if the order (or half its value) were refunded after delivery.",
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

_NOTHING: dict[str, list[str]] = {"destinations": [], "sources": []}

commands = typer.Typer(
    help="Check, apply, list, render and try destinations.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class UnknownDestinationError(ValueError):
    """A destination that is not there; says which are."""

    def __init__(self, name: str, where: str, known: Iterable[str]) -> None:
        super().__init__(
            f"there is no destination {name!r} in {where}; use one of {', '.join(known) or '(none)'}"
        )


def register(app: typer.Typer) -> None:
    app.add_typer(commands, name="destinations")


@commands.command()
def check(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check the whole file, sources included; every problem names its key and remedy. Exits 1 if there is one."""
    path = _path(config)
    try:
        # Only the front door knows the hooks; the file's shape is checked in any case.
        loaded = load_config(path, context.obj)
    except ConfigError as error:
        page.print_findings(path, _NOTHING, error.problems, [], as_json=as_json)
        raise typer.Exit(1) from error
    named = {"destinations": list(loaded.contracts), "sources": list(loaded.sources)}
    page.print_findings(path, named, [], loaded.warnings, as_json=as_json)


@commands.command()
def apply(
    config: ConfigOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the difference.")] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what differs from what is applied, and apply it; workers take it up within seconds.

    What is held already keeps the version it was held under.
    """
    loaded = _load(_path(config), as_json=as_json)
    with open_store() as engine:
        changes = store.difference(engine, loaded.contracts)
        if not as_json:
            page.print_changes(changes)
        ages = keeping.differs(engine, loaded.keeping, loaded.contracts)
        if ages and not as_json:
            typer.echo("~ keeping  changed: how long evidence is kept")
        differing = sum(change.kind != "unchanged" for change in changes) + ages
        question = f"Apply {differing} of {len(changes) + ages}?"
        applied = bool(differing) and not dry_run and _agreed(yes, question)
        if applied:
            changes = store.apply(engine, loaded.contracts, who=audit.operator())
            keeping.apply(engine, loaded.keeping, loaded.contracts, who=audit.operator())
    if as_json:
        changed = [asdict(change) for change in changes]
        page.print_json({"applied": applied, "changes": changed, "keeping_differs": ages})
    elif applied:
        typer.echo(f"Applied {differing}.")
    elif dry_run or not differing:
        typer.echo("Nothing was changed.")


@commands.command("list")
def list_(
    networks: Annotated[bool, typer.Option("--networks", help="List the catalogue instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the applied destinations, or the networks there are."""
    if networks:
        page.print_rows(
            [page.network_row(network) for network in load_catalogue().values()],
            page.NETWORK_COLUMNS,
            as_json,
        )
        return
    with open_store() as engine:
        versions = store.Destinations(engine).current()
        waiting = waiting_by_destination(engine)
        stopped = stops(engine)
    rows = [page.row(version, waiting, stopped) for version in versions]
    page.print_rows(rows, page.DESTINATION_COLUMNS, as_json)
    if not versions and not as_json:
        typer.echo("No destination is applied; write holdfire.toml and run `holdfire destinations apply`.")


@commands.command()
def render(  # noqa: PLR0913, PLR0917 — a command's options are its parameters
    destination: str,
    event: EventOption = None,
    example: ExampleOption = False,
    applied: AppliedOption = False,
    adjustment: AdjustmentOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the exact request for an event, secrets masked. Sends nothing."""
    version = _version(destination, config, applied=applied)
    read = _event(version.contract, event, example=example)
    prepared, account = trying.prepare(version, read, adjustment)
    shown, asks = trying.show(prepared, account), trying.question(prepared, account)
    network = version.contract.network
    if as_json:
        known = {"confidence": network.confidence, "unverified": network.unverified}
        page.print_json(
            {
                "destination": destination,
                "version": version.number or None,
                "adjustment": adjustment,
                "asks": asks,
                **known,
                **asdict(shown),
            }
        )
        return
    typer.echo(f"{shown.method} {shown.url}")
    for name, value in shown.headers:
        typer.echo(f"{name}: {value}")
    if shown.body:
        typer.echo(f"\n{shown.body}")
    for note in shown.notes:
        typer.echo(f"note: {note}", err=True)
    if asks is not None:
        typer.echo(f"note: before release it asks GET {asks}", err=True)
    if network.unverified:
        typer.echo(f"note: unverified for {network.title}: {', '.join(network.unverified)}", err=True)


@commands.command("try")
def try_(  # noqa: PLR0913, PLR0917 — a command's options are its parameters
    destination: str,
    event: EventOption = None,
    example: ExampleOption = False,
    applied: AppliedOption = False,
    config: ConfigOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fire one postback at the network, right now, and show what came back. It may be counted.

    The ledger takes no note of it; the audit does. Exits 1 unless the answer means delivered.
    """
    version = _version(destination, config, applied=applied)
    prepared, account = trying.prepare(version, _event(version.contract, event, example=example))
    if not _agreed(yes, f"Send {prepared.request.method} {prepared.shown_url} now?"):
        raise typer.Exit(1)
    with open_store() as engine:
        who, detail = audit.operator(), {"destination": destination, "url": prepared.shown_url}
        # Before the first byte, so that nothing leaves unrecorded.
        audit.record(engine, who=who, action="destinations.try", detail=detail)
        attempt = trying.fire_once(prepared, account)
        outcome = {"verdict": attempt.verdict, "rule": attempt.rule, "status_code": attempt.status_code}
        audit.record(engine, who=who, action="destinations.tried", detail=detail | outcome)
    if as_json:
        page.print_json(
            {"destination": destination, **outcome, "hops": [asdict(hop) for hop in attempt.hops]}
        )
    else:
        page.print_attempt(attempt)
    if attempt.verdict != "delivered":
        raise typer.Exit(1)


def _path(config: Path | None) -> Path:
    return config if config is not None else load_settings().config


def _load(path: Path, *, as_json: bool) -> Config:
    try:
        return load_config(path)
    except ConfigError as error:
        page.print_findings(path, _NOTHING, error.problems, [], as_json=as_json)
        raise typer.Exit(1) from error


def _version(name: str, config: Path | None, *, applied: bool) -> DestinationVersion:
    """The applied version, or the file's contract as a version without number."""
    if applied:
        with open_store() as engine:
            versions = {version.contract.name: version for version in store.Destinations(engine).current()}
        if name not in versions:
            raise UnknownDestinationError(name, "what is applied", versions)
        return versions[name]
    path = _path(config)
    contracts = load_config(path).contracts
    if name not in contracts:
        raise UnknownDestinationError(name, str(path), contracts)
    return DestinationVersion(0, 0, contracts[name])


def _event(contract: Contract, place: str | None, *, example: bool) -> Any:
    now = datetime.now(UTC)
    if example == (place is not None):
        raise typer.BadParameter("give either --event FILE|- or --example")
    if place is None:
        return trying.read_for(contract, trying.example_event(contract, now), now)
    try:
        raw = orjson.loads(sys.stdin.buffer.read() if place == "-" else Path(place).read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise typer.BadParameter(f"{place} cannot be read as JSON: {error}", param_hint="--event") from error
    return trying.read_for(contract, raw, now)


def _agreed(yes: bool, question: str) -> bool:
    """A terminal is asked; a script has said what it wants by calling."""
    return yes or not sys.stdin.isatty() or typer.confirm(question, err=True)
