"""Destinations that are paused by a person or stopped by their circuit breaker, and what they keep waiting."""

from alembic import op

revision = "0005"
down_revision = "0004"

# A row for each destination that was ever stopped. The pause is a person's; the breaker, and drains_at (when its queue
# is drawn from next), are the workers'. probe_token: the lease of the probes that are out.
STOPS = """
CREATE TABLE stops (
    destination   text PRIMARY KEY,
    paused_at     timestamptz,
    paused_until  timestamptz,
    drains_at     timestamptz NOT NULL DEFAULT now(),
    breaker_since timestamptz NOT NULL DEFAULT now(),
    breaker_until timestamptz,
    probe_token   bigint,
    trips         integer NOT NULL DEFAULT 0,
    probes        integer NOT NULL DEFAULT 0,
    failed        integer NOT NULL DEFAULT 0,
    breaker       text NOT NULL DEFAULT 'closed' CHECK (breaker IN ('closed', 'open', 'half_open')),
    says          text NOT NULL DEFAULT '',
    recent        json NOT NULL DEFAULT '[]',
    paused_by     text,
    pause_reason  text,
    CHECK (num_nonnulls(paused_at, paused_by, pause_reason) IN (0, 3)),
    CHECK (paused_until IS NULL OR paused_at IS NOT NULL)
) WITH (fillfactor = 50);
"""

# A parked postback is due, and stands in the queue of its own destination instead of the one of all: so a stopped
# destination's million is neither claimed and given back in circles nor read past at every tick. Everything else about
# it is as it was. No index changes at the gate.
PARKED = """
ALTER TABLE postbacks
    ADD COLUMN parked boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT postbacks_parked CHECK (NOT parked OR state NOT IN ('leased', 'firing'));
DROP INDEX postbacks_due_at;
CREATE INDEX postbacks_due_at ON postbacks (due_at) WHERE due_at IS NOT NULL AND NOT parked;
CREATE INDEX postbacks_parked ON postbacks (version_id, due_at) WHERE due_at IS NOT NULL AND parked;
CREATE INDEX postbacks_parked_expiring ON postbacks (version_id, expires_at)
    WHERE due_at IS NOT NULL AND parked AND expires_at IS NOT NULL;
"""


def upgrade() -> None:
    for statements in (STOPS, PARKED):
        op.execute(statements)


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
