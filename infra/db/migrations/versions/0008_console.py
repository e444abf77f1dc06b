"""Accounts, sessions and what people did at the console."""

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    pass


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
