"""Opening the store for one command: the database the settings name, or else the embedded one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from infra.db.engine import open_engine
from infra.db.migrate import status
from infra.embedded.errors import EngineError
from infra.embedded.use import use_engines
from infra.settings import Settings, SettingsError, load_settings


class StoreUnavailableError(RuntimeError):
    """The store cannot be read: why, and what to do about it."""

    def __init__(self, reason: str, remedy: str) -> None:
        """Neither text may repeat a database URL: it can hold a password."""
        super().__init__(f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy


@contextmanager
def open_store() -> Iterator[Engine]:
    """An engine on a migrated database, for the length of a command; the broker is left alone.

    Raises StoreUnavailableError when the settings are wrong, the server does not answer, or the tables are
    not those of this version.
    """
    with ExitStack() as stack:
        try:
            engine = open_engine(_database_url(load_settings(), stack))
            stack.callback(engine.dispose)
            _check_tables(engine)
        except (SettingsError, EngineError) as error:
            raise StoreUnavailableError(error.reason, error.remedy) from error
        except OperationalError as error:
            said = str(error.orig).strip().splitlines()
            raise StoreUnavailableError(
                f"the database does not answer: {said[0] if said else 'no reason given'}",
                "check HOLDFIRE_DATABASE_URL and that the server runs, or run `holdfire doctor`",
            ) from error
        yield engine


def _database_url(settings: Settings, stack: ExitStack) -> str:
    if settings.database_url is not None:
        return settings.database_url
    return stack.enter_context(use_engines(settings.data_dir, valkey=False)).database_url


def _check_tables(engine: Engine) -> None:
    found = status(engine)
    if found.at is None:
        raise StoreUnavailableError("the database has no tables yet", "run `holdfire migrate`")
    if not found.current:
        raise StoreUnavailableError(
            f"the database is at revision {found.at}, this Holdfire wants {found.wanted}",
            "run `holdfire migrate`",
        )
