"""How commands that act on postbacks are told which, why and by whom: an id or the filters of ``find``, a reason, a name."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer
from sqlalchemy import Engine

from infra.filters import AskingError, Filters
from infra.store import audit
from infra.store.by_hand import Signature
from infra.store.firing import database_now
from infra.store.selection import Selection
from schemas.ids import parse

LONGEST_REASON = 500

Identifier = Annotated[
    str | None,
    typer.Argument(
        metavar="ID", help="pb_N; or cv_N or an event id: all of its postbacks.", show_default=False
    ),
]
Reason = Annotated[
    str | None, typer.Option("--reason", help="Why. It is kept with who did it, and the trail tells it.")
]
Who = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="Who does it; else the login name and the host.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only say what would be done, and what would be refused.")
]


def read_selection(engine: Engine, command: str, identifier: str | None, filters: Filters) -> Selection:
    """What an id and filters name together; ages are counted back from the database's clock. Raises AskingError."""
    criteria = filters.criteria(database_now(engine))
    if identifier is None:
        return Selection(criteria)
    parsed = parse(identifier)
    if parsed is None:
        if filters.event is not None:
            raise AskingError(
                f"{command}: {identifier!r} is taken for an event id, and --event names another"
            )
        return Selection(replace(criteria, event_id=identifier))
    prefix, number = parsed
    match prefix:
        case "pb":
            return Selection(replace(criteria, postback_id=number))
        case "cv":
            return Selection(replace(criteria, conversion_id=number))
        case _:
            raise AskingError(
                f"{command}: {identifier} is no postback; give pb_N, cv_N or an event id, as `holdfire trail {identifier}` "
                "shows them"
            )


def read_signature(
    command: str, reason: str | None, who: str | None, example: str = "fraud ring"
) -> Signature:
    """Who does it and why. Raises AskingError without a reason, or with a story."""
    said = (reason or "").strip()
    if not said:
        raise AskingError(
            f'{command}: --reason is missing; say why, such as --reason "{example}": it is kept'
        )
    if len(said) > LONGEST_REASON:
        raise AskingError(f"{command}: --reason has {len(said)} characters; say it in {LONGEST_REASON}")
    return Signature(who or audit.operator(), said)
