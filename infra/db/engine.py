"""One SQLAlchemy engine a process, and how bulk data travels to PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from io import BytesIO
from typing import Any

import orjson
import psycopg2
from psycopg2.extensions import connection as PgConnection  # noqa: N812 — psycopg2 names the class in lower case
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError

CONNECT_TIMEOUT_S = 10
STATEMENT_TIMEOUT_MS = 60_000
_COPY_CHUNK = 1 << 20
"""Bytes that the driver reads at a time. By its default of 8 KiB it waits for the interpreter's lock so often that a
thread which writes stands still while another one computes."""


def open_engine(
    database_url: str, *, pool_size: int = 8, statement_timeout_ms: int = STATEMENT_TIMEOUT_MS
) -> Engine:
    """An engine for ``postgresql+psycopg2://…``; it connects at first use.

    Connections are checked before reuse, so that a restarted server costs a reconnect and not an error.
    """
    return create_engine(
        database_url,
        pool_size=pool_size,
        # No more than there are threads; one that waited for a connection would let its leases run out.
        max_overflow=-1,
        pool_pre_ping=True,
        # Celery logs what a task raises, and a statement's values are click ids and events.
        hide_parameters=True,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "holdfire",
            "options": f"-c timezone=UTC -c statement_timeout={statement_timeout_ms}",
            "keepalives_idle": 30,
        },
    )


def as_json(rows: Iterable[dict[str, Any]] | list[Any]) -> str:
    """Rows for ``json_to_recordset``: one parameter however many rows, parsed by the server."""
    return orjson.dumps(list(rows), default=str).decode()


_SPECIAL = re.compile(r"[\\\t\n\r\0]")
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": ""})


def copy_text(value: str | None) -> str:
    """A text in COPY's format. NUL, which PostgreSQL text cannot hold, is left out."""
    if value is None:
        return "\\N"
    return value.translate(_ESCAPES) if _SPECIAL.search(value) else value


def copy_bytes(value: bytes | None) -> str:
    """A bytea in COPY's format."""
    return "\\N" if value is None else f"\\\\x{value.hex()}"


def copy_value(value: float | datetime | None) -> str:
    """A number, truth value or instant in COPY's format."""
    return "\\N" if value is None else str(value)


def copy_rows(
    connection: Connection, table: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]
) -> None:
    """COPY ``rows`` into ``table`` within the connection's transaction: the cheapest way in for wide rows.

    Each field is as ``copy_text``, ``copy_bytes`` or ``copy_value`` writes it. Raises what SQLAlchemy raises.
    """
    text = "\n".join(map("\t".join, rows))
    if not text:
        return
    raw: PgConnection = connection.connection.driver_connection
    statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
    try:
        with raw.cursor() as cursor:
            cursor.copy_expert(
                statement, BytesIO(f"{text}\n".encode("utf-8", "surrogateescape")), _COPY_CHUNK
            )
    except psycopg2.Error as error:
        if raw.closed:
            connection.invalidate(error)
        # What the driver's own cursor raises, SQLAlchemy does not see; callers tell errors by SQLAlchemy's classes.
        raise DBAPIError.instance(
            statement,
            None,
            error,
            psycopg2.Error,
            hide_parameters=True,
            connection_invalidated=bool(raw.closed),
            dialect=connection.dialect,
        ) from error
