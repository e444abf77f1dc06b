"""The ground all contestants stand on: one schema, one log table of the same shape, one way to wait for rows.

Everything lies in a schema of its own, dropped and made anew for each measurement, so that a contestant never
pays for what another left behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg2

SCHEMA = "peer"

_ATTEMPTS = """
CREATE TABLE attempts (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    postback_id bigint NOT NULL,
    url         text NOT NULL,
    status_code integer,
    headers     jsonb,
    body        text,
    started_at  timestamptz NOT NULL,
    ended_at    timestamptz NOT NULL,
    error       text
)
"""
_CONVERSIONS = """
CREATE TABLE conversions (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source      text NOT NULL,
    event_id    text NOT NULL,
    name        text NOT NULL,
    occurred_at timestamptz NOT NULL,
    order_id    text,
    value       numeric(20, 6),
    currency    text,
    click_ids   jsonb NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (source, event_id)
)
"""


def libpq_url(database_url: str) -> str:
    """The URL without SQLAlchemy's driver name, as libpq and asyncpg take it."""
    scheme, separator, rest = database_url.partition("://")
    return scheme.partition("+")[0] + separator + rest


def connect(database_url: str) -> Any:
    """A psycopg2 connection in autocommit, looking into the contestants' schema."""
    connection = psycopg2.connect(libpq_url(database_url), options=f"-c search_path={SCHEMA}")
    connection.autocommit = True
    return connection


def lay(database_url: str) -> None:
    """Drop the contestants' schema and make it anew with its empty tables."""
    connection = connect(database_url)
    with connection, connection.cursor() as cursor:
        cursor.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}")
        cursor.execute(_ATTEMPTS)
        cursor.execute(_CONVERSIONS)
    connection.close()


def clear(database_url: str) -> None:
    """Drop the contestants' schema."""
    connection = connect(database_url)
    with connection.cursor() as cursor:
        cursor.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
    connection.close()


def wait_for_rows(database_url: str, table: str, rows: int, timeout_s: float) -> None:
    """Wait until `table` holds `rows` committed rows. Raises TimeoutError, saying how far it came."""
    connection = connect(database_url)
    with connection.cursor() as cursor:

        def count() -> int:
            cursor.execute(f"SELECT count(*) FROM {table}")
            return int(cursor.fetchone()[0])

        wait_for_count(count, rows, timeout_s)
    connection.close()


def wait_for_count(count: Callable[[], int], wanted: int, timeout_s: float) -> None:
    """Call `count` until it gives `wanted`: rarely at first, often near the end, so that looking costs little.

    The next look comes after half the time that the rest should take at the rate so far, between 5 and 250 ms.
    """
    started = time.monotonic()
    first = seen = count()
    while seen < wanted:
        elapsed = time.monotonic() - started
        if elapsed > timeout_s:
            raise TimeoutError(f"{seen} of {wanted} rows were committed after {timeout_s:.0f} s")
        per_s = (seen - first) / elapsed if elapsed else 0
        time.sleep(min(0.25, max(0.005, (wanted - seen) / per_s / 2)) if per_s else 0.02)
        seen = count()
