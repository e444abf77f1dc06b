"""What is known of everything that a report and our log do not plainly agree on: streamed, each with its evidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, Row, text

from infra.db.engine import copy_rows, copy_text
from infra.store.clicks import indexed
from schemas.lifecycle import State
from schemas.reconciling.facts import Elsewhere, Evidence, Ours, RefusedEvent, Theirs
from schemas.reconciling.refusals import LONGEST

_PER_FETCH = 2_000
_LOOKED_UP_SINGLY = 50_000
"""Up to so many ids are looked up by the index; more are joined in one pass over all conversions."""
_REJECTED_AROUND = timedelta(days=40)
"""An event is refused when it arrives, which is some time after the click that the report may date it by."""

_OURS = """
    o.postback_id, o.conversion_id, o.state, o.attempts, o.click_id, o.order_id, o.value AS our_value,
    o.currency AS our_currency, o.at, o.day AS our_day, o.in_period, o.retracted, c.value AS first_value, p.reason,
    p.void_reason, p.duplicate_of, p.release_at, nullif(p.due_at, 'infinity') AS due_at, p.expires_at,
    CASE WHEN p.state = 'delivered' THEN coalesce(a.ended_at, p.settled_at) END AS delivered_at, c.occurred_at AS event_at,
    coalesce((c.matched->:destination->>'clicked_at')::timestamptz, (c.event->>'clicked_at')::timestamptz) AS clicked_at,
    a.id AS attempt_id, a.number, a.verdict, a.rule, a.status_code, h.hops, h.last_status, h.failure, h.body,
    h.response_head, coalesce(n.delivered, 0) AS delivered, coalesce(n.unknown, 0) AS unknown"""
# Of the delivering attempt, or else the last one: what it ended with. Fetched only for what is not plainly matched.
_EVIDENCE = f"""
    JOIN postbacks p ON p.id = o.postback_id JOIN conversions c ON c.id = o.conversion_id
    LEFT JOIN LATERAL (SELECT * FROM attempts a WHERE a.postback_id = o.postback_id
        ORDER BY a.verdict = 'delivered' DESC, a.id DESC LIMIT 1) a ON o.attempts > 0
    LEFT JOIN LATERAL (SELECT count(*) FILTER (WHERE verdict = 'delivered') AS delivered,
        count(*) FILTER (WHERE verdict = 'unknown') AS unknown
        FROM attempts WHERE postback_id = o.postback_id) n ON o.attempts > 0
    LEFT JOIN LATERAL (SELECT count(*) OVER () AS hops, h.status_code AS last_status, h.failure,
        substring(h.body FROM 1 FOR {LONGEST}) AS body, substring(h.response_head FROM 1 FOR 4000) AS response_head
        FROM hops h WHERE h.attempt_id = a.id AND h.intent_at = a.intent_at ORDER BY h.number DESC LIMIT 1) h ON true"""  # noqa: S608 — a fixed number
_THEIRS = """t.line, t.click_id AS their_click_id, t.order_id AS their_order_id, t.value, t.currency, t.occurred_at, t.day, t.counted"""


@dataclass(frozen=True, slots=True)
class Answered:
    """The body of the last hop as it was received, to be made legible: its head says how it is coded."""

    head: bytes
    body: bytes


def odd_pairs(connection: Connection, destination: str) -> Iterator[tuple[Ours, Theirs, Answered]]:
    """Pairs that do not agree in everything."""
    query = f"SELECT {_OURS}, {_THEIRS} FROM r_compared m JOIN r_ours o ON o.postback_id = m.postback_id JOIN r_theirs t ON t.line = m.line {_EVIDENCE} WHERE NOT m.clean"  # noqa: S608 — fixed fragments
    for row in _stream(connection, query, {"destination": destination}):
        yield _ours(row), _theirs(row), _answered(row)


def repeats(connection: Connection, destination: str) -> Iterator[tuple[Ours, Theirs]]:
    """Rows whose conversion another row stands for."""
    query = f"SELECT {_OURS}, {_THEIRS} FROM r_repeats m JOIN r_ours o ON o.postback_id = m.postback_id JOIN r_theirs t ON t.line = m.line {_EVIDENCE}"  # noqa: S608 — fixed fragments
    for row in _stream(connection, query, {"destination": destination}):
        yield _ours(row), _theirs(row)


def ours_left(connection: Connection, destination: str) -> Iterator[tuple[Ours, Theirs | None, Answered]]:
    """Postbacks of the report's days that no row stands for, each with the row that looks like a damaged one of it."""
    query = f"""
        SELECT {_OURS}, {_THEIRS} FROM r_left_o o LEFT JOIN r_near m ON m.postback_id = o.postback_id
        LEFT JOIN r_theirs t ON t.line = m.line {_EVIDENCE} WHERE o.in_period"""  # noqa: S608 — fixed fragments
    for row in _stream(connection, query, {"destination": destination}):
        yield _ours(row), None if row.line is None else _theirs(row), _answered(row)


