"""Half a year of history, made by the server itself: conversions, their postbacks, and every attempt with its exchange.

Rows are made in the order of time, as they would have come, so that what lies beside each other on the disk is what came
at the same time. Indexes are made when the rows are there. Nothing is random between two runs but the random heads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Engine, text

from infra.catalogue import load_catalogue
from infra.db.partitions import PARTITIONED
from infra.store import destinations
from schemas.destination import Contract, Destination, join

DAYS = 180
PER_CONVERSION = 1.1
"""Postbacks: every tenth conversion goes to two destinations."""
ATTEMPTS_PER_CONVERSION = 10 / 3
# Name, network's part in the URL, and of 10,000 conversions how many.
DESTINATIONS = (
    ("alpha-eu", 5200), ("beta-us", 2600), ("gamma-push", 1300), ("delta-native", 600), ("epsilon-search", 250),
    ("zeta-app", 40), ("eta-seldom", 10),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Size:
    """How much of it there is."""

    conversions: int

    @property
    def attempts(self) -> int:
        return round(self.conversions * ATTEMPTS_PER_CONVERSION)


def contracts() -> dict[str, Contract]:
    """The destinations of the history, none of which can be reached."""
    generic = load_catalogue()["generic"]
    found = {}
    for name, _ in DESTINATIONS:
        settings = {"url": f"https://{name}.tracker.example/postback?cid={{click_id}}&amount={{value}}"}
        table = {
            "network": "generic",
            "events": ["purchase"],
            "settings": settings,
            "hold": {"kind": "refund", "wait": "14d"},
        }
        found[name] = join(name, Destination.model_validate(table), generic)
    return found


def load(engine: Engine, size: Size, say: Callable[[str], None] = print) -> None:
    """Fill an empty, migrated database. The steps that take long say so as they end."""
    destinations.apply(engine, contracts(), who="benchmark")
    started = time.monotonic()
    indexes = _drop_indexes(engine)
    for name, statement in _steps(size).items():
        _run(engine, statement, n=size.conversions)
        say(f"{name}: {time.monotonic() - started:.0f} s")
    months = _months(engine)
    for table in ("intents", "attempts", "hops"):
        for start, end in months:
            _fill_month(engine, table, start, end)
        say(f"{table}: {time.monotonic() - started:.0f} s")
    for definition in indexes:
        _run(engine, definition)
    say(f"indexes: {time.monotonic() - started:.0f} s")
    _run(engine, "DROP TABLE made, staged, numbered")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("SET maintenance_work_mem = '512MB'"))
        connection.execute(text("VACUUM ANALYZE"))
    say(f"vacuum: {time.monotonic() - started:.0f} s")


def _run(engine: Engine, statement: str, **values: object) -> None:
    """Without triggers, so that foreign keys are not asked row by row, and without the bound on a statement's time."""
    with engine.begin() as connection:
        for setting in (
            "statement_timeout = 0", "session_replication_role = replica", "synchronous_commit = off",
            "work_mem = '512MB'", "maintenance_work_mem = '1GB'",
        ):  # fmt: skip
            connection.execute(text(f"SET LOCAL {setting}"))
        used = {name: value for name, value in values.items() if f":{name}" in statement}
        connection.execute(text(statement), used)


def _drop_indexes(engine: Engine) -> list[str]:
    """Of conversions and postbacks, all that no constraint needs; they are made again at the end."""
    query = text("""
        SELECT c.relname AS name, pg_get_indexdef(i.indexrelid) AS definition FROM pg_index i
            JOIN pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid IN ('conversions'::regclass, 'postbacks'::regclass)
            AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid) ORDER BY 1""")
    with engine.connect() as connection:
        found = connection.execute(query).all()
    for row in found:
        _run(engine, f"DROP INDEX {row.name}")
    return [row.definition for row in found]


def _months(engine: Engine) -> list[tuple[date, date]]:
    query = text("""
        SELECT CAST(m AS date) AS start, CAST(m + interval '1 month' AS date) AS "end"
        FROM generate_series(date_trunc('month', now() - make_interval(days => :days)), date_trunc('month', now()),
            interval '1 month') m""")
    with engine.connect() as connection:
        return [(row.start, row.end) for row in connection.execute(query, {"days": DAYS + 1})]


