"""Indexes by which investigators find things among millions, none of which the hot path pays for twice."""

from alembic import op

revision = "0004"
down_revision = "0003"

# filed is the state as it is looked for. It stays null through lease and attempt, so that the fire gate's update stays
# HOT, and changes only where due_at, which is indexed anyway, changes too. afterwards marks what was made after its
# conversion had been taken in: corrections, and what a late click routed. All others have ids in the order of receipt.
# No predicate here follows from a condition of the hot path: a planner that believes a small partial index to be empty
# would rather read all of it than look a row up.
POSTBACKS = """
ALTER TABLE postbacks
    ADD COLUMN afterwards boolean NOT NULL DEFAULT false,
    ADD COLUMN filed text GENERATED ALWAYS AS (CASE WHEN state IN ('leased', 'firing') THEN NULL ELSE state END) STORED;
UPDATE postbacks p SET afterwards = true WHERE adjusts IS NOT NULL OR EXISTS (
    SELECT FROM matches m JOIN conversions c ON c.id = m.conversion_id
    WHERE m.conversion_id = p.conversion_id AND m.at > c.received_at);
CREATE INDEX postbacks_filed ON postbacks (version_id, filed, id) WHERE filed IS NOT NULL;
CREATE INDEX postbacks_live ON postbacks (id) WHERE filed IS NULL;
CREATE INDEX postbacks_afterwards ON postbacks (id) INCLUDE (conversion_id) WHERE afterwards;
CREATE INDEX postbacks_corrections ON postbacks (id) WHERE adjustment IS NOT NULL;
CREATE INDEX postbacks_lost ON postbacks (id) WHERE lost_at IS NOT NULL;
DROP INDEX postbacks_lost_at;
"""

# Inserts by instant and by source go to the rightmost page of their index. The value's do not, and are the dearest.
ARRIVALS = """
DROP INDEX conversions_received;
CREATE INDEX conversions_received ON conversions (received_at);
CREATE INDEX conversions_source ON conversions (source, id);
CREATE INDEX conversions_value ON conversions (value, id);
CREATE INDEX conversions_unrouted ON conversions (id) WHERE routed = 0;
CREATE INDEX signals_received ON signals (received_at);
"""

# Only of what is not plain delivered. A status in the three hundreds may be that of a redirect that was followed, which
# stands in its hop alone.
EVIDENCE = """
CREATE INDEX attempts_verdict ON attempts (verdict, postback_id) WHERE verdict <> 'delivered';
CREATE INDEX attempts_status ON attempts (status_code, postback_id) WHERE status_code < 200 OR status_code > 299;
CREATE INDEX attempts_error ON attempts (lower(error_class), postback_id) WHERE error_class IS NOT NULL;
CREATE INDEX attempts_failure ON attempts (split_part(rule, ' ', 1), postback_id) WHERE error_class IS NOT NULL;
CREATE INDEX hops_redirect ON hops (status_code, attempt_id) WHERE status_code BETWEEN 300 AND 399;
"""

# What the overview shows of the past: attempts counted into buckets of five minutes, each exactly once, and how late
# first attempts were. tallied says how far: every attempt up to the id is counted, and none above it.
TALLIES = """
CREATE TABLE tallied (
    single       boolean PRIMARY KEY DEFAULT true CHECK (single),
    attempt_id   bigint NOT NULL DEFAULT 0,
    candidate_id bigint NOT NULL DEFAULT 0,
    candidate_xid xid8 NOT NULL DEFAULT '0',
    counted_at   timestamptz,
    took_ms      integer NOT NULL DEFAULT 0
);
INSERT INTO tallied DEFAULT VALUES;
CREATE TABLE tallies (
    bucket_at  timestamptz NOT NULL,
    version_id integer NOT NULL,
    verdict    text NOT NULL,
    state      text NOT NULL,
    attempts   bigint NOT NULL,
    PRIMARY KEY (bucket_at, version_id, verdict, state)
);
CREATE TABLE latenesses (
    bucket_at  timestamptz NOT NULL,
    version_id integer NOT NULL,
    grade      smallint NOT NULL,
    attempts   bigint NOT NULL,
    PRIMARY KEY (bucket_at, version_id, grade)
);
CREATE TABLE state_counts (
    version_id integer NOT NULL,
    state      text NOT NULL,
    postbacks  bigint NOT NULL,
    PRIMARY KEY (version_id, state)
);
"""


def upgrade() -> None:
    for statements in (POSTBACKS, ARRIVALS, EVIDENCE, TALLIES):
        op.execute(statements)


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