def theirs_left(
    connection: Connection, destination: str
) -> Iterator[tuple[Theirs, Ours | None, Elsewhere | None, RefusedEvent | None]]:
    """Counted rows that stand for no postback, with what else is known of their ids."""
    query = f"""
        SELECT {_OURS_BARE}, {_THEIRS}, k.*, j.reject_id, j.code FROM r_left_t t
        LEFT JOIN r_near m ON m.line = t.line LEFT JOIN r_left_o o ON o.postback_id = m.postback_id
        LEFT JOIN r_known k ON k.known_line = t.line LEFT JOIN r_refused j ON j.line = t.line
        WHERE t.counted"""  # noqa: S608 — fixed fragments
    for row in _stream(connection, query, {}):
        near = None if row.postback_id is None else _bare(row)
        yield _theirs(row), near, _elsewhere(row, destination), _refused(row)


_OURS_BARE = """o.postback_id, o.conversion_id, o.state, o.attempts, o.click_id, o.order_id, o.value AS our_value,
    o.currency AS our_currency"""


def _stream(connection: Connection, query: str, values: dict[str, Any]) -> Iterator[Row[Any]]:
    # A cursor of the server's: what is left may be as much as the report.
    how = {"stream_results": True, "max_row_buffer": _PER_FETCH}
    with connection.execute(text(query), values, execution_options=how) as rows:
        for part in rows.yield_per(_PER_FETCH).partitions():
            yield from part


def look_elsewhere(connection: Connection) -> None:
    """Where the ids of the rows left over are known besides: by any conversion's click ids, or by order."""
    count = connection.execute(text("SELECT count(*) FROM r_left_t WHERE counted")).scalar_one()
    # In the collation of the log's indexes, which serve no other.
    wanted = 'SELECT line, click_id COLLATE "default" AS click_id, order_id COLLATE "default" AS order_id FROM r_left_t t WHERE counted AND NOT EXISTS (SELECT FROM r_near n WHERE n.line = t.line)'
    token = indexed("w.click_id")
    if count <= _LOOKED_UP_SINGLY:
        # Few: each by the index. The planner expects far more matches of an array than there are, and would read all.
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        by_click = f"CROSS JOIN LATERAL (SELECT k.id FROM conversions k WHERE k.click_ids @> ARRAY[{token}] LIMIT 10) c"  # noqa: S608 — fixed fragments
    else:
        by_click = f"JOIN (SELECT id, unnest(click_ids) AS token FROM conversions) c ON c.token = {token}"  # noqa: S608 — fixed fragments
    connection.execute(
        text(f"""
        CREATE TEMP TABLE r_known AS
        WITH wanted AS ({wanted}), hit AS (
            SELECT w.line, w.order_id, c.id, true AS same_click FROM wanted w {by_click} WHERE w.click_id IS NOT NULL
            UNION ALL
            SELECT w.line, w.order_id, c.id, w.click_id IS NULL FROM wanted w JOIN conversions c ON c.order_id = w.order_id)
        SELECT DISTINCT ON (hit.line) hit.line AS known_line, hit.id AS known_conversion, hit.same_click, p.id AS known_postback,
            v.destination AS known_destination, p.state AS known_state, c.unrouted_reason, c.occurred_at AS known_at,
            (hit.order_id IS NULL OR c.order_id IS NOT DISTINCT FROM hit.order_id) AS same_order
        FROM hit JOIN conversions c ON c.id = hit.id
            LEFT JOIN postbacks p ON p.conversion_id = c.id AND p.adjusts IS NULL
            LEFT JOIN destination_versions v ON v.id = p.version_id
        ORDER BY hit.line, hit.same_click DESC, c.order_id IS NOT DISTINCT FROM hit.order_id DESC, p.id""")  # noqa: S608 — fixed fragments
    )
    connection.execute(text("SET LOCAL enable_seqscan = on"))
    connection.execute(text("ANALYZE r_known"))


