"""The audit: what people did, append-only."""

from __future__ import annotations

import getpass
import socket
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, text


def record(engine: Engine, *, who: str, action: str, detail: dict[str, Any]) -> None:
    """Write down that ``who`` did ``action``; committed when this returns. ``detail`` must hold no secret."""
    with engine.begin() as connection:
        write(connection, who=who, action=action, detail=detail)


def write(connection: Connection, *, who: str, action: str, detail: dict[str, Any]) -> None:
    """As ``record``, within the transaction that does it."""
    connection.execute(
        text("INSERT INTO audit (who, action, detail) VALUES (:who, :action, :detail)"),
        {"who": who, "action": action, "detail": orjson.dumps(detail, default=str).decode()},
    )


def operator() -> str:
    """Who runs this process, for the audit: the login name and the host."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # an id without a name, as in containers
        name = "unknown"
    return f"{name}@{socket.gethostname()}"
