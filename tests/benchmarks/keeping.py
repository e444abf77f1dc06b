"""What keeping costs: a month on its way into archives, a life read from one, a search through them, and what intake
pays for tombstones."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from sqlalchemy import Engine, text

from infra.embedded import Engines
from infra.logging import configure_logging
from infra.store import destinations
from infra.store.destinations import Destinations
from infra.store.evidence import read_life
from infra.store.keeping import tombstones
from infra.store.keeping.erasing import Order, seal
from infra.store.ledger import read_ledger
from infra.store.searching import archive_search
from infra.store.searching.criteria import Criteria
from schemas.event import MAX_EVENTS_PER_MESSAGE
from schemas.keeping import Keeping, Policy
from tests.benchmarks.holdfire import Holdfire
from tests.integration.aged import make_month
from tests.integration.scenes import contract
from workers.intake import take_message
from workers.retaining import retain

ATTEMPTS = 200_000
POLICY = Policy(Keeping(evidence=timedelta(days=365)), {})
MONTH = date(2025, 3, 1)

# As real ones are: a URL with a token, a dozen headers there and back, half a kilobyte of answer that differs.
_LOAD = """
    INSERT INTO conversions (source, event_id, name, order_id, click_ids, occurred_at, received_at, value, net_value,
        currency, routed, event)
    SELECT 'shop', 'old:' || n, 'purchase', 'order-' || n, '{}', CAST(:month AS date), CAST(:month AS date), 49.9, 49.9, 'EUR', 1,
        json_build_object('version', 1, 'type', 'conversion', 'event_id', 'old:' || n, 'source', 'shop', 'name', 'purchase',
            'occurred_at', '2025-03-01T00:00:00Z', 'order_id', 'order-' || n, 'value', '49.90', 'currency', 'EUR')
    FROM generate_series(1, :n) n;
    INSERT INTO receipts (message_id, events, conversions, signals, duplicates, rejected) VALUES ('old', :n, :n, 0, 0, 0);
    INSERT INTO postbacks (conversion_id, release_at, first_attempt_at, settled_at, version_id, attempts, state)
    SELECT c.id, c.received_at, c.received_at + interval '1 day', c.received_at + interval '2 days', :version, 1, 'delivered'
    FROM conversions c ORDER BY c.id;
    INSERT INTO intents SELECT nextval('attempt_ids'), p.id, 1, p.first_attempt_at, 'node-a:4711',
        'https://push.example.com/postback?click=' || md5(p.id::text) || md5('x' || p.id) FROM postbacks p;
    INSERT INTO attempts (id, postback_id, version_id, number, status_code, intent_at, ended_at, trigger, worker, worker_version,
        verdict, rule, state, click_id)
    SELECT i.attempt_id, i.postback_id, :version, 1, 200, i.intent_at, i.intent_at + interval '80 ms', 'release', i.worker, '1',
        'delivered', 'status 200', 'delivered', md5(i.postback_id::text) || md5('x' || i.postback_id) FROM intents i;
    INSERT INTO hops (attempt_id, intent_at, started_at, body_length, number, status_code, reused, truncated, first_byte_ms,
        total_ms, method, url, request_head, request_body, addresses, peer, local, tls_version, response_head, body, body_sha256)
    SELECT i.attempt_id, i.intent_at, i.intent_at, 512, 1, 200, true, false, 40.25, 45.5, 'GET', i.url,
        convert_to('GET ' || i.url || E' HTTP/1.1\r\nHost: push.example.com\r\nAccept: */*\r\nUser-Agent: Holdfire/1\r\n', 'UTF8'),
        '', '203.0.113.7', '203.0.113.7:443', '10.0.0.2:' || (40000 + i.attempt_id % 20000), 'TLSv1.3',
        convert_to(E'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: nginx\r\nX-Request-Id: ' || md5(i.attempt_id::text)
            || E'\r\nCache-Control: no-store\r\nSet-Cookie: s=' || md5('c' || i.attempt_id) || E'\r\n', 'UTF8'),
        convert_to(repeat(md5('b' || i.attempt_id), 8) || repeat('{"status":"ok"}', 17), 'UTF8'), sha256(i.url::bytea)
    FROM intents i"""


def keeping(engines: Engines, rounds: int, scale: float) -> None:
    """200,000 attempts of an old month: archived, read, searched; then intake with and without tombstones."""
    configure_logging("console", "WARNING")
    holdfire = Holdfire()
    holdfire.prepare(engines.database_url, engines.broker_url)
    with TemporaryDirectory() as folder:
        _archiving(holdfire.engine, Path(folder), int(ATTEMPTS * scale))
    _letting_in(holdfire.engine, rounds)
    holdfire.stop()


def _archiving(engine: Engine, folder: Path, n: int) -> None:
    destinations.apply(engine, {"push-eu": contract("push-eu")}, who="bench")
    make_month(engine, MONTH)
    with engine.begin() as connection:
        version = connection.execute(text("SELECT max(id) FROM destination_versions")).scalar_one()
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(_LOAD), {"n": n, "version": version, "month": MONTH})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
        query = text(
            "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhrelid::regclass::text LIKE '%2025_03'"
        )
        before = int(connection.execute(query).scalar_one())
    own = time.process_time()
    done = retain(engine, POLICY, folder)
    own = time.process_time() - own
    size = sum(path.stat().st_size for path in folder.iterdir())
    rss = psutil.Process().memory_info().rss / 1e6
    print(f"{n:,} attempts archived, read back and dropped in {done.took_s:.1f} s: {n / done.took_s:,.0f}/s "
          f"({own:.1f} s of CPU in this process); "
          f"{before / 1e6:,.0f} MB of tables are {size / 1e6:,.0f} MB of files, {before / size:.1f} times smaller; "
          f"{rss:.0f} MB of memory")  # fmt: skip
    assert [entry.key for entry in read_ledger(engine).entries if not entry.balances] == []
    times = [_ms(lambda number=number: read_life(engine, number)) for number in _some(n, 300)]  # type: ignore[misc]  # mypy takes no default for a lambda
    print(f"a life of an archived attempt: {_shares(times)}")
    started = time.perf_counter()
    found = archive_search.find_in_archives(engine, Criteria(text="X-Request-Id: c4ca4238"))
    took = time.perf_counter() - started
    print(
        f"find --archived looks through {n:,} attempts in {took:.1f} s: {n / took:,.0f}/s, {len(found.postbacks)} found"
    )


def _letting_in(engine: Engine, rounds: int) -> None:
    """Messages of 500 events in turn: as it is with nothing erased, with the question left out, and with tombstones."""
    taken: dict[str, list[float]] = {
        "without the question": [],
        "nothing was ever erased": [],
        "tombstones stand": [],
    }
    known = Destinations(engine)
    asked = tombstones.ANY
    for name in ("without the question", "nothing was ever erased") * (20 * rounds):
        tombstones.ANY = "false" if name == "without the question" else asked
        taken[name].append(_message_ms(engine, known))
    tombstones.ANY = asked
    seal(engine, Order("order", "order-1", "bench", "bench"))
    for _ in range(20 * rounds):
        taken["tombstones stand"].append(_message_ms(engine, known))
    for name, times in taken.items():
        print(f"intake of {MAX_EVENTS_PER_MESSAGE} events, {name}: {_shares(times)}")


def _message_ms(engine: Engine, known: Destinations) -> float:
    now = datetime.now(UTC)
    events = [
        {
            "version": 1, "type": "conversion", "event_id": f"b:{secrets.token_hex(8)}", "source": "shop", "name": "other",
            "occurred_at": now.isoformat(), "order_id": secrets.token_hex(6), "click_ids": {"push": secrets.token_hex(24)},
        }
        for _ in range(MAX_EVENTS_PER_MESSAGE)
    ]  # fmt: skip
    return _ms(lambda: take_message(engine, known, secrets.token_hex(8), events, now))


def _some(n: int, count: int) -> list[int]:
    return [secrets.randbelow(n) + 1 for _ in range(count)]


def _ms(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) * 1000


def _shares(times: list[float]) -> str:
    cuts = statistics.quantiles(times, n=100)
    return f"median {statistics.median(times):.1f} ms, best {min(times):.1f} ms, p99 {cuts[98]:.1f} ms"
