"""Networks' own reports, and what they came to beside our log."""

from alembic import op

revision = "0006"
down_revision = "0005"

# One row a report: the same file under the same options at the same destination is the same report, whenever it is
# reconciled again. rows is NULL until all of them are in, summary until they are judged.
REPORTS = """
CREATE TABLE reports (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    identity      text NOT NULL UNIQUE,
    destination   text NOT NULL,
    network       text NOT NULL,
    file_name     text NOT NULL,
    sha256        text NOT NULL,
    bytes         bigint NOT NULL,
    aggregated    boolean NOT NULL,
    options       jsonb NOT NULL,
    first_day     date,
    last_day      date,
    rows          integer,
    bad_rows      integer,
    who           text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    reconciled_at timestamptz,
    runs          integer NOT NULL DEFAULT 0,
    summary       jsonb
);
CREATE INDEX reports_destination ON reports (destination, id);
"""

# Rows as they were read, verbatim beside it; one that could not be read says why. Compared byte by byte, which also
# sorts fastest. No index on their ids: a reconciliation joins whole reports, and an erasure sifts every text anyway.
ROWS = """
CREATE TABLE report_rows (
    report_id   bigint NOT NULL,
    line        integer NOT NULL,
    conversions integer,
    day         date,
    occurred_at timestamptz,
    value       numeric,
    click_id    text COLLATE "C",
    order_id    text COLLATE "C",
    name        text COLLATE "C",
    status      text COLLATE "C",
    currency    text COLLATE "C",
    raw         text NOT NULL,
    problem     text,
    PRIMARY KEY (report_id, line)
);
"""

# What matched is a pair of numbers; everything else says why. Explanations name no click id and no order.
FINDINGS = """
CREATE TABLE report_matches (
    report_id     bigint NOT NULL,
    line          integer NOT NULL,
    postback_id   bigint NOT NULL,
    conversion_id bigint NOT NULL,
    PRIMARY KEY (report_id, line)
);
CREATE TABLE report_findings (
    report_id     bigint NOT NULL,
    number        integer NOT NULL,
    bucket        text NOT NULL CHECK (bucket IN ('matched', 'ours_only', 'theirs_only', 'duplicate', 'value_mismatch', 'day_shift')),
    cause         text,
    side          text NOT NULL CHECK (side IN ('nobody', 'us', 'network', 'open')),
    line          integer,
    postback_id   bigint,
    conversion_id bigint,
    day           date,
    days          integer,
    stake         numeric,
    currency      text,
    explanation   text NOT NULL,
    PRIMARY KEY (report_id, number)
);
CREATE INDEX report_findings_cause ON report_findings (report_id, bucket, cause, number);
CREATE INDEX report_findings_postback ON report_findings (postback_id) WHERE postback_id IS NOT NULL;
"""

# Delivered is not proof; this is: the postbacks that a network's report has counted, and the last report that did.
MARKS = """
CREATE TABLE reconciled (
    postback_id bigint PRIMARY KEY,
    report_id   bigint NOT NULL,
    at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX reconciled_report ON reconciled (report_id);
CREATE TABLE report_mappings (
    scope      text NOT NULL CHECK (scope IN ('destination', 'network')),
    name       text NOT NULL,
    options    jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, name)
);
"""


def upgrade() -> None:
    for statements in (REPORTS, ROWS, FINDINGS, MARKS):
        op.execute(statements)


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
