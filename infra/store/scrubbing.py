"""Taking identifiers out of every table that may repeat them: whatever has a column of text, today's tables and others'.

The rows that an erasure knows by their ids are not looked for here (conversions, signals, postbacks, evidence): the rest
is read through, each table once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, Row, text

from infra.db.partitions import PARTITIONED
from schemas.erasing import ERASED, STUB, Traces, unpacked, without_events

KNOWN_BY_ID = (
    "conversions", "signals", "postbacks", "matches", "dedupe_keys", "destination_versions", "keeping_policies",
    "archives", "tombstones", "erasure_keys", "erasures", "alembic_version", "accounts", "sessions", "api_keys",
    "api_key_secrets", "paces", *PARTITIONED,
)  # fmt: skip
"""Tables that are not read through: erased by id, or without a word about a person."""

OWN_WAY = ("inbox", "outbox", "rejects", "clicks")
PAGE = 2000

_TYPES = {"text": "{0}", "character varying": "{0}", "json": "{0}::text", "jsonb": "{0}::text",
          "text[]": "array_to_string({0}, E'\\n')", "bytea": "encode({0}, 'escape')"}  # fmt: skip
Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Column:
    """A column that can hold words."""

    table: str
    name: str
    type: str

    @property
    def shown(self) -> str:
        return _TYPES[self.type].format(f"t.{self.name}")


def columns(connection: Connection) -> dict[str, list[Column]]:
    """By table: the columns that are read through."""
    rows = connection.execute(
        text("""
        SELECT c.relname AS table, a.attname AS name, format_type(a.atttypid, NULL) AS type
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
            AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND c.relname <> ALL(:known)
        ORDER BY c.relname, a.attnum"""),
        {"known": list(KNOWN_BY_ID)},
    )
    found: dict[str, list[Column]] = {}
    for row in rows:
        if row.type in _TYPES:
            found.setdefault(row.table, []).append(Column(row.table, row.name, row.type))
    return found


def scrub(
    engine: Engine, traces: Traces, *, dry_run: bool, progress: Progress = lambda _, __: None
) -> dict[str, int]:
    """Rows of each table that repeat an identifier; with ``dry_run`` they are only counted."""
    counts: dict[str, int] = {}
    with engine.connect() as connection:
        tables = columns(connection)
    for table, found in tables.items():
        way = {"inbox": _inbox, "outbox": _outbox, "rejects": _rejects, "clicks": _clicks}.get(table, _any)
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT set_config('holdfire.keeping', 'erase', true)"))
            count = way(connection, table, found, traces, dry_run)
        if count:
            counts[table] = count
            progress(table, count)
    return counts


def _matching(columns: list[Column]) -> str:
    return " OR ".join(
        f"{column.shown} ~* {':bytes' if column.type == 'bytea' else ':words'}" for column in columns
    )


def _any(connection: Connection, table: str, columns: list[Column], traces: Traces, dry_run: bool) -> int:
    where = _matching(columns)
    given = _given(where, traces)
    if dry_run:
        query = text(f"SELECT count(*) FROM {table} t WHERE {where}")  # noqa: S608 — names of the catalogue
        return int(connection.execute(query, given).scalar_one())
    names = ", ".join(
        f"t.{column.name}::text AS {column.name}" if column.type in {"json", "jsonb"} else f"t.{column.name}"
        for column in columns
    )
    rows = connection.execute(
        text(f"SELECT t.ctid::text AS place, {names} FROM {table} t WHERE {where} FOR UPDATE"),  # noqa: S608 — names of the catalogue
        given,
    ).all()
    for row in rows:
        changed = {
            column.name: clean
            for column in columns
            if (value := getattr(row, column.name)) is not None
            and (clean := _clean(column.type, value, traces)) != value
        }
        _change(connection, table, row.place, changed)
    return len(rows)


def _given(where: str, traces: Traces) -> dict[str, str]:
    values = {"words": traces.text_pattern, "bytes": traces.bytes_pattern}
    return {name: value for name, value in values.items() if f":{name}" in where}


def _clean(type_: str, value: Any, traces: Traces) -> Any:
    match type_:
        case "json" | "jsonb":
            return json.dumps(traces.without_in(json.loads(value))) if traces.in_text(value) else value
        case "text[]":
            return [traces.without(each) for each in value]
        case "bytea":
            return ERASED.encode() if traces.in_bytes(bytes(value)) else value
    return traces.without(value)


def _change(connection: Connection, table: str, place: str, changed: dict[str, Any]) -> None:
    if changed:
        sets = ", ".join(f"{name} = :{name}" for name in changed)
        connection.execute(
            text(f"UPDATE {table} SET {sets} WHERE ctid = CAST(:place AS tid)"),  # noqa: S608 — names of the catalogue
            {**changed, "place": place},
        )


def _inbox(connection: Connection, table: str, columns: list[Column], traces: Traces, dry_run: bool) -> int:
    """Requests: what is erased goes out of the body, the other events in it stay to the byte. One that is compressed can
    only be looked into here."""
    del table
    where = f"({_matching(columns)} OR t.headers::text ~* 'content-encoding')"
    query = text(f"""
        SELECT t.id, t.ctid::text AS place, t.kind, t.method, t.target, t.headers, t.body, t.idempotency_key, t.dedupe_id,
            t.answer, t.peer, t.source FROM inbox t WHERE t.id > :after AND {where} ORDER BY t.id LIMIT {PAGE}""")  # noqa: S608 — our own words
    after, count = 0, 0
    while rows := connection.execute(query, {**_given(where, traces), "after": after}).all():
        for row in rows:
            changed = _request_without(row, traces)
            count += bool(changed)
            if changed and not dry_run:
                connection.execute(
                    text("UPDATE inbox SET erased_at = coalesce(erased_at, now()) WHERE id = :id"),
                    {"id": row.id},
                )
                place = connection.execute(
                    text("SELECT ctid::text FROM inbox WHERE id = :id"), {"id": row.id}
                ).scalar_one()
                _change(connection, "inbox", place, changed)
        after = rows[-1].id
    return count


def _request_without(row: Row[Any], traces: Traces) -> dict[str, Any]:
    headers = {name.lower(): value for name, value in row.headers}
    plain = unpacked(bytes(row.body), headers.get("content-encoding", ""))
    changed: dict[str, Any] = {}
    if traces.in_bytes(plain):
        kept = without_events(plain, headers.get("content-type", ""), traces.in_bytes)
        changed["body"] = ERASED.encode() if kept is None else kept
    if traces.in_text(row.target):
        changed["target"] = f"{row.target.partition('?')[0]}?{ERASED}" if "?" in row.target else ERASED
    if traces.in_text(row.target.partition("?")[0]):
        changed["target"] = ERASED
    for name in ("idempotency_key", "dedupe_id"):
        value = getattr(row, name)
        if value is not None and traces.in_text(value):
            changed[name] = None
    for name in ("headers", "answer"):
        value = getattr(row, name)
        clean = traces.without_in(value)
        if clean != value or traces.in_text(json.dumps(value)):
            changed[name] = orjson.dumps(clean).decode()
    return changed


def _outbox(connection: Connection, table: str, columns: list[Column], traces: Traces, dry_run: bool) -> int:
    """Messages on their way: each keeps its length, and intake refuses the stub as it would have refused the event."""
    where = _matching(columns)
    rows = connection.execute(
        text(f"SELECT t.ctid::text AS place, t.events FROM {table} t WHERE {where} FOR UPDATE"),  # noqa: S608 — our own words
        _given(where, traces),
    ).all()
    for row in [] if dry_run else rows:
        events = [STUB if traces.in_text(json.dumps(each)) or traces.in_text(json.dumps(each, ensure_ascii=False)) else each
                  for each in json.loads(row.events)]  # fmt: skip
        _change(connection, table, row.place, {"events": json.dumps(events)})
    return len(rows)


def _rejects(connection: Connection, table: str, columns: list[Column], traces: Traces, dry_run: bool) -> int:
    where = _matching(columns)
    rows = connection.execute(
        text(f"SELECT t.ctid::text AS place, t.event_id, t.problems FROM {table} t WHERE {where} FOR UPDATE"),  # noqa: S608 — our own words
        _given(where, traces),
    ).all()
    for row in [] if dry_run else rows:
        named = None if row.event_id is None or not traces.in_text(row.event_id) else ERASED
        changed = {
            "raw": json.dumps(STUB),
            "problems": json.dumps(traces.without_in(row.problems)),
            "event_id": named or row.event_id,
        }
        _change(connection, table, row.place, changed)
    return len(rows)


def _clicks(connection: Connection, table: str, columns: list[Column], traces: Traces, dry_run: bool) -> int:
    """Registered clicks: the row stays, and leads nowhere any more."""
    where = _matching(columns)
    rows = connection.execute(
        text(f"SELECT t.id, t.ctid::text AS place FROM {table} t WHERE {where} FOR UPDATE"),  # noqa: S608 — our own words
        _given(where, traces),
    ).all()
    for row in [] if dry_run else rows:
        bare = {
            "order_id": ERASED,
            "lead_id": None,
            "customer_id": None,
            "device_id": None,
            "click_ids": "{}",
        }
        _change(connection, table, row.place, bare)
        connection.execute(text("DELETE FROM clicks_waiting WHERE click_id = :id"), {"id": row.id})
    return len(rows)
