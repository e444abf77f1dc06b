"""``holdfire replay``: a person fires again what has ended, one postback or all that a filter finds."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Annotated

import typer
from sqlalchemy import Engine

from infra.filters import AsJson, AskingError, Filters, with_filters
from infra.open import open_store
from infra.selecting import DryRun, Identifier, Reason, Who, read_selection, read_signature
from infra.store import audit
from infra.store.replays import replaying
from infra.store.replays.replay_look import Options
from infra.store.replays.replay_records import RunRecord
from infra.store.selection import Selection
from investigations.page import print_json, say, show
from investigations.replay_page import plan_json, plan_page, progress_words, run_json, run_page
from schemas.ids import parse
from schemas.ids import show as show_id
from schemas.replaying import PER_SECOND

PROGRESS_EVERY_S = 2.0
LOOK_EVERY_S = 0.5
LONGEST_LOOK_S = 10.0
"""While it waits, a large run is counted at growing intervals."""


def register(app: typer.Typer) -> None:
    app.command()(replay)


@with_filters
def replay(  # noqa: PLR0913 — a command's options are its parameters
    identifier: Identifier = None,
    *,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="rn_N", help="Go on with a run that was interrupted or paused."),
    ] = None,
    filters: Filters,
    cause: Annotated[
        str | None,
        typer.Option("--cause", help="Only what ended of this cause, as `holdfire dead` names it."),
    ] = None,
    reason: Reason = None,
    who: Who = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also what the network may count twice or ignore: you know better."),
    ] = False,
    with_current_version: Annotated[
        bool,
        typer.Option("--with-current-version", help="As its destination is now, not as it was held under."),
    ] = False,
    per_second: Annotated[
        float, typer.Option("--per-second", help="How many a second fall due.", min=0.001, max=100_000)
    ] = PER_SECOND,
    dry_run: DryRun = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask before more than one is fired again.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until all of them have come to an end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fire postbacks again that have ended.

    One, all of a conversion, or all that match: what was rejected, is dead, or expired.
    What the network may count twice is refused, unless --force; what was voided, always.
    They fall due at a rate of their own, and keep to their destinations' limits.
    Exits 1 if something is refused or nothing is found.

    \b
    holdfire replay pb_12 --reason "the network is back"
    holdfire replay --destination push-eu --state dead --since 2d --dry-run
    holdfire replay --resume rn_4
    """
    with open_store() as engine:
        if resume is not None:
            if identifier is not None or filters.given() or cause is not None or dry_run:
                raise AskingError(
                    "replay: --resume goes on with what its run names; leave ID, filters and --dry-run out"
                )
            number = read_run_id(resume)
            replaying.resume(engine, number, who or audit.operator())
        else:
            if identifier is None and not filters.given() and cause is None:
                raise AskingError("replay: name an ID, a filter or a --cause; `holdfire dead` lists causes")
            selection = replace(read_selection(engine, "replay", identifier, filters), cause=cause)
            options = Options(force, with_current_version, per_second)
            if dry_run:
                _show_plan(engine, selection, options, as_json=as_json)
                return
            signature = read_signature("replay", reason, who, "the network is back")
            _ask(engine, selection, options, yes=yes, as_json=as_json)
            number = replaying.begin(engine, selection, options, signature)
        _finish(_carry_out(engine, number, wait=wait), as_json=as_json)


def _show_plan(engine: Engine, selection: Selection, options: Options, *, as_json: bool) -> None:
    plan = replaying.plan(engine, selection, options.force, with_current_version=options.with_current_version)
    if as_json:
        print_json([plan_json(plan)])
    else:
        show(plan_page(plan, options.per_second))
        say("Nothing was changed.")
    if plan.refused or not plan.moved:
        raise typer.Exit(1)


def _ask(engine: Engine, selection: Selection, options: Options, *, yes: bool, as_json: bool) -> None:
    """Before more than one postback is fired again, a person sees what, and says yes."""
    if yes or selection.criteria.postback_id is not None:
        return
    plan = replaying.plan(engine, selection, options.force, with_current_version=options.with_current_version)
    if plan.moved <= 1:
        return
    if not sys.stdin.isatty() or as_json:
        raise AskingError(
            f"replay: {plan.moved:,} postbacks would fire again; look with --dry-run, then give --yes"
        )
    show(plan_page(plan, options.per_second))
    typer.confirm(f"Fire {plan.moved:,} again?", abort=True)


def _carry_out(engine: Engine, number: int, *, wait: bool) -> RunRecord:
    """Look at everything, a batch a time; and if asked, until nothing of it waits any more."""
    name = show_id("rn", number)
    said_at = time.monotonic()
    try:
        while True:
            run = replaying.advance(engine, number)
            if run.ended_at is not None or run.halted:
                break
            if time.monotonic() - said_at >= PROGRESS_EVERY_S:
                said_at = time.monotonic()
                say(f"{name}: {run.moved:,} moved, {run.refused:,} refused of {run.matching:,} …")
        run = replaying.run(engine, number)
        pause_s = LOOK_EVERY_S
        while wait and run.status == "firing":
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LONGEST_LOOK_S)
            run = replaying.run(engine, number)
            if time.monotonic() - said_at >= PROGRESS_EVERY_S:
                said_at = time.monotonic()
                say(f"{name}: {progress_words(run)} …")
    except KeyboardInterrupt:
        say(
            f"Interrupted. What {name} has moved fires; `holdfire replay --resume {name}` does the rest, "
            f"`holdfire replays stop {name}` puts back what has not fired."
        )
        raise
    return run


def _finish(run: RunRecord, *, as_json: bool) -> None:
    if as_json:
        print_json([run_json(run)])
    else:
        show(run_page(run))
    if run.refused or not run.moved:
        raise typer.Exit(1)


def read_run_id(text: str) -> int:
    """The number of ``rn_4``. Raises AskingError."""
    parsed = parse(text)
    if parsed is None or parsed[0] != "rn":
        raise AskingError(f"{text!r} is no run of replays; write rn_4, as `holdfire replays list` shows them")
    return parsed[1]
