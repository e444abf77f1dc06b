"""``holdfire relay``: what services enqueued in their own transactions goes to the queue."""

from __future__ import annotations

import signal
from typing import Annotated

import typer
from sqlalchemy.exc import ProgrammingError

from infra.db.engine import open_engine
from infra.logging import configure_logging
from infra.settings import load_settings, normalise_database_url
from producers.client import BrokerUnavailableError, Holdfire
from producers.outbox import POLL_S, TABLE, Outbox, Relay

DATABASE_VARIABLE = "HOLDFIRE_OUTBOX_DATABASE_URL"


def register(app: typer.Typer) -> None:
    app.command("relay")(relay)


def relay(
    database_url: Annotated[
        str,
        typer.Option(
            envvar=DATABASE_VARIABLE,
            show_envvar=True,
            help="The service's database, which has the outbox. A password is safer in the environment.",
        ),
    ],
    table: Annotated[str, typer.Option(help="The outbox, with its schema if need be: shop.outbox.")] = TABLE,
    poll: Annotated[float, typer.Option(help="Seconds between looks at an empty outbox.", min=0.01)] = POLL_S,
    once: Annotated[bool, typer.Option("--once", help="Relay what is there, and end.")] = False,
    create: Annotated[
        bool, typer.Option("--create", help="Make the table first if it is not there.")
    ] = False,
) -> None:
    """Relay what services enqueued in their own transactions. Run as many as you like.

    With --once it ends with 0 if all was relayed, and with 2 if the broker is away: what it did not take stays.
    """
    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    try:
        url = normalise_database_url(database_url)
    except ValueError as error:
        raise typer.BadParameter(
            f"{error}. Give postgresql://user:password@host:5432/name", param_hint="--database-url"
        ) from None
    schema, _, name = table.rpartition(".")
    outbox = Outbox(table=name, schema=schema or None)
    engine = open_engine(url, pool_size=1)
    with Holdfire() as holdfire:
        running = Relay(engine, holdfire, outbox, poll_s=poll)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: running.stop())
        try:
            if create:
                outbox.create(engine)
            if once:
                running.run_once()
            else:
                typer.echo(f"Relaying from {table}; Ctrl-C ends it.")
                running.run_forever()
        except ProgrammingError as error:
            if getattr(error.orig, "pgcode", None) != "42P01":
                raise
            raise _fail(
                f"there is no table {table}; make it with your migrations (Outbox.ddl), or say --create"
            ) from None
        except BrokerUnavailableError as error:
            left = outbox.depth(engine)
            raise _fail(f"{error.reason}. {_events(left)} wait in {table}; run it again") from None
        finally:
            engine.dispose()
    typer.echo(f"{_events(running.sent)} relayed from {table}")


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count:,} events"


def _fail(message: str) -> typer.Exit:
    typer.echo(f"holdfire relay: {message}", err=True)
    return typer.Exit(2)
