"""``holdfire inbox``: what came in over HTTP, verbatim, and its mapping run again after it was mended."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from sqlalchemy import Engine

from infra.filters import AskingError, read_instant
from infra.open import open_store
from infra.settings import load_settings
from infra.store import audit, deliveries
from infra.store.deliveries import Again, Kept, Wanted, outcome
from producers import inbox_page as page
from producers.hooks.hook import Delivery
from producers.hooks.pipeline import understand
from producers.hooks.sources import Opened, describe_sources
from schemas.ids import parse, show

commands = typer.Typer(
    help="List and show what came in over HTTP, and run mappings again.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Kind(StrEnum):
    """How a request came in."""

    EVENTS = "events"
    HOOK = "hook"
    CLICK = "click"


class UnknownRequestError(ValueError):
    """An id that names no request."""


Source = Annotated[str | None, typer.Option("--source", help="Only from this source.")]
Since = Annotated[str | None, typer.Option("--since", help="Received since: 2h, 3d (ago) or ISO 8601.")]
Failed = Annotated[bool, typer.Option("--failed", help="Only what something was refused of, still.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


def register(app: typer.Typer) -> None:
    app.add_typer(commands, name="inbox")


@commands.command("list")
def list_(  # noqa: PLR0913, PLR0917 — a command's options are its parameters
    source: Source = None,
    since: Since = None,
    kind: Annotated[Kind | None, typer.Option("--kind", help="Only what came in this way.")] = None,
    failed: Failed = False,
    limit: Annotated[
        int, typer.Option(help="At most so many, newest first; it is said how many more.", min=1)
    ] = 50,
    everything: Annotated[bool, typer.Option("--all", help="However many there are.")] = False,
    as_json: AsJson = False,
) -> None:
    """List requests, newest first."""
    wanted = Wanted(source=source, kind=kind, since=_instant(since), failed=failed)
    with open_store() as engine:
        found, total = deliveries.find(engine, wanted, None if everything else limit)
    if as_json:
        page.print_json(map(page.listed, found))
    elif found:
        page.print_table(found)
    more = total - len(found)
    page.say(f"{total} request{'' if total == 1 else 's'}." + (f" {more} more: --all." if more else ""))


@commands.command("show")
def show_(
    request: Annotated[str, typer.Argument(metavar="in_N", help="The request.")], as_json: AsJson = False
) -> None:
    """Show one request as it came, credentials masked, and what came of it."""
    with open_store() as engine:
        (number,) = _numbers([request])
        kept = deliveries.read(engine, number)
    if kept is None:
        raise UnknownRequestError(f"there is no request {request}; `holdfire inbox list` lists them")
    if as_json:
        page.print_json([page.whole(kept)])
    else:
        page.print_request(kept)


@commands.command()
def rerun(  # noqa: PLR0913, PLR0917 — a command's options are its parameters
    requests: Annotated[list[str] | None, typer.Argument(metavar="[in_N]...", help="These requests.")] = None,
    source: Source = None,
    since: Since = None,
    failed: Failed = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would come to.")] = False,
    config: Annotated[
        Path | None, typer.Option("--config", help="The holdfire.toml; HOLDFIRE_CONFIG names it otherwise.")
    ] = None,
    who: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="Who does it; else the login name and the host."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the mapping of hooks' deliveries again, as holdfire.toml has it now, and enqueue what is new.

    Events are told by their ids: running twice enqueues nothing twice. Exits 1 if something is still refused.
    """
    if not requests and source is None:
        raise AskingError("inbox rerun: name requests, or a --source and, if you like, --since and --failed")
    wanted = Wanted(_numbers(requests or []), source, "hook", _instant(since), failed)
    sources = describe_sources(config or load_settings().config)
    with open_store() as engine:
        _check_all_there(engine, wanted)
        _, total = deliveries.find(engine, wanted, 0)
        results = []
        with Progress(
            console=Console(stderr=True), transient=True, disable=total <= deliveries.PAGE
        ) as progress:
            for kept in progress.track(deliveries.walk(engine, wanted), total=total, description="Running"):
                again = _again(engine, _opened(kept, sources), kept, who or audit.operator(), dry_run=dry_run)
                results.append(again)
                if as_json:
                    page.print_json([{"request_id": show("in", kept.request_id), **outcome(again)}])
                else:
                    page.print_again(again)
    enqueued, still = sum(len(each.enqueued) for each in results), sum(bool(each.refused) for each in results)
    page.say(
        f"{total} run{'' if total == 1 else 's'}: {enqueued} event{'' if enqueued == 1 else 's'} "
        f"{'would be ' if dry_run else ''}enqueued, {still} still refused."
    )
    if still:
        raise typer.Exit(1)


def _again(engine: Engine, source: Opened, kept: Kept, who: str, *, dry_run: bool) -> Again:
    headers: dict[str, str] = {}
    for name, value in kept.headers:
        headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
    url = f"https://{headers.get('host', 'localhost')}{kept.target}"
    peer = kept.peer.rpartition(":")[0] if kept.peer else None
    delivery = Delivery(kept.method, url, headers, kept.body, kept.received_at, peer)
    found = understand(source, delivery, datetime.now(UTC))
    return deliveries.enqueue_again(
        engine, kept.request_id, found.candidates, found.refused, found.ignored, who=who, dry_run=dry_run
    )


def _opened(kept: Kept, sources: dict[str, Opened]) -> Opened:
    opened = sources.get(kept.source or "")
    if opened is None:
        known = ", ".join(sources) or "(none)"
        raise UnknownRequestError(
            f"{show('in', kept.request_id)} came to the source {kept.source!r}, which holdfire.toml no longer has; "
            f"it has {known}"
        )
    return opened


def _check_all_there(engine: Engine, wanted: Wanted) -> None:
    """Every request that was named is a hook's delivery: others have no mapping."""
    found, _ = deliveries.find(engine, Wanted(ids=wanted.ids), None) if wanted.ids else ([], 0)
    kinds = {kept.request_id: kept.kind for kept in found}
    for number in wanted.ids:
        if number not in kinds:
            raise UnknownRequestError(
                f"there is no request {show('in', number)}; `holdfire inbox list` lists them"
            )
        if kinds[number] != "hook":
            raise UnknownRequestError(
                f"{show('in', number)} came as {kinds[number]}, which no mapping is for; name deliveries of hooks"
            )


def _numbers(requests: list[str]) -> tuple[int, ...]:
    numbers = []
    for each in requests:
        found = parse(each)
        if found is None or found[0] != "in":
            raise AskingError(f"inbox: {each!r} is no request; write it as in_58")
        numbers.append(found[1])
    return tuple(numbers)


def _instant(since: str | None) -> datetime | None:
    return read_instant("--since", since, datetime.now(UTC))
