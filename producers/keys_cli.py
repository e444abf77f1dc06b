"""``holdfire keys``: who may use the HTTP door. A secret is shown once, when it is made."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from infra.open import open_store
from infra.store import audit, keys
from infra.store.keys import Listed, Made
from schemas import durations
from schemas.keys import Grant

commands = typer.Typer(
    help="Create, list, rotate and revoke the API keys of the HTTP door.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_SIGNALS = {"refund", "chargeback", "credit_check", "cancel"}


def register(app: typer.Typer) -> None:
    app.add_typer(commands, name="keys")


def _duration(text: str) -> timedelta:
    try:
        return durations.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is, such as shop-backend.")]
Who = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="Who does it; else the login name and the host.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@commands.command()
def create(  # noqa: PLR0913, PLR0917 — a command's options are its parameters
    name: Name,
    source: Annotated[
        list[str] | None, typer.Option(help="It may send for this source; again for more. Else for any.")
    ] = None,
    event: Annotated[
        list[str] | None,
        typer.Option(help="It may send this event name or signal (refund); again for more. Else any."),
    ] = None,
    per_second: Annotated[
        int | None, typer.Option(help="Requests a second that each door process takes of it. Else any.")
    ] = None,
    expires: Annotated[
        timedelta | None,
        typer.Option(parser=_duration, metavar="DURATION", help="It ends after so long, such as 90d."),
    ] = None,
    hmac: Annotated[
        bool,
        typer.Option(
            "--hmac", help="It signs requests, and never travels. It is kept readable in the database."
        ),
    ] = False,
    who: Who = None,
    as_json: AsJson = False,
) -> None:
    """Create a key. Its secret is shown once.

    \b
    holdfire keys create shop-backend --source shop --event purchase --event refund
    """
    if expires is not None and not expires:
        raise typer.BadParameter("--expires must be longer than nothing")
    grant = Grant(name, frozenset(source or ()), frozenset(event or ()), per_second, hmac)
    with open_store() as engine:
        made = keys.create(engine, grant, good_for=expires, who=who or audit.operator())
    _show(made, "created", as_json=as_json)


@commands.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the keys, also those that ended. Secrets are not among what is known of them."""
    with open_store() as engine:
        found = keys.every(engine)
    if as_json:
        typer.echo(orjson.dumps([_listed(each) for each in found]).decode())
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "name", "state", "sources", "events", "per second", "kind", "created", "ends"):
        table.add_column(heading, no_wrap=heading == "id")
    for each in found:
        table.add_row(
            f"hf_{each.key_id}",
            each.grant.name,
            each.state + (f", older secret until {_instant(each.old_until)}" if each.old_until else ""),
            _any(each.grant.sources),
            _any(each.grant.events),
            str(each.grant.per_second or "any"),
            "signs" if each.grant.signs else "plain",
            _instant(each.created_at),
            _instant(each.revoked_at or each.expires_at),
        )
    Console().print(table if found else "There are no keys. `holdfire keys create NAME` makes one.")


@commands.command()
def rotate(
    name: Name,
    grace: Annotated[
        timedelta,
        typer.Option(
            parser=_duration,
            metavar="DURATION",
            show_default=False,
            help="So long the old secret is still good; 24h by default, 0s ends it now.",
        ),
    ] = timedelta(hours=24),
    who: Who = None,
    as_json: AsJson = False,
) -> None:
    """Give a key a new secret. The old one is good for the grace time, so that nobody is locked out meanwhile."""
    with open_store() as engine:
        made = keys.rotate(engine, name, grace=grace, who=who or audit.operator())
    _show(made, "rotated", as_json=as_json)


@commands.command()
def revoke(name: Name, who: Who = None) -> None:
    """Revoke a key for good. Every door refuses it within two seconds."""
    with open_store() as engine:
        key_id = keys.revoke(engine, name, who=who or audit.operator())
    typer.echo(f"Revoked {name} (hf_{key_id}). Every door refuses it within two seconds.")


def _show(made: Made, done: str, *, as_json: bool) -> None:
    if as_json:
        shown = _grant(made.key_id, made.grant) | {
            "expires_at": made.expires_at,
            "old_until": made.old_until,
            "secret": made.token,
        }
        typer.echo(orjson.dumps(shown).decode())
        return
    grant = made.grant
    rate = f"{grant.per_second} requests a second" if grant.per_second else "any number of requests"
    typer.echo(
        f"Key {grant.name} (hf_{made.key_id}) {done}: {_any(grant.sources)} sources, {_any(grant.events)} events, "
        f"{rate}, ends {_instant(made.expires_at)}."
    )
    if made.old_until:
        typer.echo(f"The secrets before this one are good until {_instant(made.old_until)}.")
    typer.echo(f"Doors know it within two seconds. Its secret, shown only now:\n\n    {made.token}\n")
    typer.echo(_usage(made))


def _usage(made: Made) -> str:
    """How to use the secret, as a line for a shell."""
    event = {
        "version": 1,
        "type": "conversion",
        "event_id": "test-1",
        "source": min(made.grant.sources, default="shop"),
        "name": min(made.grant.events - _SIGNALS, default="purchase"),
        "occurred_at": datetime.now(UTC).replace(microsecond=0),
        "order_id": "test-1",
    }
    body = shlex.quote(orjson.dumps(event).decode())
    url = "http://127.0.0.1:8080/v1/events"
    if not made.grant.signs:
        return (
            f"curl {url} -H 'Authorization: Bearer {made.token}' \\\n"
            f"  -H 'Content-Type: application/json' -d {body}"
        )
    return (
        f"body={body}\nt=$(date +%s)\n"
        f"v1=$(printf '%s.%s' \"$t\" \"$body\" | openssl dgst -sha256 -hmac '{made.token}' | sed 's/.* //')\n"
        f'curl {url} -H "X-Holdfire-Signature: t=$t,key={made.key_id},v1=$v1" \\\n'
        "  -H 'Content-Type: application/json' -d \"$body\""
    )


def _grant(key_id: int, grant: Grant) -> dict[str, Any]:
    return {"id": key_id} | asdict(grant) | {"sources": sorted(grant.sources), "events": sorted(grant.events)}


def _listed(each: Listed) -> dict[str, Any]:
    instants = ("created_at", "rotated_at", "expires_at", "revoked_at", "old_until")
    return (
        _grant(each.key_id, each.grant)
        | {"state": each.state}
        | {name: getattr(each, name) for name in instants}
    )


def _any(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "any"


def _instant(at: datetime | None) -> str:
    return "never" if at is None else f"{at:%Y-%m-%d %H:%M:%SZ}"