def _fill_month(engine: Engine, table: str, start: date, end: date) -> None:
    """A month's partition is filled before it is attached: its indexes are made from whole rows."""
    name = f"{table}_{start:%Y_%m}"
    within = f"intent_at >= '{start}' AND intent_at < '{end}'"
    _run(engine, f"DROP TABLE IF EXISTS {name}")
    _run(engine, f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS, CHECK ({within}))")
    _run(engine, _EVIDENCE[table].format(name=name, within=within))
    _run(engine, f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{start}') TO ('{end}')")
    if start == _months(engine)[-1][0]:
        return
    for other in PARTITIONED:
        if other not in _EVIDENCE:
            _run(
                engine,
                f"CREATE TABLE IF NOT EXISTS {other}_{start:%Y_%m} PARTITION OF {other} FOR VALUES FROM ('{start}') TO ('{end}')",
            )


def _steps(size: Size) -> dict[str, str]:
    steps = {"conversions": _CONVERSIONS, "signals": _SIGNALS, "postbacks planned": _MADE, "attempts planned": _STAGED,
             "attempts numbered": _NUMBERED, "postbacks": _POSTBACKS, "counters": _COUNTERS}  # fmt: skip
    return {name: step.replace("{days}", str(DAYS)) for name, step in steps.items()}


# A number that looks random and stays what it is: as good as random for shares, and the same at every run.
_DICE = "(hashint8({0}) & 2147483647) % {1}"

_CONVERSIONS = f"""
    INSERT INTO conversions (source, event_id, name, order_id, click_ids, occurred_at, received_at, value, net_value,
        currency, routed, lead_id, customer_id, event)
    SELECT source, 'shop:order:' || 1000000 + n, 'purchase', order_id, ARRAY[token], at - interval '4 seconds', at, value, value,
        'EUR', CASE WHEN n % 10 = 0 THEN 2 ELSE 1 END, CASE WHEN n % 5 = 0 THEN 'lead-' || n END, customer_id,
        json_build_object('version', 1, 'type', 'conversion', 'event_id', 'shop:order:' || 1000000 + n, 'source', source,
            'name', 'purchase', 'occurred_at', at - interval '4 seconds', 'order_id', order_id, 'value', value::text,
            'currency', 'EUR', 'click_ids', json_build_object('generic', token), 'customer_id', customer_id,
            'params', json_build_object('basket', CAST(n % 7 AS text), 'coupon', 'AUTUMN' || n % 50))
    FROM generate_series(1, :n) n,
        LATERAL (SELECT now() - make_interval(days => {{days}}) + n * (make_interval(days => {{days}}) / :n) AS at,
            CASE WHEN n % 100000 = 7 THEN 'import-2019' WHEN n % 100 = 3 THEN 'pos' WHEN n % 5 = 1 THEN 'app' ELSE 'shop' END AS source,
            CAST(1000000 + n - CASE WHEN n % 33 = 0 THEN 1 ELSE 0 END AS text) AS order_id,
            'Cj0KCQ' || md5(n::text) || substr(md5((n * 7)::text), 1, 14) AS token, 'customer-' || n / 3 AS customer_id,
            CASE WHEN n % 20 = 4 THEN NULL
                ELSE round(CAST(exp(3.4 + 0.9 * sqrt(-2 * ln((1 + {_DICE.format("n", 10_000)}) / 10001.0))
                    * cos(6.2832 * {_DICE.format("n + 77", 10_000)} / 10000.0)) AS numeric), 2) END AS value) made"""

_SIGNALS = """
    INSERT INTO signals (source, event_id, type, order_id, occurred_at, received_at, status, outcome, event)
    SELECT 'billing', 'refund:' || n, 'refund', CAST(1000000 + n AS text), at, at, 'applied', 'voided its postback',
        json_build_object('version', 1, 'type', 'refund', 'event_id', 'refund:' || n, 'source', 'billing', 'occurred_at', at,
            'order_id', CAST(1000000 + n AS text))
    FROM generate_series(25, :n, 25) n,
        LATERAL (SELECT now() - make_interval(days => {days}) + n * (make_interval(days => {days}) / :n) + interval '1 day' AS at) made"""

_SHARES = " ".join(
    f"WHEN dice < {sum(share for _, share in DESTINATIONS[: place + 1])} THEN '{name}'"
    for place, (name, _) in enumerate(DESTINATIONS)
)
_MADE = f"""
    CREATE UNLOGGED TABLE made AS
    SELECT row_number() OVER (ORDER BY c.id, k) AS id, c.id AS conversion_id, v.id AS version_id,
        c.received_at + interval '14 days' AS release_at, state, c.click_ids[1] AS token, c.value, dice,
        CASE WHEN state IN ('held', 'leased', 'voided', 'duplicate', 'expired') THEN 0
            WHEN spread < 35 THEN 1 WHEN spread < 60 THEN 3 WHEN spread < 85 THEN 5 ELSE 8 END AS attempts,
        c.received_at + interval '14 days' + make_interval(secs => 0.05 + {_DICE.format("c.id", 400)} / 1000.0
            + CASE WHEN dice % 200 = 0 THEN 40 ELSE 0 END) AS first_attempt_at
    FROM conversions c, generate_series(1, c.routed) k,
        LATERAL (SELECT {_DICE.format("c.id * 3 + k", 10_000)} AS dice, {_DICE.format("c.id * 5 + k", 1000)} AS fate,
            {_DICE.format("c.id * 11 + k", 100)} AS spread) drawn,
        LATERAL (SELECT CASE {_SHARES} ELSE '{DESTINATIONS[0][0]}' END AS destination) aimed,
        LATERAL (SELECT CASE
            WHEN c.id % 25 = 0 THEN 'voided'
            WHEN c.received_at + interval '14 days' > now() THEN 'held'
            WHEN c.received_at + interval '14 days' > now() - interval '2 minutes' THEN
                CASE WHEN fate % 3 = 0 THEN 'leased' ELSE 'firing' END
            WHEN c.received_at + interval '15 days' > now() AND fate < 150 THEN 'retrying'
            WHEN fate < 30 THEN 'rejected' WHEN fate < 50 THEN 'dead' WHEN fate < 55 THEN 'expired' WHEN fate < 57 THEN 'in_doubt'
            WHEN fate < 70 THEN 'duplicate' ELSE 'delivered' END AS state) became,
        destination_versions v
    WHERE v.destination = aimed.destination"""

_STAGED = """
    CREATE UNLOGGED TABLE staged AS
    SELECT m.id AS postback_id, m.version_id, a AS number, m.attempts AS total, m.state, m.token, m.value, m.dice,
        least(m.first_attempt_at + make_interval(secs => (a - 1) * (a - 1) * 420.0 + m.dice % 60),
            now() - make_interval(secs => 1 + m.dice % 50 / 10.0)) AS intent_at
    FROM made m, generate_series(1, m.attempts) a"""

_NUMBERED = """
    CREATE UNLOGGED TABLE numbered AS
    SELECT row_number() OVER (ORDER BY intent_at, postback_id, number) AS id, s.*,
        number = total AND state = 'firing' AS open,
        CASE WHEN number < total OR state IN ('retrying', 'dead') THEN
                CASE WHEN (dice + number) % 20 < 3 THEN 'unknown' ELSE 'retry' END
            WHEN state = 'in_doubt' THEN 'unknown' WHEN state = 'rejected' THEN 'rejected' ELSE 'delivered' END AS verdict,
        CASE WHEN number < total OR state IN ('retrying', 'dead') THEN
                CASE WHEN (dice + number) % 20 < 3 THEN NULL WHEN (dice + number) % 20 = 3 THEN NULL
                    WHEN dice % 50 = 9 THEN 429 WHEN dice % 3 = 0 THEN 500 ELSE 503 END
            WHEN state = 'in_doubt' THEN NULL WHEN state = 'rejected' THEN CASE WHEN dice % 2 = 0 THEN 400 ELSE 404 END
            ELSE 200 END AS status_code,
        CASE WHEN dice % 25 = 11 AND number = total THEN 2 ELSE 1 END AS hops
    FROM staged s"""

_POSTBACKS = """
    INSERT INTO postbacks (id, conversion_id, version_id, state, release_at, due_at, lease_token, attempt_id, attempts,
        first_attempt_at, settled_at, void_reason, duplicate_of, reason)
    OVERRIDING SYSTEM VALUE
    SELECT m.id, m.conversion_id, m.version_id, m.state, m.release_at,
        CASE m.state WHEN 'held' THEN m.release_at WHEN 'retrying' THEN now() + make_interval(secs => m.dice * 2)
            WHEN 'leased' THEN now() + interval '2 minutes' WHEN 'firing' THEN now() + interval '2 minutes' END,
        CASE WHEN m.state IN ('leased', 'firing') THEN 1 END, n.id, m.attempts,
        CASE WHEN m.attempts > 0 THEN m.first_attempt_at END,
        CASE WHEN m.state NOT IN ('held', 'retrying', 'leased', 'firing') THEN coalesce(n.intent_at, m.release_at) END,
        CASE WHEN m.state = 'voided' THEN 'refunded' END, CASE WHEN m.state = 'duplicate' THEN greatest(m.id - 1, 1) END,
        CASE m.state WHEN 'delivered' THEN 'status 200' WHEN 'rejected' THEN 'status 400'
            WHEN 'dead' THEN 'status 503; attempt was the last' WHEN 'voided' THEN 'refunded' END
    FROM made m LEFT JOIN numbered n ON n.postback_id = m.id AND n.number = n.total ORDER BY m.id"""

_COUNTERS = """
    SELECT setval('postbacks_id_seq', (SELECT max(id) FROM made)), setval('attempt_ids', (SELECT max(id) FROM numbered)),
        setval('lease_tokens', 1)"""

_URL = "'https://' || v.destination || '.tracker.example/postback?cid=' || n.token || '&amount=' || coalesce(n.value::text, '')"
_EVIDENCE = {
    "intents": f"""
        INSERT INTO {{name}} (attempt_id, postback_id, number, intent_at, worker, url)
        SELECT n.id, n.postback_id, n.number, n.intent_at, 'node-a:4711', {_URL}
        FROM numbered n JOIN destination_versions v ON v.id = n.version_id WHERE {{within}} ORDER BY n.id""",
    "attempts": """
        INSERT INTO {name} (id, postback_id, version_id, number, status_code, intent_at, ended_at, next_attempt_at, delay_s,
            trigger, worker, worker_version, verdict, rule, state, error_class, error_message, click_id)
        SELECT id, postback_id, version_id, number, status_code, intent_at, intent_at + interval '80 ms',
            CASE WHEN number < total THEN intent_at + interval '7 minutes' END, CASE WHEN number < total THEN 420 END,
            CASE WHEN number = 1 THEN 'release' ELSE 'retry' END, 'node-a:4711', '0.4.0', verdict,
            CASE WHEN status_code IS NOT NULL THEN 'status ' || status_code
                WHEN verdict = 'unknown' THEN 'timeout after the request was sent' ELSE 'connect before anything was sent' END,
            CASE WHEN number < total THEN 'retrying' ELSE state END,
            CASE WHEN status_code IS NULL AND verdict = 'unknown' THEN 'TimeoutError'
                WHEN status_code IS NULL THEN 'ClientConnectorError' END,
            CASE WHEN status_code IS NULL THEN 'no answer within 10.0 s' END, token
        FROM numbered WHERE NOT open AND {within} ORDER BY id""",
    "hops": f"""
        INSERT INTO {{name}} (attempt_id, intent_at, started_at, body_length, number, status_code, reused, truncated,
            dns_ms, connect_ms, first_byte_ms, total_ms, method, url, request_head, request_body, addresses, peer, local,
            tls_version, response_head, body, body_sha256, failure)
        SELECT n.id, n.intent_at, n.intent_at + interval '2 ms', length(answer), h, code, true, false,
            NULL, NULL, 41.5, 44.25, 'GET', url, convert_to('GET ' || substr(url, position('/postback' IN url)) || ' HTTP/1.1' || crlf
                || 'Host: ' || v.destination || '.tracker.example' || crlf || 'User-Agent: holdfire/0.4.0' || crlf
                || 'Accept: */*' || crlf, 'UTF8'),
            '', '203.0.113.7', '203.0.113.7:443', '10.0.0.2:51234', 'TLSv1.3',
            CASE WHEN code IS NULL THEN '' ELSE convert_to('HTTP/1.1 ' || code || ' .' || crlf || 'Date: ' || n.intent_at || crlf
                || 'Content-Type: text/plain' || crlf || 'Content-Length: ' || length(answer) || crlf, 'UTF8') END,
            convert_to(answer, 'UTF8'), sha256(convert_to(answer, 'UTF8')),
            CASE WHEN code IS NULL AND n.verdict = 'unknown' THEN 'timeout: no answer within 10.0 s'
                WHEN code IS NULL THEN 'connect: connection refused' END
        FROM numbered n JOIN destination_versions v ON v.id = n.version_id, generate_series(1, n.hops) h,
            LATERAL (SELECT {_URL} AS url, chr(13) || chr(10) AS crlf,
                CASE WHEN h < n.hops THEN 302 ELSE n.status_code END AS code) said,
            LATERAL (SELECT CASE WHEN code IS NULL OR h < n.hops THEN '' WHEN code = 200 THEN 'OK ' || n.id
                WHEN n.id % 1000003 = 5 THEN 'error: campaign is closed' ELSE 'error: try again, ticket ' || md5(n.id::text) END AS answer) gave
        WHERE NOT n.open AND {{within}} ORDER BY n.id, h""",
}
