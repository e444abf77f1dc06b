"""What comes in over HTTP and from other services: kept verbatim, and handed on to the queue."""

from alembic import op

from infra.db.partitions import refuse_truncate

revision = "0003"
down_revision = "0002"

# A message on its way to intake, written in the transaction that answers for it and deleted in the one that takes it
# in. sent_at is when it was last given to the queue; one that stays is sent again.
OUTBOX = """
CREATE TABLE outbox (
    message_id text PRIMARY KEY,
    sent_at    timestamptz NOT NULL DEFAULT now(),
    tries      integer NOT NULL DEFAULT 1,
    count      smallint NOT NULL,
    events     text NOT NULL
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE INDEX outbox_sent_at ON outbox (sent_at);
"""

# Requests as they came, and what was answered. Written once.
INBOX = """
CREATE SEQUENCE inbox_ids;
CREATE TABLE inbox (
    id              bigint PRIMARY KEY,
    received_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind            text NOT NULL CHECK (kind IN ('events', 'hook', 'click')),
    source          text,
    method          text NOT NULL,
    target          text NOT NULL,
    headers         json NOT NULL,
    body            bytea NOT NULL,
    peer            text,
    key_id          integer,
    idempotency_key text,
    dedupe_id       text,
    status_code     smallint NOT NULL,
    accepted        integer NOT NULL,
    duplicates      integer NOT NULL,
    rejected        integer NOT NULL,
    answer          json NOT NULL
);
CREATE UNIQUE INDEX inbox_idempotency ON inbox (coalesce(key_id, 0), idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX inbox_dedupe ON inbox (source, dedupe_id) WHERE dedupe_id IS NOT NULL;
CREATE INDEX inbox_received ON inbox USING brin (received_at);
CREATE TRIGGER inbox_append_only BEFORE UPDATE OR DELETE ON inbox FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""


def upgrade() -> None:
    for statements in (OUTBOX, INBOX):
        op.execute(statements)
    refuse_truncate(op.get_bind(), "inbox")


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
