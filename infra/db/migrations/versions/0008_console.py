"""Accounts, sessions and what people did at the console."""

from alembic import op

revision = "0008"
down_revision = "0007"

# Of a password only its argon2id hash is kept. A disabled account stays, so that the audit's names go on meaning somebody.
ACCOUNTS = """
CREATE TABLE accounts (
    id                  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name                text NOT NULL UNIQUE,
    role                text NOT NULL CHECK (role IN ('viewer', 'operator')),
    password_hash       text NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT now(),
    password_changed_at timestamptz NOT NULL DEFAULT now(),
    last_login_at       timestamptz,
    disabled_at         timestamptz
);
"""

# Of a session's token only its SHA-256: who reads the table cannot use what it says.
SESSIONS = """
CREATE TABLE sessions (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sha256       bytea NOT NULL UNIQUE,
    account_id   integer NOT NULL REFERENCES accounts,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    address      text NOT NULL,
    agent        text NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX sessions_account ON sessions (account_id);
"""

# Failures in a row, by account name (whether there is such an account or not) and by address.
LOGIN_FAILURES = """
CREATE TABLE login_failures (
    kind     text NOT NULL CHECK (kind IN ('account', 'address')),
    key      text NOT NULL,
    failures integer NOT NULL,
    last_at  timestamptz NOT NULL,
    wait_to  timestamptz NOT NULL,
    PRIMARY KEY (kind, key)
);
"""

AUDIT = """
CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_action ON audit (action, id);
"""


def upgrade() -> None:
    for statements in (ACCOUNTS, SESSIONS, LOGIN_FAILURES, AUDIT):
        op.execute(statements)


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
