"""``holdfire migrate``: make or upgrade the tables."""

from __future__ import annotations

import typer

from infra.db.engine import open_engine
from infra.db.migrate import migrate as bring_up
from infra.db.migrate import status
from infra.embedded.use import use_engines
from infra.settings import load_settings


def register(app: typer.Typer) -> None:
    app.command("migrate")(migrate)


def migrate() -> None:
    """Bring the database's tables to this version.

    Safe to run again, and from several machines at once. Also makes the coming months' partitions.
    """
    settings = load_settings()
    if settings.database_url is not None:
        _migrate(settings.database_url)
        return
    with use_engines(settings.data_dir, valkey=False) as engines:
        _migrate(engines.database_url)


def _migrate(database_url: str) -> None:
    engine = open_engine(database_url)
    try:
        before = status(engine)
        after = bring_up(engine)
    finally:
        engine.dispose()
    if before.current:
        typer.echo(f"The tables are at revision {after.at} already.")
    else:
        typer.echo(f"The tables are at revision {after.at} now (before: {before.at or 'none'}).")
