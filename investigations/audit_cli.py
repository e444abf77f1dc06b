"""``holdfire audit``: what people did, at the command line and at the console."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any

import orjson
import typer

from infra.filters import AsJson, read_instant
from infra.open import open_store
from infra.store import audit
from infra.store.audit import AuditRecord, Sought
from investigations.columns import Columns, show_columns
from investigations.jsonable import instant
from investigations.page import print_json, say, stdout
from investigations.words import clock, visible
from schemas.ids import show


def register(app: typer.Typer) -> None:
    app.command("audit")(listing)


def listing(  # noqa: PLR0913, PLR0917 — a command's options are its parameters
    who: Annotated[
        str | None, typer.Option(help="Who did it: a name, or all of name@host.", metavar="NAME")
    ] = None,
    action: Annotated[
        str | None, typer.Option(help="What was done: users.add, or users for all of its kind.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Since: 2h, 3d (ago) or ISO 8601.")] = None,
    until: Annotated[str | None, typer.Option(help="Before: 2h, 3d (ago) or ISO 8601.")] = None,
    subject: Annotated[
        str | None,
        typer.Option(help="To what: pb_34, cv_12, a destination, an account, any value of the detail."),
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many, newest first.", min=1)] = 50,
    everything: Annotated[bool, typer.Option("--all", help="However many there are.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what people did, newest first.

    Every act at the command line and at the console, logins and failed ones too.
    """
    now = datetime.now(UTC)
    sought = Sought(
        who, action, read_instant("--since", since, now), read_instant("--until", until, now), subject
    )
    with open_store() as engine:
        found = list(
            audit.walk(engine, sought) if everything else islice(audit.walk(engine, sought), limit + 1)
        )
    more = not everything and len(found) > limit
    found = found if everything else found[:limit]
    if as_json:
        print_json(map(audit_json, found))
    elif found:
        show_columns(stdout(), columns(found))
    say(
        f"The newest {len(found)}; there are more: --limit or --all."
        if more
        else f"{len(found)} act{'s' * (len(found) != 1)}."
    )


def audit_json(each: AuditRecord) -> dict[str, Any]:
    return {
        "id": each.id,
        "at": instant(each.at),
        "who": each.who,
        "action": each.action,
        "postback": None if each.postback_id is None else show("pb", each.postback_id),
        "detail": each.detail,
    }


def columns(found: list[AuditRecord]) -> Columns:
    header = ("at (UTC)", "who", "action", "postback", "detail")
    rows = [
        (
            clock(each.at)[:19],
            visible(each.who),
            visible(each.action),
            "-" if each.postback_id is None else show("pb", each.postback_id),
            visible(orjson.dumps(each.detail).decode()),
        )
        for each in found
    ]
    return Columns(header, rows)
