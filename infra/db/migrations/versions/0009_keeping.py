"""How long evidence is kept, what must be kept longer, what was archived, and what was forgotten."""

from alembic import op

from infra.db.partitions import refuse_truncate

revision = "0009"
down_revision = "0008"

# The one way around the guard is a setting that lasts for a transaction. It keeps mistakes away, and no superuser.
GUARD = """
CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_LEVEL = 'ROW' AND TG_OP = 'DELETE' AND current_setting('holdfire.keeping', true) = 'retain' THEN
        RETURN OLD;
    END IF;
    IF TG_LEVEL = 'ROW' AND TG_OP = 'UPDATE' AND current_setting('holdfire.keeping', true) = 'erase' THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% is append-only evidence: % is refused', TG_TABLE_NAME, TG_OP;
END $$;
"""

# What was applied of [keeping], one row a change; the newest counts.
POLICIES = """
CREATE TABLE keeping_policies (
    id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    policy     jsonb NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    applied_by text NOT NULL
);
CREATE TABLE retentions (
    id       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    begun_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    who      text NOT NULL,
    detail   jsonb NOT NULL DEFAULT '{}'
);
"""

# One row a file: what stands in it, and how much of that is gone from the tables by now. blocks_gone is where removing
# goes on after an interruption. wrong counts what must not be, as it was when the rows left. A row stays when its file
# has expired: the ledger goes on counting what was in it. One that is not kept is deleted once its rows are gone.
# A postback's archived columns say how many of its attempts and checks are in archives, and how the last one there ended.
# replaced is a file that an erasure wrote anew, until it is deleted.
ARCHIVES = """
CREATE TABLE archives (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    month          date NOT NULL,
    destination    text NOT NULL,
    part           integer NOT NULL,
    folder         text NOT NULL,
    file           text NOT NULL,
    written_at     timestamptz NOT NULL DEFAULT now(),
    bytes          bigint NOT NULL,
    sha256         bytea NOT NULL,
    blocks         integer NOT NULL,
    first_attempt  bigint NOT NULL,
    last_attempt   bigint NOT NULL,
    first_postback bigint NOT NULL,
    last_postback  bigint NOT NULL,
    intents        integer NOT NULL,
    attempts       integer NOT NULL,
    hops           integer NOT NULL,
    checks         integer NOT NULL,
    blocks_gone    integer NOT NULL DEFAULT 0,
    gone_intents   integer NOT NULL DEFAULT 0,
    gone_attempts  integer NOT NULL DEFAULT 0,
    gone_hops      integer NOT NULL DEFAULT 0,
    gone_checks    integer NOT NULL DEFAULT 0,
    gone_at        timestamptz,
    kept           boolean NOT NULL,
    wrong          jsonb NOT NULL DEFAULT '{}',
    expired_at     timestamptz,
    replaced       text,
    UNIQUE (month, destination, part),
    CHECK ((gone_at IS NULL) OR (gone_intents = intents AND gone_attempts = attempts AND gone_hops = hops
        AND gone_checks = checks))
);
CREATE INDEX archives_attempts ON archives (last_attempt, first_attempt);
CREATE INDEX archives_postbacks ON archives (last_postback, first_postback);
ALTER TABLE postbacks
    ADD COLUMN archived smallint NOT NULL DEFAULT 0,
    ADD COLUMN archived_checks integer NOT NULL DEFAULT 0,
    ADD COLUMN archived_status smallint,
    ADD COLUMN archived_verdict text;
"""

# destination stands alone: all of it is held. Otherwise criteria say what is, and legal_hold_conversions what that
# came to; it is looked at again before anything is dropped or erased.
HOLDS = """
CREATE TABLE legal_holds (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    placed_at   timestamptz NOT NULL DEFAULT now(),
    who         text NOT NULL,
    reason      text NOT NULL,
    destination text,
    criteria    jsonb NOT NULL,
    until       timestamptz,
    lifted_at   timestamptz,
    lifted_by   text,
    lift_reason text
);
CREATE TABLE legal_hold_conversions (
    hold_id       integer NOT NULL REFERENCES legal_holds,
    conversion_id bigint NOT NULL,
    PRIMARY KEY (conversion_id, hold_id)
);
CREATE VIEW legally_held AS
    SELECT l.conversion_id, h.id AS hold_id FROM legal_hold_conversions l JOIN legal_holds h ON h.id = l.hold_id
    WHERE h.lifted_at IS NULL AND (h.until IS NULL OR h.until > now());
"""

# A tombstone says that something was erased, and not what: a keyed hash of its kind and value. The key is given by the
# environment, and then only its fingerprint stands here; or it was made here for want of one.
ERASURES = """
CREATE TABLE erasure_keys (
    id          integer PRIMARY KEY CHECK (id = 1),
    fingerprint bytea NOT NULL,
    key         bytea,
    made_at     timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE erasures (
    id        integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    begun_at  timestamptz NOT NULL DEFAULT now(),
    ended_at  timestamptz,
    who       text NOT NULL,
    reason    text NOT NULL,
    kind      text NOT NULL,
    counts    jsonb NOT NULL DEFAULT '{}'
);
CREATE TABLE tombstones (
    digest     bytea PRIMARY KEY,
    kind       text NOT NULL,
    erasure_id integer NOT NULL REFERENCES erasures
);
ALTER TABLE conversions ADD COLUMN erasure_id integer;
ALTER TABLE signals ADD COLUMN erasure_id integer;
ALTER TABLE inbox ADD COLUMN erased_at timestamptz;
CREATE INDEX conversions_erased ON conversions (erasure_id) WHERE erasure_id IS NOT NULL;
"""

# Rows that were dropped by their age, one row a table and run: the ledger goes on counting them.
PRUNED = """
CREATE TABLE pruned (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT now(),
    what   text NOT NULL,
    before timestamptz NOT NULL,
    rows   bigint NOT NULL,
    counts jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX rejects_received ON rejects USING brin (received_at);
CREATE INDEX receipts_received ON receipts USING brin (received_at);
CREATE INDEX clicks_received ON clicks USING brin (received_at);
"""


def upgrade() -> None:
    for statements in (GUARD, POLICIES, ARCHIVES, HOLDS, ERASURES, PRUNED):
        op.execute(statements)
    refuse_truncate(op.get_bind(), "archives")


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
