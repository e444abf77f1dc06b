"""``holdfire pause`` and ``resume``: stop firing at a destination, and go on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

import orjson
import typer
from pydantic_core import PydanticCustomError
from sqlalchemy import Engine

from infra.filters import AskingError, iso_instant
from infra.open import open_store
from infra.store import audit
from infra.store.destinations import names
from infra.store.firing import database_now
from infra.store.stopping import stopping
from infra.store.stopping.stopping import Stop, Waiting
from schemas.durations import parse as parse_duration

LONGEST_REASON = 500

Destination = Annotated[str, typer.Argument(help="Its name, as `holdfire destinations list` has it.")]
Who = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="Who does it; else the login name and the host.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    for command in (pause, resume):
        app.command()(command)


def pause(  # noqa: PLR0913, PLR0917 — a command's options are its parameters
    destination: Destination,
    reason: Annotated[
        str | None, typer.Option("--reason", help="Why. It is kept with who did it, and shown meanwhile.")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", help="When it ends by itself: 2h (from now), or 2026-12-24T10:00:00Z."),
    ] = None,
    who: Who = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be held up, and what would expire.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Pause firing at a destination, until an instant or until it is resumed.

    Nothing is fired there and no attempt is spent. Windows and signals go on, and
    so do the network's age limits: how many expire before the end is said.

    \b
    holdfire pause push-eu --reason "they migrate" --until 2h
    """
    said = None if dry_run else _reason(reason)
    with open_store() as engine:
        _known(engine, destination)
        end = _end(until, database_now(engine))
        if said is not None:
            stopping.pause(engine, destination, who or audit.operator(), said, end)
        held_up = stopping.waiting(engine, destination, end)
        stop = stopping.stops(engine).get(destination)
    if as_json:
        _print(_paused_json(destination, said is not None, end, held_up))
        return
    if said is None:
        typer.echo(f"Would pause {destination}{_until(end)}.")
    else:
        assert stop is not None
        typer.echo(f"{destination} is {stop.words}")
    for line in _told(held_up, end):
        typer.echo(line)
    if said is None:
        typer.echo("Nothing was changed.")


def resume(
    destination: Destination,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; it is kept.")] = None,
    who: Who = None,
    as_json: JsonOption = False,
) -> None:
    """Resume firing at a destination: end its pause, or try it now if its breaker is open.

    What is due goes on oldest first, under the destination's limits.
    Exits 1 if it was not stopped.

    \b
    holdfire resume push-eu
    """
    with open_store() as engine:
        _known(engine, destination)
        said = "" if reason is None else _reason(reason)
        ended = stopping.resume(engine, destination, who or audit.operator(), said)
        due = stopping.waiting(engine, destination).due
        still = stopping.stops(engine).get(destination)
    if as_json:
        _print({"destination": destination, "resumed": ended is not None, "due": due, "stop": _json(still)})
    elif ended is None:
        typer.echo(f"{destination} was neither paused nor stopped by its breaker: nothing was changed.")
    else:
        typer.echo(f"{destination} goes on; {due} due, oldest first. It was {ended.words}")
        if still is not None:
            typer.echo(f"It is {still.words}")
    if ended is None:
        raise typer.Exit(1)


def _told(held_up: Waiting, end: datetime | None) -> Iterable[str]:
    yield f"{held_up.due} due now are held up" + (f", and {held_up.until} more until then." if end else ".")
    if end is not None and held_up.expires:
        yield f"{held_up.expires} pass the network's age limit before then: they expire and never fire."
    elif held_up.first_expiry is not None:
        yield f"The first to pass the network's age limit does so at {_at(held_up.first_expiry)}."


def _paused_json(destination: str, paused: bool, end: datetime | None, held_up: Waiting) -> dict[str, Any]:
    return {
        "destination": destination,
        "paused": paused,
        "until": end,
        "due": held_up.due,
        "due_until_then": held_up.until,
        "expire_until_then": held_up.expires,
        "first_expiry": held_up.first_expiry,
    }


def _json(stop: Stop | None) -> dict[str, Any] | None:
    if stop is None:
        return None
    return {
        "kind": stop.kind,
        "since": stop.since,
        "until": stop.until,
        "who": stop.who,
        "reason": stop.reason,
    }


def _print(value: object) -> None:
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def _known(engine: Engine, destination: str) -> None:
    known = names(engine)
    if destination not in known:
        raise AskingError(
            f"there is no destination {destination!r} among those ever applied; use one of {', '.join(known) or '(none)'}"
        )


def _reason(reason: str | None) -> str:
    said = (reason or "").strip()
    if not said:
        raise AskingError('pause: --reason is missing; say why, such as --reason "they migrate": it is kept')
    if len(said) > LONGEST_REASON:
        raise AskingError(f"--reason has {len(said)} characters; say it in {LONGEST_REASON}")
    return said


def _end(until: str | None, now: datetime) -> datetime | None:
    if until is None:
        return None
    try:
        end = now + parse_duration(until)
    except PydanticCustomError:
        try:
            end = iso_instant(until)
        except ValueError:
            raise AskingError(
                f"--until: {until!r} is neither a duration nor an instant; write 2h, or 2026-12-24T10:00:00Z"
            ) from None
    if end <= now:
        raise AskingError(f"--until: {_at(end)} has passed; it is {_at(now)}")
    return end


def _until(end: datetime | None) -> str:
    return "" if end is None else f" until {_at(end)}"


def _at(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"
