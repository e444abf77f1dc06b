"""Runs that fire again what had ended."""

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    pass


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
