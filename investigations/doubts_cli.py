"""``holdfire settle``: a person asked the network about what is in doubt, and says what it said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from infra.filters import AsJson, AskingError, Filters, with_filters
from infra.open import open_store
from infra.selecting import DryRun, Identifier, Reason, read_selection, read_signature
from infra.store.replays.doubts import DoubtAnswer, consider_doubts, settle_all
from infra.store.selection import extent
from investigations.page import line, print_json, show
from investigations.words import visible
from schemas.ids import show as show_id
from schemas.replaying import Said, Settled

ONE_BY_ONE = 20
"""Up to so many postbacks are told one by one; of more, the counts are."""


def register(app: typer.Typer) -> None:
    app.command()(settle)


@with_filters
def settle(  # noqa: PLR0913 — a command's options are its parameters
    identifier: Identifier = None,
    *,
    said: Annotated[
        Said | None, typer.Option("--as", help="What the network said: it has it, or has not counted it.")
    ] = None,
    filters: Filters,
    reason: Reason = None,
    who: Annotated[
        str | None,
        typer.Option("--who", metavar="NAME", help="Who does it; else the login name and the host."),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Settle by hand what is in doubt, as the network said.

    delivered: it counts as delivered, and signals correct it there. not-counted: it is dead, its place
    is free for a duplicate, and `holdfire replay` may fire it again.
    Exits 1 if something is refused or nothing is found.

    \b
    holdfire settle pb_4 --as delivered --reason "ticket 4711: their log has it"
    holdfire settle --destination push-eu --state in_doubt --as not-counted --dry-run
    """
    if said is None:
        raise AskingError("settle: --as is missing; write --as delivered or --as not-counted")
    if identifier is None and not filters.given():
        raise AskingError("settle: name an ID or a filter; `holdfire find --state in_doubt` lists them")
    signature = None if dry_run else read_signature("settle", reason, who, "ticket 4711: their log has it")
    sums = _Sums(said, dry_run=dry_run, as_json=as_json)
    with open_store() as engine:
        selection = read_selection(engine, "settle", identifier, filters)
        there = extent(engine, selection)
        batches = (
            consider_doubts(engine, selection, said, there.last)
            if signature is None
            else settle_all(engine, selection, said, signature, there.last)
        )
        for batch in batches:
            sums.add(batch, one_by_one=there.count <= ONE_BY_ONE)
    sums.close()
    if sums.refused or not sums.settled:
        raise typer.Exit(1)


class _Sums:
    def __init__(self, said: Said, *, dry_run: bool, as_json: bool) -> None:
        self._said = said
        self._dry_run = dry_run
        self._as_json = as_json
        self._refused: Counter[tuple[str, str]] = Counter()
        self.settled = 0

    @property
    def refused(self) -> int:
        return self._refused.total()

    def add(self, answers: Iterable[DoubtAnswer], *, one_by_one: bool) -> None:
        for answer in answers:
            if isinstance(answer.decision, Settled):
                self.settled += 1
            else:
                self._refused[answer.state.value, answer.decision.words] += 1
            if self._as_json:
                print_json([self._json(answer)])
            elif one_by_one:
                show([line(_told(answer))])

    def close(self) -> None:
        verb = "Would settle" if self._dry_run else "Settled"
        typer.echo(f"{verb} {self.settled:,} as {self._said}.", err=self._as_json)
        for (state, why), count in self._refused.most_common():
            typer.echo(f"  refused {count:,} {state}: {visible(why)}", err=self._as_json)
        if self._dry_run:
            typer.echo("Nothing was changed.", err=True)

    def _json(self, answer: DoubtAnswer) -> dict[str, Any]:
        settled = isinstance(answer.decision, Settled)
        return {
            "id": show_id("pb", answer.postback_id),
            "conversion": show_id("cv", answer.conversion_id),
            "as": self._said.value,
            "dry_run": self._dry_run,
            "done": settled and not self._dry_run,
            "refused": not settled,
            "state": answer.state.value,
            "to_state": answer.decision.state.value
            if isinstance(answer.decision, Settled)
            else answer.state.value,
            "follow_up": None if answer.follow_up is None else answer.follow_up.words,
            "says": None if isinstance(answer.decision, Settled) else answer.decision.words,
        }


def _told(answer: DoubtAnswer) -> str:
    name = show_id("pb", answer.postback_id)
    if not isinstance(answer.decision, Settled):
        return f"{name}  {answer.state}, refused: {visible(answer.decision.words)}"
    follow_up = f": {visible(answer.follow_up.words)}" if answer.follow_up else ""
    return f"{name}  {answer.state} → {answer.decision.state}{follow_up}"
