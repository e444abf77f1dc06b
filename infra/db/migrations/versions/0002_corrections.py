"""Windows that signals end early or reopen, questions before release, and corrections of what was delivered."""

from alembic import op

from infra.db.partitions import refuse_truncate

revision = "0002"
down_revision = "0001"

# What stands of a conversion by its signals, as of now: the gate and every correction read it under the locks of its
# postbacks, and no signal has to be folded again.
STANDING = """
ALTER TABLE conversions ADD COLUMN outcomes text[] NOT NULL DEFAULT '{}';
"""

# reported is what the network was last told, where that is not the conversion's own value. overtaken: a signal came
# while an attempt was on the wire. lost is what the network shows too much (or, negative, too little) and cannot be
# told; without a value lost_at stands alone. The asked columns are of the service that is asked before release.
# let_go_at: a person released it by hand, which is the decision that its policy may wait for.
POSTBACKS = """
ALTER TABLE postbacks
    ADD COLUMN overtaken boolean NOT NULL DEFAULT false,
    ADD COLUMN adjustments smallint NOT NULL DEFAULT 0,
    ADD COLUMN asked smallint NOT NULL DEFAULT 0,
    ADD COLUMN asked_since timestamptz,
    ADD COLUMN confirmed_at timestamptz,
    ADD COLUMN let_go_at timestamptz,
    ADD COLUMN adjusts bigint,
    ADD COLUMN adjustment text CHECK (adjustment IN ('retraction', 'restatement')),
    ADD COLUMN reported numeric,
    ADD COLUMN retracted_at timestamptz,
    ADD COLUMN lost numeric,
    ADD COLUMN lost_at timestamptz,
    ADD CONSTRAINT postbacks_adjusts CHECK ((adjusts IS NOT NULL) = (adjustment IS NOT NULL)),
    ADD CONSTRAINT postbacks_lost CHECK (lost IS NULL OR lost_at IS NOT NULL);
CREATE INDEX postbacks_adjusts ON postbacks (adjusts) WHERE adjusts IS NOT NULL;
CREATE INDEX postbacks_lost_at ON postbacks (lost_at) WHERE lost_at IS NOT NULL;
-- Who holds a key gives it away when it is voided; without this every promotion would read all keys.
CREATE INDEX dedupe_keys_postback ON dedupe_keys (postback_id);
"""

# Like attempts, with hops of their own under the same numbers; they spend none of a postback's attempts. A stale one was
# answered when its postback had been moved already, and moved nothing itself.
CHECKS = """
CREATE TABLE checks (
    id              bigint NOT NULL,
    postback_id     bigint NOT NULL,
    version_id      integer NOT NULL,
    number          smallint NOT NULL,
    status_code     smallint,
    intent_at       timestamptz NOT NULL,
    ended_at        timestamptz NOT NULL,
    asks_again_at   timestamptz,
    worker          text NOT NULL,
    worker_version  text NOT NULL,
    stale           boolean NOT NULL,
    verdict         text NOT NULL,
    rule            text NOT NULL,
    error_class     text,
    error_message   text,
    PRIMARY KEY (id, intent_at)
) PARTITION BY RANGE (intent_at);
CREATE INDEX checks_postback ON checks (postback_id);
CREATE TRIGGER checks_append_only BEFORE UPDATE OR DELETE ON checks FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TABLE checks_rest PARTITION OF checks DEFAULT;
"""

# One row a postback that a person moved, so that its trail can say who did it and why.
AUDIT = """
ALTER TABLE audit ADD COLUMN postback_id bigint;
CREATE INDEX audit_postback ON audit (postback_id) WHERE postback_id IS NOT NULL;
"""


def upgrade() -> None:
    for statements in (STANDING, POSTBACKS, CHECKS, AUDIT):
        op.execute(statements)
    for table in ("checks", "checks_rest"):
        refuse_truncate(op.get_bind(), table)


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