def look_among_refused(connection: Connection, first: Any, last: Any) -> None:
    """Events that our intake refused, for the rows left over: by order id, or by a click id that was no click id.

    ``first`` and ``last`` are days or None. Their raw text is whatever came, so it is read here and not by the database.
    """
    connection.execute(
        text(
            'CREATE TEMP TABLE r_rejects (reject_id bigint, code text, order_id text COLLATE "C", click_id text COLLATE "C");'
            "CREATE TEMP TABLE r_refused (line integer, reject_id bigint, code text)"
        )
    )
    if not connection.execute(text("SELECT EXISTS (SELECT FROM r_left_t WHERE counted)")).scalar_one():
        return
    query = """SELECT id, code, raw FROM rejects WHERE code <> 'duplicate'
        AND (CAST(:first AS date) IS NULL OR received_at >= CAST(:first AS date) - CAST(:around AS interval))
        AND (CAST(:last AS date) IS NULL OR received_at < CAST(:last AS date) + CAST(:around AS interval))"""
    found: list[tuple[str, ...]] = []
    for row in _stream(connection, query, {"first": first, "last": last, "around": _REJECTED_AROUND}):
        order, tokens = _ids_of(row.raw)
        found += [
            (str(row.id), copy_text(row.code), copy_text(order), copy_text(token))
            for token in tokens or [None]
        ]
    for start in range(0, len(found), 20_000):
        copy_rows(
            connection,
            "r_rejects",
            ("reject_id", "code", "order_id", "click_id"),
            found[start : start + 20_000],
        )
    connection.execute(
        text("""
        INSERT INTO r_refused SELECT DISTINCT ON (line) line, reject_id, code FROM (
            SELECT t.line, r.reject_id, r.code, 1 AS rank FROM r_left_t t JOIN r_rejects r ON r.order_id = t.order_id WHERE t.counted
            UNION ALL
            SELECT t.line, r.reject_id, r.code, 2 FROM r_left_t t JOIN r_rejects r ON r.click_id = t.click_id WHERE t.counted) hit
        ORDER BY line, rank, reject_id""")
    )


def _ids_of(raw: str) -> tuple[str | None, list[str | None]]:
    """Order id and click ids of an event that may be anything."""
    try:
        event = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None, []
    if not isinstance(event, dict):
        return None, []
    order, clicks = event.get("order_id"), event.get("click_ids")
    tokens = [each for each in clicks.values() if isinstance(each, str)] if isinstance(clicks, dict) else []
    return order if isinstance(order, str) else None, [*tokens]


def _ours(row: Row[Any]) -> Ours:
    return replace(
        _bare(row),
        at=row.at,
        day=row.our_day,
        in_period=row.in_period,
        retracted=row.retracted,
        first_value=row.first_value,
        reason=row.reason,
        void_reason=row.void_reason,
        duplicate_of=row.duplicate_of,
        release_at=row.release_at,
        due_at=row.due_at,
        expires_at=row.expires_at,
        delivered_at=row.delivered_at,
        event_at=row.event_at,
        clicked_at=row.clicked_at,
        evidence=Evidence(
            attempt_id=row.attempt_id,
            number=row.number,
            verdict=row.verdict,
            rule=row.rule or "",
            status_code=row.status_code,
            hops=row.hops or 0,
            last_status=row.last_status,
            failure=row.failure,
            delivered=row.delivered,
            unknown=row.unknown,
        ),
    )


def _bare(row: Row[Any]) -> Ours:
    return Ours(
        postback_id=row.postback_id,
        conversion_id=row.conversion_id,
        state=State(row.state),
        attempts=row.attempts,
        click_id=row.click_id,
        order_id=row.order_id,
        value=row.our_value,
        currency=row.our_currency,
    )


def _theirs(row: Row[Any]) -> Theirs:
    return Theirs(
        line=row.line,
        click_id=row.their_click_id,
        order_id=row.their_order_id,
        value=row.value,
        currency=row.currency,
        at=row.occurred_at,
        day=row.day,
        counted=row.counted,
    )


def _answered(row: Row[Any]) -> Answered:
    return Answered(bytes(row.response_head or b""), bytes(row.body or b""))


def _elsewhere(row: Row[Any], destination: str) -> Elsewhere | None:
    if row.known_conversion is None:
        return None
    same = row.known_destination == destination
    return Elsewhere(
        conversion_id=row.known_conversion,
        postback_id=row.known_postback,
        destination=row.known_destination,
        state=None if row.known_state is None else State(row.known_state),
        unrouted_reason=row.unrouted_reason,
        same_destination=same,
        same_click=row.same_click,
        at=row.known_at if same and row.same_order else None,
    )


def _refused(row: Row[Any]) -> RefusedEvent | None:
    return None if row.reject_id is None else RefusedEvent(row.reject_id, row.code)


def statuses(connection: Connection, report_id: int) -> Sequence[str]:
    """The distinct statuses of a report's rows."""
    query = text("SELECT DISTINCT status FROM report_rows WHERE report_id = :id AND status IS NOT NULL")
    return list(connection.execute(query, {"id": report_id}).scalars())
