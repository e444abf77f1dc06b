"""The tables of the main job: conversions, signals, postbacks, and the evidence of every attempt."""

from alembic import op

from infra.db.partitions import refuse_truncate

revision = "0001"
down_revision = None

DESTINATIONS = """
CREATE TABLE destination_versions (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    destination text NOT NULL,
    number      integer NOT NULL,
    contract    jsonb NOT NULL,
    current     boolean NOT NULL DEFAULT true,
    applied_at  timestamptz NOT NULL DEFAULT now(),
    applied_by  text NOT NULL,
    UNIQUE (destination, number)
);
CREATE UNIQUE INDEX destination_versions_current ON destination_versions (destination) WHERE current;
"""

ARRIVALS = """
CREATE TABLE receipts (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT now(),
    message_id  text NOT NULL,
    events      integer NOT NULL,
    conversions integer NOT NULL,
    signals     integer NOT NULL,
    duplicates  integer NOT NULL,
    rejected    integer NOT NULL
);
CREATE TABLE rejects (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT now(),
    code        text NOT NULL,
    problems    jsonb NOT NULL,
    source      text,
    event_id    text,
    raw         text NOT NULL
);
CREATE INDEX rejects_event ON rejects (event_id) WHERE event_id IS NOT NULL;
CREATE TABLE conversions (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source          text NOT NULL,
    event_id        text NOT NULL,
    name            text NOT NULL,
    order_id        text,
    click_ids       text[] NOT NULL,
    occurred_at     timestamptz NOT NULL,
    received_at     timestamptz NOT NULL DEFAULT now(),
    value           numeric,
    net_value       numeric,
    currency        text,
    routed          smallint NOT NULL,
    unrouted_reason text,
    event           json NOT NULL,
    CHECK ((routed = 0) = (unrouted_reason IS NOT NULL)),
    UNIQUE (event_id, source)
);
CREATE INDEX conversions_order ON conversions (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX conversions_received ON conversions USING brin (received_at);
CREATE INDEX conversions_click ON conversions USING gin (click_ids);
CREATE TABLE signals (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source              text NOT NULL,
    event_id            text NOT NULL,
    type                text NOT NULL,
    order_id            text,
    conversion_event_id text,
    occurred_at         timestamptz NOT NULL,
    received_at         timestamptz NOT NULL DEFAULT now(),
    status              text NOT NULL CHECK (status IN ('waiting', 'applied', 'noted')),
    outcome             text NOT NULL,
    event               json NOT NULL,
    UNIQUE (event_id, source)
);
CREATE INDEX signals_order ON signals (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX signals_conversion ON signals (conversion_event_id) WHERE conversion_event_id IS NOT NULL;
"""

# due_at is the one instant at which somebody has to act next: the release while held, the next attempt while
# retrying, the end of the lease while leased or firing (infinity while a release by hand is waited for). So one partial index finds what is due and what has to
# be rescued; no other indexed column changes while a postback fires.
POSTBACKS = """
CREATE TABLE postbacks (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    conversion_id    bigint NOT NULL REFERENCES conversions,
    release_at       timestamptz NOT NULL,
    due_at           timestamptz,
    lease_token      bigint,
    attempt_id       bigint,
    first_attempt_at timestamptz,
    expires_at       timestamptz,
    settled_at       timestamptz,
    duplicate_of     bigint,
    version_id       integer NOT NULL REFERENCES destination_versions,
    attempts         smallint NOT NULL DEFAULT 0,
    had_unknown      boolean NOT NULL DEFAULT false,
    manual           boolean NOT NULL DEFAULT false,
    state            text NOT NULL,
    void_reason      text,
    reason           text,
    CONSTRAINT postbacks_state CHECK (state IN ('held', 'leased', 'firing', 'retrying', 'delivered', 'rejected',
        'dead', 'voided', 'expired', 'in_doubt', 'duplicate')),
    CONSTRAINT postbacks_due CHECK ((due_at IS NOT NULL) = (state IN ('held', 'leased', 'firing', 'retrying'))),
    CONSTRAINT postbacks_lease CHECK ((lease_token IS NOT NULL) = (state IN ('leased', 'firing'))),
    CONSTRAINT postbacks_voided CHECK (state <> 'voided' OR void_reason IS NOT NULL),
    CONSTRAINT postbacks_first CHECK ((duplicate_of IS NOT NULL) = (state = 'duplicate'))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.2);
CREATE INDEX postbacks_due_at ON postbacks (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX postbacks_conversion ON postbacks (conversion_id);
CREATE INDEX postbacks_duplicate ON postbacks (duplicate_of) WHERE duplicate_of IS NOT NULL;
CREATE TABLE dedupe_keys (
    key         bytea PRIMARY KEY,
    postback_id bigint NOT NULL
);
CREATE TABLE paces (
    destination text PRIMARY KEY,
    next_at     timestamptz NOT NULL DEFAULT now(),
    tail_at     timestamptz NOT NULL DEFAULT now()
);
CREATE SEQUENCE lease_tokens;
CREATE SEQUENCE attempt_ids CACHE 1;
"""

