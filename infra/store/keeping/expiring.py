"""Archives that have been kept long enough, and rows of other tables that are dropped by their age alone."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import orjson
from sqlalchemy import Connection, Engine, text

from infra.archives.form import DamagedArchiveError
from infra.archives.reading import ArchiveReader
from infra.store.keeping.archiving import PART_COLUMNS, Part, part_of
from infra.store.keeping.legal_holds import held_destinations
from schemas.keeping import Policy, is_past

BATCH = 5000

# A request cannot be told from its row which conversion it is about: whole days around a held one are kept.
_NEAR_HELD = """EXISTS (SELECT FROM legally_held l JOIN conversions c ON c.id = l.conversion_id
    WHERE t.received_at BETWEEN c.received_at - interval '2 days' AND c.received_at + interval '2 days')"""
_HELD_CLICK = """EXISTS (SELECT FROM legally_held l JOIN conversions c ON c.id = l.conversion_id
    WHERE c.order_id = t.order_id OR c.lead_id = t.lead_id OR c.customer_id = t.customer_id OR c.device_id = t.device_id)"""

_CONDITIONS = {
    # A request whose events are not all taken in yet is younger than the shortest age by far.
    "inbox": f"t.received_at < :before AND NOT {_NEAR_HELD}",
    "rejects": f"t.received_at < :before AND NOT {_NEAR_HELD}",
    "receipts": "t.received_at < :before",
    "clicks": f"""t.received_at < :before AND NOT {_HELD_CLICK}
        AND NOT EXISTS (SELECT FROM clicks_waiting w WHERE w.click_id = t.id)""",
}
_COUNTS = {
    "rejects": """count(*) FILTER (WHERE code = 'duplicate') AS duplicates,
        count(*) FILTER (WHERE code <> 'duplicate') AS rejected""",
    "receipts": "coalesce(sum(events), 0)::bigint AS events",
}


def expired(engine: Engine, policy: Policy, now: datetime) -> list[Part]:
    """Archives whose files may go: kept long enough or not wanted, all of it out of the tables, and nothing in it held."""
    query = text(
        f"SELECT {PART_COLUMNS} FROM archives WHERE gone_at IS NOT NULL AND expired_at IS NULL ORDER BY month, id"  # noqa: S608 — our own words
    )
    with engine.connect() as connection:
        parts = [part_of(row) for row in connection.execute(query)]
    held = held_destinations(engine)
    due = [part for part in parts if not part.kept or is_past(part.month, policy.keeping.archive_keep, now)]
    return [part for part in due if part.destination not in held and not _holds_any(engine, part)]


def _holds_any(engine: Engine, part: Part) -> bool:
    """Whether anything in the file is held. One that cannot be read is kept: what is in it is not known."""
    query = text("""
        SELECT EXISTS (SELECT FROM postbacks p JOIN legally_held l ON l.conversion_id = p.conversion_id
            WHERE p.id = ANY(:ids))""")
    with engine.connect() as connection:
        if not connection.execute(text("SELECT EXISTS (SELECT FROM legally_held)")).scalar_one():
            return False
        try:
            with ArchiveReader(part.path) as reader:
                ids = sorted({postback for postback, _ in reader.postbacks()})
        except (OSError, DamagedArchiveError):
            return True
        return bool(connection.execute(query, {"ids": ids}).scalar_one())


def expire(engine: Engine, part: Part) -> None:
    """Delete an archive's file. It is written down first: a file that is left over is deleted by the next run."""
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE archives SET expired_at = now() WHERE id = :id AND expired_at IS NULL"),
            {"id": part.id},
        )
    part.path.unlink(missing_ok=True)


def left_over(engine: Engine) -> list[Part]:
    """Archives that have expired, whose files may still be there after an interruption."""
    query = text(f"SELECT {PART_COLUMNS} FROM archives WHERE expired_at IS NOT NULL")  # noqa: S608 — our own words
    with engine.connect() as connection:
        return [part for row in connection.execute(query) if (part := part_of(row)).path.exists()]


def count_old(engine: Engine, table: str, age: timedelta) -> int:
    """How many rows of a table are older than ``age`` and may go."""
    with engine.connect() as connection:
        if table == "reports":
            return int(
                connection.execute(text(f"SELECT count(*) FROM report_rows t WHERE {_OLD_REPORTS}"),  # noqa: S608 — our own words
                {"age": age}).scalar_one() if _has_reports(connection) else 0
            )  # fmt: skip
        query = f"SELECT count(*) FROM {table} t WHERE {_CONDITIONS[table]}"  # noqa: S608 — one of ours
        return int(connection.execute(text(query), {"before": _before(connection, age)}).scalar_one())


def drop_old(engine: Engine, table: str, age: timedelta) -> int:
    """Drop one batch of a table's rows that are older than ``age``; how many. What the ledger counted is written down."""
    with engine.begin() as connection:
        if table == "reports":
            return _drop_report_rows(connection, age) if _has_reports(connection) else 0
        connection.execute(text("SELECT set_config('holdfire.keeping', 'retain', true)"))
        before = _before(connection, age)
        ids = list(
            connection.execute(
                text(f"SELECT id FROM {table} t WHERE {_CONDITIONS[table]} ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED"),  # noqa: S608 — our own words
                {"before": before, "limit": BATCH},
            ).scalars()
        )  # fmt: skip
        if not ids:
            return 0
        counts = {}
        if table in _COUNTS:
            query = text(f"SELECT {_COUNTS[table]} FROM {table} WHERE id = ANY(:ids)")  # noqa: S608 — one of ours
            counts = dict(connection.execute(query, {"ids": ids}).one()._mapping)
        if table == "inbox":
            connection.execute(text("DELETE FROM inbox_runs WHERE inbox_id = ANY(:ids)"), {"ids": ids})
        connection.execute(text(f"DELETE FROM {table} WHERE id = ANY(:ids)"), {"ids": ids})  # noqa: S608 — one of ours
        connection.execute(
            text("INSERT INTO pruned (what, before, rows, counts) VALUES (:what, :before, :rows, :counts)"),
            {"what": table, "before": before, "rows": len(ids), "counts": orjson.dumps(counts).decode()},
        )
        return len(ids)


_OLD_REPORTS = (
    "t.report_id IN (SELECT r.id FROM reports r WHERE r.created_at < now() - CAST(:age AS interval))"
)


def _has_reports(connection: Connection) -> bool:
    return connection.execute(text("SELECT to_regclass('report_rows') IS NOT NULL")).scalar_one() is True


def _drop_report_rows(connection: Connection, age: timedelta) -> int:
    """The rows of old reports as the network gave them; what they came to stays."""
    statement = text(f"""
        DELETE FROM report_rows WHERE ctid = ANY(ARRAY(
            SELECT t.ctid FROM report_rows t WHERE {_OLD_REPORTS} LIMIT :limit))""")  # noqa: S608 — our own words
    return connection.execute(statement, {"age": age, "limit": BATCH}).rowcount


def _before(connection: Connection, age: timedelta) -> datetime:
    instant: datetime = connection.execute(
        text("SELECT now() - CAST(:age AS interval)"), {"age": age}
    ).scalar_one()
    return instant


def oldest_month(engine: Engine) -> date | None:
    """The first month that has left the tables, if any did."""
    with engine.connect() as connection:
        query = text("SELECT min(month) FROM archives WHERE gone_attempts + gone_checks > 0")
        found: date | None = connection.execute(query).scalar_one()
        return found
