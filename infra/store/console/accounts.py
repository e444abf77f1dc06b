"""Accounts of the console: made, changed and logged in with. What ends an account's rights ends its sessions with them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, Row, text
from sqlalchemy.exc import IntegrityError

from infra.passwords import hash_password, is_outdated, verify
from infra.store import audit
from schemas.accounts import FORGOTTEN_AFTER, Role, check_name, check_password, delay_after

log = structlog.get_logger()


class AccountError(ValueError):
    """An account that is not there, or cannot be made or changed so: which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who may use the console."""

    id: int
    name: str
    role: Role
    created_at: datetime
    password_changed_at: datetime
    last_login_at: datetime | None
    disabled_at: datetime | None

    @property
    def is_operator(self) -> bool:
        return self.role is Role.OPERATOR


@dataclass(frozen=True, slots=True)
class Refused:
    """No login. ``wait``: how long until the next try is looked at; nothing else is told."""

    wait: timedelta


_COLUMNS = "id, name, role, created_at, password_changed_at, last_login_at, disabled_at"


def add(engine: Engine, name: str, role: Role, password: str, *, who: str) -> Account:
    """Make an account. Raises AccountError for a name that is taken or cannot be one, and for a weak password."""
    hashed = _checked_hash(name, password)
    query = text(
        f"INSERT INTO accounts (name, role, password_hash) VALUES (:name, :role, :hash) RETURNING {_COLUMNS}"  # noqa: S608 — our own words
    )
    try:
        with engine.begin() as connection:
            row = connection.execute(query, {"name": name, "role": role.value, "hash": hashed}).one()
            audit.write(connection, who=who, action="users.add", detail={"name": name, "role": role.value})
            return _account(row)
    except IntegrityError:
        raise AccountError(
            f"there is an account {name!r} already; `holdfire users password {name}` gives it a new password"
        ) from None


def every(engine: Engine) -> list[Account]:
    """All accounts by name, disabled ones too."""
    with engine.connect() as connection:
        rows = connection.execute(text(f"SELECT {_COLUMNS} FROM accounts ORDER BY name"))  # noqa: S608 — our own words
        return [_account(row) for row in rows]


def any_there(engine: Engine) -> bool:
    """Whether anybody could log in at all."""
    with engine.connect() as connection:
        query = text("SELECT EXISTS (SELECT FROM accounts WHERE disabled_at IS NULL)")
        return bool(connection.execute(query).scalar_one())


def set_role(engine: Engine, name: str, role: Role, *, who: str) -> int:
    """Change a role; returns how many sessions ended by it. Raises AccountError."""
    with engine.begin() as connection:
        account = _lock(connection, name)
        if account.role is role:
            return 0
        _set(connection, account.id, "role = :role", role=role.value)
        ended = end_sessions(connection, account.id)
        detail = {"name": name, "from": account.role.value, "to": role.value, "sessions_ended": ended}
        audit.write(connection, who=who, action="users.role", detail=detail)
        return ended


def set_password(
    engine: Engine, name: str, password: str, *, who: str, keep_session: int | None = None
) -> int:
    """Give an account a new password; returns how many sessions ended by it, all but ``keep_session``."""
    hashed = _checked_hash(name, password)
    with engine.begin() as connection:
        account = _lock(connection, name)
        _set(connection, account.id, "password_hash = :hash, password_changed_at = now()", hash=hashed)
        ended = end_sessions(connection, account.id, but=keep_session)
        _forget(connection, name)
        detail = {"name": name, "sessions_ended": ended}
        audit.write(connection, who=who, action="users.password", detail=detail)
        return ended


def disable(engine: Engine, name: str, *, who: str) -> int:
    """Let an account log in no more; returns how many sessions ended by it."""
    with engine.begin() as connection:
        account = _lock(connection, name)
        _set(connection, account.id, "disabled_at = coalesce(disabled_at, now())")
        ended = end_sessions(connection, account.id)
        audit.write(
            connection, who=who, action="users.disable", detail={"name": name, "sessions_ended": ended}
        )
        return ended


def enable(engine: Engine, name: str, *, who: str) -> None:
    """Let an account log in again, with the password and role it had."""
    with engine.begin() as connection:
        account = _lock(connection, name)
        _set(connection, account.id, "disabled_at = NULL")
        _forget(connection, name)
        audit.write(connection, who=who, action="users.enable", detail={"name": name})


def log_in(engine: Engine, name: str, password: str, *, address: str) -> Account | Refused:
    """Check a password, at the same cost whether there is such an account or not.

    Every try is counted before it is looked at, so that many at once gain nothing; a right one takes its own count back.
    A try that has to wait is not looked at. Logins and failures are audited; what was typed as the name of an account
    that is not there is not, since people type passwords there.
    """
    wait = _count_try(engine, name, address)
    if wait:
        log.warning("login.throttled", address=address, wait_s=round(wait.total_seconds(), 1))
        return Refused(wait)
    with engine.connect() as connection:
        query = text(f"SELECT {_COLUMNS}, password_hash FROM accounts WHERE name = :name")  # noqa: S608 — our own words
        row = connection.execute(query, {"name": name}).one_or_none()
    right = verify(password, None if row is None else row.password_hash)
    if row is None or not right or row.disabled_at is not None:
        return _fail(engine, name, address, known=row is not None)
    fresh = hash_password(password) if is_outdated(row.password_hash) else row.password_hash
    with engine.begin() as connection:
        # A password that was changed meanwhile is not overwritten by the old one's new hash.
        connection.execute(
            text("""UPDATE accounts SET last_login_at = now(),
                    password_hash = CASE WHEN password_hash = :old THEN :fresh ELSE password_hash END WHERE id = :id"""),
            {"id": row.id, "old": row.password_hash, "fresh": fresh},
        )
        _forget(connection, name)
        _give_back(connection, address)
        audit.write(connection, who=console_who(name, address), action="login", detail={"role": row.role})
    return _account(row)


def _fail(engine: Engine, name: str, address: str, *, known: bool) -> Refused:
    with engine.connect() as connection:
        wait = _wait(connection, name, address)
    who = console_who(name if known else "?", address)
    detail = {"wait_s": round(wait.total_seconds()), "account": known}
    audit.record(engine, who=who, action="login.failed", detail=detail)
    return Refused(wait)


def confirm(engine: Engine, account: Account, password: str, *, address: str) -> bool:
    """Whether the account's holder knows its password, asked again before it is changed; throttled like a login."""
    if _count_try(engine, account.name, address):
        return False
    with engine.connect() as connection:
        query = text("SELECT password_hash FROM accounts WHERE id = :id")
        kept = connection.execute(query, {"id": account.id}).scalar_one()
    if not verify(password, kept):
        audit.record(
            engine, who=console_who(account.name, address), action="users.password_refused", detail={}
        )
        return False
    with engine.begin() as connection:
        _forget(connection, account.name)
        _give_back(connection, address)
    return True


