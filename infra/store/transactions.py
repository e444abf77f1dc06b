"""Transactions that fail for no fault of their own: ended to break a deadlock, or the database is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from psycopg2.errors import DeadlockDetected, ProgramLimitExceeded, SerializationFailure
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

T = TypeVar("T")
TRIES = 5


def is_away(error: BaseException) -> bool:
    """Whether the database could not serve just now (gone, restarting, full, busy), so that the same may pass later."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated or isinstance(error, InterfaceError):
        return True
    return isinstance(error, OperationalError) and not isinstance(error.orig, ProgramLimitExceeded)


def retried(engine: Engine, run: Callable[[Connection], T]) -> T:
    """One transaction; again, up to ``TRIES`` times in all, when PostgreSQL broke a deadlock at our cost."""
    for attempt in range(TRIES):
        try:
            with engine.begin() as connection:
                return run(connection)
        except DBAPIError as error:
            if not isinstance(error.orig, DeadlockDetected | SerializationFailure) or attempt == TRIES - 1:
                raise
            time.sleep(0.02 * (attempt + 1))
    raise AssertionError("unreachable: the last try returns or raises")
