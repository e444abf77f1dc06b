"""Runs that fire again what had ended, and what a person says of what is in doubt."""

from alembic import op

revision = "0007"
down_revision = "0006"

# A run is what a person ordered: which postbacks (selection), up to which (last_id), how far it is (after_id), and when
# the next of it is due (next_at: its own rate spreads them). moved and refused are sums that its rows must come to.
RUNS = """
CREATE TABLE replay_runs (
    id                   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    begun_at             timestamptz NOT NULL DEFAULT now(),
    who                  text NOT NULL,
    reason               text NOT NULL,
    selection            jsonb NOT NULL,
    forced               boolean NOT NULL,
    with_current_version boolean NOT NULL,
    per_second           double precision NOT NULL CHECK (per_second > 0),
    matching             bigint NOT NULL,
    last_id              bigint NOT NULL,
    after_id             bigint NOT NULL DEFAULT 0,
    next_at              timestamptz NOT NULL DEFAULT now(),
    moved                bigint NOT NULL DEFAULT 0,
    refused              bigint NOT NULL DEFAULT 0,
    paused_at            timestamptz,
    stopped_at           timestamptz,
    ended_at             timestamptz
);
"""

# A row a postback that a run looked at: why it was refused; or what it was before, whole, so that it can be put back.
# came_to is written when something else happens to it: it is put back, or another run takes it up.
REPLAYS = """
CREATE TABLE replays (
    postback_id      bigint NOT NULL,
    run_id           integer NOT NULL REFERENCES replay_runs,
    from_state       text NOT NULL,
    refused          text,
    came_to          text,
    claimed          boolean NOT NULL DEFAULT false,
    attempts         smallint,
    before           jsonb,
    warnings         text[],
    PRIMARY KEY (run_id, postback_id),
    CHECK ((refused IS NULL) = (before IS NOT NULL)),
    CHECK ((refused IS NULL) = (attempts IS NOT NULL))
);
CREATE INDEX replays_postback ON replays (postback_id);
"""

# budget_from: attempts made before a person fired it again; its retry policy counts from there, and first_attempt_at is
# the first since. falls_back: what it is again if that comes to nothing, for the network has it or may have it. freed: a
# person said that the network has not counted it, so another may take its place. settled_by: who said that the network
# has it. sending: what the last attempt told, where that is not the conversion's own value.
POSTBACKS = """
ALTER TABLE postbacks
    ADD COLUMN run_id integer,
    ADD COLUMN budget_from smallint NOT NULL DEFAULT 0,
    ADD COLUMN falls_back text,
    ADD COLUMN freed boolean NOT NULL DEFAULT false,
    ADD COLUMN settled_by text,
    ADD COLUMN sending numeric,
    ADD CONSTRAINT postbacks_budget CHECK (budget_from <= attempts),
    ADD CONSTRAINT postbacks_falls_back CHECK (
        falls_back IS NULL OR (falls_back IN ('delivered', 'in_doubt') AND due_at IS NOT NULL)),
    ADD CONSTRAINT postbacks_freed CHECK (NOT freed OR state IN ('dead', 'rejected'));
"""


def upgrade() -> None:
    for statements in (RUNS, REPLAYS, POSTBACKS):
        op.execute(statements)


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
