"""API keys: created, listed, rotated and revoked, each with its line in the audit; and read by the doors."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, text
from sqlalchemy.exc import IntegrityError

from infra.store import audit
from schemas.durations import show
from schemas.keys import RANDOM_BYTES, Grant, digest, show_token

REMEMBERED_DAYS = 30
"""So long after its revocation a key is still told that it was revoked, and not that it is unknown."""


class KeyNameError(ValueError):
    """A name that cannot be used. Says why and what to do."""


@dataclass(frozen=True, slots=True)
class Made:
    """A key just made. ``token`` is shown once and kept nowhere else."""

    key_id: int
    grant: Grant
    expires_at: datetime | None
    token: str
    old_until: datetime | None = None
    """After a rotation: when the secret before this one ends."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A key as it stands, without its secret. ``old_until``: an older secret is good until then."""

    key_id: int
    grant: Grant
    state: str
    """``good``, ``expired`` or ``revoked``."""
    created_at: datetime
    rotated_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    old_until: datetime | None


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret of a key: its hash, the secret itself only of a key that signs, and for how long it is still good."""

    sha256: bytes
    signing: str | None
    good_for_s: float | None


@dataclass(frozen=True, slots=True)
class Known:
    """A key as a door needs it. Seconds count from when it was read; ``good_for_s`` None means for ever."""

    key_id: int
    grant: Grant
    revoked: bool
    good_for_s: float | None
    secrets: tuple[Secret, ...]


def create(engine: Engine, grant: Grant, *, good_for: timedelta | None, who: str) -> Made:
    """A new key. Raises InvalidInputError for a grant with problems, KeyNameError for a name in use."""
    grant.check()
    try:
        with engine.begin() as connection:
            row = connection.execute(
                text("""
                INSERT INTO api_keys (name, sources, events, per_second, signs, expires_at)
                VALUES (:name, :sources, :events, :per_second, :signs, now() + :good_for) RETURNING id, expires_at"""),
                {
                    "name": grant.name,
                    "sources": sorted(grant.sources),
                    "events": sorted(grant.events),
                    "per_second": grant.per_second,
                    "signs": grant.signs,
                    "good_for": good_for,
                },
            ).one()
            token = _new_secret(connection, row.id, signs=grant.signs)
            detail = _detail(row.id, grant) | {"expires_at": row.expires_at}
            audit.write(connection, who=who, action="keys.create", detail=detail)
    except IntegrityError:
        raise KeyNameError(
            f"there is a key {grant.name!r} already; rotate or revoke it, or use another name"
        ) from None
    return Made(row.id, grant, row.expires_at, token)


def rotate(engine: Engine, name: str, *, grace: timedelta, who: str) -> Made:
    """A new secret for a key; those before it are good for ``grace`` more, or as long as they were if that is less.

    Raises KeyNameError for a key that is not there, or has expired.
    """
    with engine.begin() as connection:
        row = _lock(connection, name)
        if row.expired:
            raise KeyNameError(f"the key {name!r} has expired; revoke it and create another")
        grant = _grant(row)
        old_until = connection.execute(
            text("""
            UPDATE api_key_secrets SET ends_at = least(ends_at, now() + :grace) WHERE key_id = :id
            RETURNING ends_at"""),
            {"id": row.id, "grace": grace},
        ).scalars()
        latest = max(old_until)
        # What has ended needs to be kept no longer, least of all readable.
        connection.execute(
            text("DELETE FROM api_key_secrets WHERE key_id = :id AND ends_at <= now()"), {"id": row.id}
        )
        token = _new_secret(connection, row.id, signs=grant.signs)
        detail = {"key_id": row.id, "name": name, "grace": show(grace)}
        audit.write(connection, who=who, action="keys.rotate", detail=detail)
    return Made(row.id, grant, row.expires_at, token, latest if grace else None)


def revoke(engine: Engine, name: str, *, who: str) -> int:
    """End a key for good; returns its id. Raises KeyNameError for one that is not there."""
    with engine.begin() as connection:
        row = _lock(connection, name)
        connection.execute(text("UPDATE api_keys SET revoked_at = now() WHERE id = :id"), {"id": row.id})
        # The hashes stay, so that the holder can be told that it was revoked; nobody signs with it any more.
        connection.execute(
            text("UPDATE api_key_secrets SET signing_secret = NULL WHERE key_id = :id"), {"id": row.id}
        )
        audit.write(connection, who=who, action="keys.revoke", detail={"key_id": row.id, "name": name})
        return int(row.id)


def every(engine: Engine) -> list[Listed]:
    """All keys, oldest first."""
    query = text("""
        SELECT k.*, coalesce(k.expires_at <= now(), false) AS expired, s.rotated_at, s.old_until
        FROM api_keys k CROSS JOIN LATERAL (
            SELECT nullif(max(created_at), k.created_at) AS rotated_at,
                max(ends_at) FILTER (WHERE ends_at > now()) AS old_until
            FROM api_key_secrets WHERE key_id = k.id) s
        ORDER BY k.id""")
    with engine.connect() as connection:
        return [
            Listed(
                row.id,
                _grant(row),
                "revoked" if row.revoked_at else "expired" if row.expired else "good",
                row.created_at,
                row.rotated_at,
                row.expires_at,
                row.revoked_at,
                None if row.revoked_at else row.old_until,
            )
            for row in connection.execute(query)
        ]


def known(engine: Engine) -> list[Known]:
    """Every key that a door may be shown, in one short query. Revoked ones are left out after a while."""
    query = text("""
        SELECT k.*, extract(epoch FROM k.expires_at - now()) AS good_for_s, s.secrets
        FROM api_keys k CROSS JOIN LATERAL (
            SELECT json_agg(json_build_array(
                encode(sha256, 'hex'), signing_secret, extract(epoch FROM ends_at - now()))) AS secrets
            FROM api_key_secrets WHERE key_id = k.id) s
        WHERE k.revoked_at IS NULL OR k.revoked_at > now() - make_interval(days => :days)""")
    with engine.connect() as connection:
        return [
            Known(
                row.id,
                _grant(row),
                row.revoked_at is not None,
                None if row.good_for_s is None else float(row.good_for_s),
                tuple(
                    Secret(bytes.fromhex(sha256), signing, good_for_s)
                    for sha256, signing, good_for_s in row.secrets or ()
                ),
            )
            for row in connection.execute(query, {"days": REMEMBERED_DAYS})
        ]


def _lock(connection: Connection, name: str) -> Row[Any]:
    query = text("""
        SELECT *, coalesce(expires_at <= now(), false) AS expired FROM api_keys
        WHERE name = :name AND revoked_at IS NULL FOR UPDATE""")
    row = connection.execute(query, {"name": name}).one_or_none()
    if row is None:
        raise KeyNameError(f"there is no key {name!r} that could be used; `holdfire keys list` shows them")
    return row


def _new_secret(connection: Connection, key_id: int, *, signs: bool) -> str:
    token = show_token(key_id, secrets.token_bytes(RANDOM_BYTES))
    connection.execute(
        text("INSERT INTO api_key_secrets (key_id, sha256, signing_secret) VALUES (:id, :sha256, :signing)"),
        {"id": key_id, "sha256": digest(token), "signing": token if signs else None},
    )
    return token


def _grant(row: Row[Any]) -> Grant:
    return Grant(row.name, frozenset(row.sources), frozenset(row.events), row.per_second, row.signs)


def _detail(key_id: int, grant: Grant) -> dict[str, Any]:
    return {
        "key_id": key_id,
        "name": grant.name,
        "sources": sorted(grant.sources),
        "events": sorted(grant.events),
        "per_second": grant.per_second,
        "signs": grant.signs,
    }
