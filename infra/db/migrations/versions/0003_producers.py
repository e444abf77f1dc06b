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

# Who may use the door. Of a plain key only its hash is kept. A signing key must be readable to check a signature, so it
# stands in a column of its own, until it is revoked or rotated away. A rotated key has two secrets until the older ends.
API_KEYS = """
CREATE TABLE api_keys (
    id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL,
    sources    text[] NOT NULL,
    events     text[] NOT NULL,
    per_second integer CHECK (per_second > 0),
    signs      boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);
CREATE UNIQUE INDEX api_keys_name ON api_keys (name) WHERE revoked_at IS NULL;
CREATE TABLE api_key_secrets (
    key_id         integer NOT NULL REFERENCES api_keys,
    sha256         bytea PRIMARY KEY,
    signing_secret text,
    created_at     timestamptz NOT NULL DEFAULT now(),
    ends_at        timestamptz
);
CREATE INDEX api_key_secrets_key ON api_key_secrets (key_id);
"""

# A delivery's mapping run again after it was mended, and what it came to.
INBOX_RUNS = """
CREATE TABLE inbox_runs (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    inbox_id   bigint NOT NULL REFERENCES inbox,
    ran_at     timestamptz NOT NULL DEFAULT now(),
    who        text NOT NULL,
    accepted   integer NOT NULL,
    duplicates integer NOT NULL,
    rejected   integer NOT NULL,
    answer     json NOT NULL
);
CREATE INDEX inbox_runs_inbox ON inbox_runs (inbox_id, id);
CREATE TRIGGER inbox_runs_append_only BEFORE UPDATE OR DELETE ON inbox_runs
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""

# The click register: which click ids came with which of a business's own keys. Clicks wait only until they were held
# against the conversions that came before them; a conversion that comes later looks for its click itself.
CLICKS = """
CREATE TABLE clicks (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    inbox_id    bigint NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    clicked_at  timestamptz NOT NULL,
    source      text,
    click_ids   json NOT NULL,
    order_id    text,
    lead_id     text,
    customer_id text,
    device_id   text,
    CHECK (num_nonnulls(order_id, lead_id, customer_id, device_id) > 0)
);
CREATE INDEX clicks_order ON clicks (order_id, clicked_at) WHERE order_id IS NOT NULL;
CREATE INDEX clicks_lead ON clicks (lead_id, clicked_at) WHERE lead_id IS NOT NULL;
CREATE INDEX clicks_customer ON clicks (customer_id, clicked_at) WHERE customer_id IS NOT NULL;
CREATE INDEX clicks_device ON clicks (device_id, clicked_at) WHERE device_id IS NOT NULL;
CREATE TABLE clicks_waiting (
    click_id bigint PRIMARY KEY
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
"""

# A click id that was found for a conversion, and by what. conversions.matched says the same to the fire gate;
# refusals says of each destination that takes such events what it required and did not get.
MATCHES = """
ALTER TABLE conversions
    ADD COLUMN lead_id text,
    ADD COLUMN customer_id text,
    ADD COLUMN device_id text,
    ADD COLUMN matched jsonb,
    ADD COLUMN refusals json;
CREATE INDEX conversions_lead ON conversions (lead_id) WHERE lead_id IS NOT NULL;
CREATE INDEX conversions_customer ON conversions (customer_id) WHERE customer_id IS NOT NULL;
CREATE INDEX conversions_device ON conversions (device_id) WHERE device_id IS NOT NULL;
CREATE TABLE matches (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at            timestamptz NOT NULL,
    conversion_id bigint NOT NULL REFERENCES conversions,
    click_row     bigint NOT NULL,
    destination   text NOT NULL,
    network       text NOT NULL,
    key           text NOT NULL CHECK (key IN ('order_id', 'lead_id', 'customer_id', 'device_id')),
    key_value     text NOT NULL,
    click_id      text NOT NULL,
    clicked_at    timestamptz NOT NULL,
    UNIQUE (conversion_id, destination)
);
CREATE TRIGGER clicks_append_only BEFORE UPDATE OR DELETE ON clicks FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER matches_append_only BEFORE UPDATE OR DELETE ON matches FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""


def upgrade() -> None:
    for statements in (OUTBOX, INBOX, API_KEYS, INBOX_RUNS, CLICKS, MATCHES):
        op.execute(statements)
    for table in ("inbox", "inbox_runs", "clicks", "matches"):
        refuse_truncate(op.get_bind(), table)


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
