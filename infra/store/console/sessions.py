"""Sessions of the console. The token is known to the browser alone; the table has its SHA-256."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, Row, text

from infra.store.console.accounts import Account, end_sessions
from schemas.accounts import Role

TOKEN_BYTES = 32
SEEN_EVERY = timedelta(seconds=30)
"""A session's last use is written no more often: reading a page must not cost a write each time."""
LONGEST_AGENT = 200
"""Characters of the browser's own name that are kept."""


@dataclass(frozen=True, slots=True)
class Session:
    """A login that lasts. ``account`` is as it stands now, not as it was then."""

    id: int
    account: Account
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    address: str
    agent: str


_QUERY = """
    SELECT s.id AS session_id, s.created_at AS begun_at, s.last_seen_at, s.expires_at, s.address, s.agent,
        s.last_seen_at < now() - CAST(:seen AS interval) AS stale,
        a.id, a.name, a.role, a.created_at, a.password_changed_at, a.last_login_at, a.disabled_at
    FROM sessions s JOIN accounts a ON a.id = s.account_id
    WHERE s.expires_at > now() AND s.last_seen_at > now() - CAST(:idle AS interval) AND a.disabled_at IS NULL"""


def begin(engine: Engine, account: Account, *, absolute: timedelta, address: str, agent: str) -> str:
    """Begin a session after a login; returns its token, which is never to be had again. Clears what has expired."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM sessions WHERE expires_at < now()"))
        connection.execute(
            text("""
            INSERT INTO sessions (sha256, account_id, expires_at, address, agent)
            VALUES (:sha256, :account_id, now() + :absolute, :address, :agent)"""),
            {
                "sha256": digest(token),
                "account_id": account.id,
                "absolute": absolute,
                "address": address,
                "agent": agent.replace("\0", "")[:LONGEST_AGENT],
            },
        )
    return token


def of_token(engine: Engine, token: str, *, idle: timedelta) -> Session | None:
    """The session of a token, if it is good: neither expired nor idle, its account not disabled."""
    query = text(f"{_QUERY} AND s.sha256 = :sha256")
    with engine.begin() as connection:
        values = {"sha256": digest(token), "idle": idle, "seen": SEEN_EVERY}
        row = connection.execute(query, values).one_or_none()
        if row is None:
            return None
        if row.stale:
            connection.execute(
                text("UPDATE sessions SET last_seen_at = now() WHERE id = :id"), {"id": row.session_id}
            )
        return _session(row)


def of_account(engine: Engine, account_id: int, *, idle: timedelta) -> list[Session]:
    """An account's good sessions, the one used last first."""
    query = text(f"{_QUERY} AND s.account_id = :account_id ORDER BY s.last_seen_at DESC")
    with engine.connect() as connection:
        values = {"account_id": account_id, "idle": idle, "seen": SEEN_EVERY}
        return [_session(row) for row in connection.execute(query, values)]


def end(engine: Engine, session_id: int, account_id: int) -> bool:
    """End one session of an account; False if it was not there."""
    with engine.begin() as connection:
        query = text("DELETE FROM sessions WHERE id = :id AND account_id = :account_id")
        return connection.execute(query, {"id": session_id, "account_id": account_id}).rowcount > 0


def end_others(engine: Engine, account_id: int, *, but: int | None = None) -> int:
    """End every session of an account, or every other one; returns how many."""
    with engine.begin() as connection:
        return end_sessions(connection, account_id, but=but)


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _session(row: Row[Any]) -> Session:
    account = Account(
        row.id,
        row.name,
        Role(row.role),
        row.created_at,
        row.password_changed_at,
        row.last_login_at,
        row.disabled_at,
    )
    return Session(
        row.session_id, account, row.begun_at, row.last_seen_at, row.expires_at, row.address, row.agent
    )
