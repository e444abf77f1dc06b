"""Networks' own reports, and what they came to beside our log."""

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    pass


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
