"""``holdfire dead``: what ended without being counted, by what ended it, with the command that fires it again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.text import Text

from infra.filters import AsJson, AskingError, read_instant
from infra.open import open_store
from infra.store.firing import database_now
from infra.store.replays.causes import LETTERS, Cause, causes
from investigations.page import STATE_STYLES, label, line, print_json, show
from investigations.words import clock, money, span, visible
from schemas.ids import show as show_id
from schemas.lifecycle import State
from schemas.money import plain


def register(app: typer.Typer) -> None:
    app.command()(dead)


def dead(
    destination: Annotated[
        str | None, typer.Option("--destination", help="Only of this destination.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Ended since: 2h, 3d (ago) or ISO 8601.")
    ] = None,
    state: Annotated[
        list[State] | None, typer.Option("--state", help="Only dead ones, or only rejected ones.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List dead and rejected letters by their causes.

    What ended them, how many and what they stand for, and how to fire them again.

    \b
    holdfire dead
    holdfire dead --destination push-eu --since 2d
    """
    states = tuple(state or LETTERS)
    if not set(states) <= set(LETTERS):
        raise AskingError("dead: --state is dead or rejected; `holdfire find --state` lists others")
    with open_store() as engine:
        now = database_now(engine)
        found = causes(engine, states, destination=destination, since=read_instant("--since", since, now))
    if as_json:
        print_json(map(cause_json, found))
    else:
        show(_page(found, now))


def replay_command(cause: Cause) -> str:
    """What fires exactly these again; it looks first."""
    return f"holdfire replay --cause {cause.key} --dry-run"


def _page(found: list[Cause], now: datetime) -> Iterator[Text]:
    if not found:
        yield line("No dead or rejected letters.")
        return
    for cause in found:
        yield from _cause(cause, now)
        yield line("")
    total = sum(cause.postbacks for cause in found)
    yield line(
        f"{total:,} postback{'' if total == 1 else 's'} of {len(found):,} cause{'' if len(found) == 1 else 's'}."
    )


def _cause(cause: Cause, now: datetime) -> Iterator[Text]:
    error = f" ({visible(cause.error_class)})" if cause.error_class else ""
    yield line(
        (f"{cause.postbacks:,} {cause.state}", STATE_STYLES[cause.state]),
        f"  {visible(cause.destination)}: {visible(cause.rule)}{error}",
    )
    worth = ", ".join(money(amount, currency) for currency, amount in cause.worth) or "no value"
    yield label("worth", worth)
    yield label(
        "ended",
        f"from {clock(cause.oldest_at)} to {clock(cause.newest_at)} UTC, {span(now - cause.newest_at)} ago",
    )
    yield label("example", f"holdfire trail {show_id('pb', cause.example)}")
    yield label("again", replay_command(cause))


def cause_json(cause: Cause) -> dict[str, Any]:
    return {
        "cause": cause.key,
        "destination": cause.destination,
        "state": cause.state.value,
        "rule": cause.rule,
        "error_class": cause.error_class,
        "status_code": cause.status_code,
        "postbacks": cause.postbacks,
        "worth": {currency: plain(amount) for currency, amount in cause.worth},
        "oldest_at": cause.oldest_at.isoformat(),
        "newest_at": cause.newest_at.isoformat(),
        "example": show_id("pb", cause.example),
        "replay": replay_command(cause),
    }