def console_who(name: str, address: str) -> str:
    """Who did something at the console, for the audit."""
    return f"console:{name}@{address}"


def end_sessions(connection: Connection, account_id: int, *, but: int | None = None) -> int:
    """End an account's sessions within the transaction that takes its rights; returns how many."""
    query = text("DELETE FROM sessions WHERE account_id = :id AND id IS DISTINCT FROM CAST(:but AS bigint)")
    return int(connection.execute(query, {"id": account_id, "but": but}).rowcount)


def _checked_hash(name: str, password: str) -> str:
    try:
        return hash_password(check_password(password, check_name(name)))
    except ValueError as error:
        raise AccountError(str(error)) from None


def _lock(connection: Connection, name: str) -> Account:
    query = text(f"SELECT {_COLUMNS} FROM accounts WHERE name = :name FOR UPDATE")  # noqa: S608 — our own words
    row = connection.execute(query, {"name": name}).one_or_none()
    if row is None:
        raise AccountError(f"there is no account {name!r}; `holdfire users list` shows them")
    return _account(row)


def _set(connection: Connection, account_id: int, words: str, **values: Any) -> None:
    connection.execute(text(f"UPDATE accounts SET {words} WHERE id = :id"), {"id": account_id, **values})  # noqa: S608 — our own words


def _count_try(engine: Engine, name: str, address: str) -> timedelta:
    """Count a try against its account and its address. Returns how long it has to wait; then it is not counted."""
    with engine.begin() as connection:
        for kind, key in _keys(name, address).items():
            # Made first and then locked, always in this order: of tries that come at once each sees the one before it.
            values = {"kind": kind, "key": key}
            connection.execute(
                text("""INSERT INTO login_failures (kind, key, failures, last_at, wait_to)
                        VALUES (:kind, :key, 0, now(), now()) ON CONFLICT DO NOTHING"""),
                values,
            )
            connection.execute(
                text("SELECT FROM login_failures WHERE kind = :kind AND key = :key FOR UPDATE"), values
            )
        wait = _wait(connection, name, address)
        if wait:
            return wait
        for kind, key in _keys(name, address).items():
            _count(connection, kind, key)
    return timedelta(0)


def _count(connection: Connection, kind: str, key: str) -> None:
    failures = connection.execute(
        text("""
        UPDATE login_failures SET last_at = clock_timestamp(),
            failures = CASE WHEN last_at < now() - CAST(:forgotten AS interval) THEN 1 ELSE failures + 1 END
        WHERE kind = :kind AND key = :key RETURNING failures"""),
        {"kind": kind, "key": key, "forgotten": FORGOTTEN_AFTER},
    ).scalar_one()
    connection.execute(
        text(
            "UPDATE login_failures SET wait_to = clock_timestamp() + :delay WHERE kind = :kind AND key = :key"
        ),
        {"kind": kind, "key": key, "delay": delay_after(kind, failures)},
    )


def _keys(name: str, address: str) -> dict[str, str]:
    # Of a name only the hash: what is typed there may be a password.
    return {"account": sha256(name.encode("utf-8", "surrogatepass")).hexdigest(), "address": address}


def _wait(connection: Connection, name: str, address: str) -> timedelta:
    query = text("""
        SELECT coalesce(max(wait_to) - clock_timestamp(), interval '0') FROM login_failures
        WHERE (kind, key) IN (('account', :account), ('address', :address))""")
    wait: timedelta = connection.execute(query, _keys(name, address)).scalar_one()
    return max(wait, timedelta(0))


def _forget(connection: Connection, name: str) -> None:
    """Start counting an account's failures anew; also sweep what is forgotten anyway."""
    connection.execute(
        text("""DELETE FROM login_failures WHERE (kind = 'account' AND key = :account)
                OR last_at < now() - CAST(:forgotten AS interval)"""),
        {"account": _keys(name, "")["account"], "forgotten": FORGOTTEN_AFTER},
    )


def _give_back(connection: Connection, address: str) -> None:
    """Take back the one try that was right: it must not free an address from which others are guessed."""
    connection.execute(
        text("""UPDATE login_failures SET failures = failures - 1, wait_to = now()
                WHERE kind = 'address' AND key = :address"""),
        {"address": address},
    )


def _account(row: Row[Any]) -> Account:
    return Account(
        row.id,
        row.name,
        Role(row.role),
        row.created_at,
        row.password_changed_at,
        row.last_login_at,
        row.disabled_at,
    )
