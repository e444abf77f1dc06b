"""Taking identifiers out of every table that may repeat them: whatever has a column of text, today's tables and others'.

The rows that an erasure knows by their ids are not looked for here (conversions, signals, postbacks, evidence): the rest
is read through, each table once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, Row, text

from infra.db.engine import as_json
from infra.db.partitions import PARTITIONED
from infra.store.keeping.reach import Reach
from infra.store.keeping.tombstones import key_in_use
from schemas.erasing import ERASED, STUB, Traces, pseudonym, unpacked, without_events

KNOWN_BY_ID = (
    "conversions", "signals", "postbacks", "matches", "dedupe_keys", "destination_versions", "keeping_policies",
    "archives", "tombstones", "erasure_keys", "erasures", "alembic_version", "accounts", "sessions", "api_keys",
    "api_key_secrets", "paces", *PARTITIONED,
)  # fmt: skip
"""Tables that are not read through: erased by id, or without a word about a person."""

PAGE = 200

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
    engine: Engine, reach: Reach, *, dry_run: bool, progress: Progress = lambda _, __: None
) -> dict[str, int]:
    """Rows of each table that repeat an identifier of ``reach``; with ``dry_run`` they are only counted."""
    counts: dict[str, int] = {}
    traces = reach.traces
    with engine.connect() as connection:
        tables = columns(connection)
    for table, found in tables.items():
        way = _WAYS.get(table, _any)
        for number, sieve in enumerate(traces.sieves()):
            with engine.begin() as connection:
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text("SELECT set_config('holdfire.keeping', 'erase', true)"))
                count = way(
                    connection, _Sifting(table, found, reach.postbacks, traces, sieve, number == 0, dry_run)
                )
            if count:
                counts[table] = counts.get(table, 0) + count
        if table in counts:
            progress(table, counts[table])
    return counts


@dataclass(frozen=True, slots=True)
class _Sifting:
    """One pass over a table: what the sieve lets through is looked at here, and only that."""

    table: str
    columns: list[Column]
    postbacks: list[int]
    """Those that are erased."""
    traces: Traces
    sieve: str
    is_first: bool
    dry_run: bool

    def rows(
        self, connection: Connection, names: str, *, further: str = "false", unless: str = "false"
    ) -> Iterator[Row[Any]]:
        """Rows that may have an identifier, each as ``place`` and ``names``, ``PAGE`` in memory at a time."""
        where = " OR ".join(f"{column.shown} ~* :sieve" for column in self.columns)
        lock = "" if self.dry_run else "FOR UPDATE"
        statement = text(
            f"SELECT t.ctid::text AS place, {names} FROM {self.table} t WHERE ({where} OR {further}) AND NOT {unless} {lock}"  # noqa: S608 — names of the catalogue
        )
        streaming = statement.execution_options(stream_results=True, max_row_buffer=PAGE)
        given = {"sieve": self.sieve, "postbacks": self.postbacks}
        yield from connection.execute(streaming, {name: given[name] for name in statement.compile().params})


def _any(connection: Connection, sifting: _Sifting, *, unless: str = "false") -> int:
    names = ", ".join(
        f"t.{column.name}::text AS {column.name}" if column.type in {"json", "jsonb"} else f"t.{column.name}"
        for column in sifting.columns
    )
    count = 0
    for row in list(sifting.rows(connection, names, unless=unless)):
        changed = {
            column.name: clean
            for column in sifting.columns
            if (value := getattr(row, column.name)) is not None
            and (clean := _clean(column.type, value, sifting.traces)) != value
        }
        count += bool(changed)
        if not sifting.dry_run:
            _change(connection, sifting.table, row.place, changed)
    return count


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


def _inbox(connection: Connection, sifting: _Sifting) -> int:
    """Requests: what is erased goes out of the body, the other events in it stay to the byte. One that is compressed can
    only be looked into here."""
    names = "t.id, t.target, t.headers, t.body, t.idempotency_key, t.dedupe_id, t.answer, t.peer, t.source"
    found = [
        (row.place, changed)
        for row in sifting.rows(connection, names, further="t.headers::text ~* 'content-encoding'")
        if (changed := _request_without(row, sifting.traces))
    ]
    for place, changed in [] if sifting.dry_run else found:
        _change(connection, "inbox", place, changed | {"erased_at": datetime.now(UTC)})
    return len(found)


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


def _outbox(connection: Connection, sifting: _Sifting) -> int:
    """Messages on their way: each keeps its length, and intake refuses the stub as it would have refused the event."""
    traces = sifting.traces
    count = 0
    for row in list(sifting.rows(connection, "t.events")):
        before = json.loads(row.events)
        events = [STUB if traces.in_text(json.dumps(each, ensure_ascii=False)) else each for each in before]
        if events != before:
            count += 1
            if not sifting.dry_run:
                _change(connection, "outbox", row.place, {"events": json.dumps(events)})
    return count


def _rejects(connection: Connection, sifting: _Sifting) -> int:
    traces = sifting.traces
    count = 0
    for row in list(sifting.rows(connection, "t.event_id, t.problems, t.raw, t.source")):
        if not any(
            traces.in_text(each)
            for each in (row.raw, row.event_id or "", json.dumps(row.problems, ensure_ascii=False))
        ):
            continue
        count += 1
        if not sifting.dry_run:
            named = ERASED if row.event_id is not None and traces.in_text(row.event_id) else row.event_id
            problems = json.dumps(traces.without_in(row.problems))
            _change(
                connection,
                "rejects",
                row.place,
                {"raw": json.dumps(STUB), "problems": problems, "event_id": named},
            )
    return count


def _clicks(connection: Connection, sifting: _Sifting) -> int:
    """Registered clicks: the row stays, and leads nowhere any more."""
    count = 0
    keys = ("order_id", "lead_id", "customer_id", "device_id")
    for row in list(sifting.rows(connection, f"t.id, t.click_ids, {', '.join(f't.{key}' for key in keys)}")):
        texts = [json.dumps(row.click_ids, ensure_ascii=False), *(getattr(row, key) or "" for key in keys)]
        if not any(map(sifting.traces.in_text, texts)):
            continue
        count += 1
        if not sifting.dry_run:
            bare = {
                "order_id": ERASED,
                "lead_id": None,
                "customer_id": None,
                "device_id": None,
                "click_ids": "{}",
            }
            _change(connection, "clicks", row.place, bare)
            connection.execute(text("DELETE FROM clicks_waiting WHERE click_id = :id"), {"id": row.id})
    return count


_ITS_LINES = """SELECT report_id, line, postback_id FROM report_matches WHERE postback_id = ANY(:postbacks)
    UNION SELECT report_id, line, postback_id FROM report_findings WHERE postback_id = ANY(:postbacks) AND line IS NOT NULL"""


def _report_rows(connection: Connection, sifting: _Sifting) -> int:
    """Rows of networks' reports. One that was found to stand for what is erased goes whole: its click id may be cut, which
    no search would find. It goes on finding ours by the order's pseudonym."""
    count = 0
    if sifting.is_first:
        given: dict[str, Any] = {"postbacks": sifting.postbacks}
        if sifting.dry_run:
            query = f"SELECT count(*) FROM report_rows WHERE (report_id, line) IN (SELECT report_id, line FROM ({_ITS_LINES}) l)"  # noqa: S608 — literals of ours
            count = connection.execute(text(query), given).scalar_one()
        else:
            given |= {"names": as_json(_order_names(connection, sifting.postbacks)), "erased": ERASED}
            count = connection.execute(
                text(f"""
                UPDATE report_rows t SET click_id = NULL, order_id = n.name, raw = :erased
                FROM ({_ITS_LINES}) l JOIN json_to_recordset(:names) AS n(postback bigint, name text) ON n.postback = l.postback_id
                WHERE t.report_id = l.report_id AND t.line = l.line"""),  # noqa: S608 — literals of ours
                given,
            ).rowcount
    return count + _any(
        connection,
        sifting,
        unless=f"(t.report_id, t.line) IN (SELECT report_id, line FROM ({_ITS_LINES}) l)",  # noqa: S608 — literals of ours
    )


def _order_names(connection: Connection, postbacks: list[int]) -> list[dict[str, Any]]:
    """What the order of each postback is going to be called."""
    key = key_in_use(connection)
    assert key is not None, "it was made when the erasure was sealed"
    rows = connection.execute(
        text(
            "SELECT p.id, c.order_id FROM postbacks p JOIN conversions c ON c.id = p.conversion_id WHERE p.id = ANY(:ids)"
        ),
        {"ids": postbacks},
    )
    return [
        {"postback": row.id, "name": None if row.order_id is None else pseudonym(key, "order", row.order_id)}
        for row in rows
    ]


_WAYS: dict[str, Callable[[Connection, _Sifting], int]] = {
    "inbox": _inbox, "outbox": _outbox, "rejects": _rejects, "clicks": _clicks, "report_rows": _report_rows,
}  # fmt: skip
