"""Transactions that PostgreSQL ended to break a deadlock: nothing of them was written, so they are run again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from psycopg2.errors import DeadlockDetected, SerializationFailure
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

T = TypeVar("T")
TRIES = 5


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
