"""How long evidence is kept, what must be kept longer, what was archived, and what was forgotten."""

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    pass


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