EVIDENCE = """
CREATE TABLE intents (
    attempt_id  bigint NOT NULL,
    postback_id bigint NOT NULL,
    number      smallint NOT NULL,
    intent_at   timestamptz NOT NULL,
    worker      text NOT NULL,
    url         text NOT NULL,
    PRIMARY KEY (attempt_id, intent_at)
) PARTITION BY RANGE (intent_at);
CREATE TABLE attempts (
    id              bigint NOT NULL,
    postback_id     bigint NOT NULL,
    version_id      integer NOT NULL,
    number          smallint NOT NULL,
    status_code     smallint,
    intent_at       timestamptz NOT NULL,
    ended_at        timestamptz NOT NULL,
    next_attempt_at timestamptz,
    delay_s         double precision,
    trigger         text NOT NULL,
    worker          text NOT NULL,
    worker_version  text NOT NULL,
    verdict         text NOT NULL,
    rule            text NOT NULL,
    state           text NOT NULL,
    error_class     text,
    error_message   text,
    click_id        text,
    notes           text[],
    PRIMARY KEY (id, intent_at)
) PARTITION BY RANGE (intent_at);
CREATE INDEX attempts_postback ON attempts (postback_id);
CREATE TABLE hops (
    attempt_id      bigint NOT NULL,
    intent_at       timestamptz NOT NULL,
    started_at      timestamptz NOT NULL,
    body_length     bigint NOT NULL,
    number          smallint NOT NULL,
    status_code     smallint,
    reused          boolean,
    truncated       boolean NOT NULL,
    dns_ms          real,
    connect_ms      real,
    first_byte_ms   real,
    total_ms        real,
    method          text NOT NULL,
    url             text NOT NULL,
    request_head    bytea NOT NULL,
    request_body    bytea NOT NULL,
    addresses       text NOT NULL,
    peer            text,
    local           text,
    tls_version     text,
    response_head   bytea NOT NULL,
    body            bytea NOT NULL,
    body_sha256     bytea,
    body_error      text,
    failure         text,
    PRIMARY KEY (attempt_id, number, intent_at)
) PARTITION BY RANGE (intent_at);
CREATE TABLE audit (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT now(),
    who    text NOT NULL,
    action text NOT NULL,
    detail jsonb NOT NULL
);
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only evidence: % is refused', TG_TABLE_NAME, TG_OP;
END $$;
"""

PARTITIONED = ("intents", "attempts", "hops")
APPEND_ONLY = ("intents", "attempts", "hops", "audit", "receipts")


def upgrade() -> None:
    for statements in (DESTINATIONS, ARRIVALS, POSTBACKS, EVIDENCE):
        op.execute(statements)
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
    for table in PARTITIONED:
        op.execute(f"CREATE TABLE {table}_rest PARTITION OF {table} DEFAULT")
    for table in (*APPEND_ONLY, *(f"{table}_rest" for table in PARTITIONED)):
        refuse_truncate(op.get_bind(), table)


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
