"""What holding costs: a burst due at one instant, a release pass and signals over a full table, lateness, memory."""

from __future__ import annotations

import secrets
import statistics
import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, text

from infra.embedded import Engines
from infra.logging import configure_logging
from infra.store import releasing
from infra.store.destinations import Destinations
from schemas.event import MAX_EVENTS_PER_MESSAGE
from tests.benchmarks.holdfire import Holdfire
from tests.benchmarks.peers.drive import urls_at
from tests.benchmarks.peers.processes import peak_rss_mb
from tests.benchmarks.peers.target import Target
from workers.intake import take_message

LATE_PER_S = 300
LATE_SECONDS = 20
FULL = 1_000_000
NEARLY_EMPTY = 10_000


def burst(engines: Engines, rounds: int, scale: float) -> None:
    """20,000 postbacks due at one instant: how long until all are settled, and in which order."""
    n = int(20_000 * scale)
    for _ in range(rounds):
        with _running(engines) as (holdfire, target):
            holdfire.enqueue(urls_at(target.url, n))
            _hold(holdfire.engine, "now() + interval '3 seconds'")
            holdfire.start()
            holdfire.wait_done(n, 120)
            seconds, overtaken = _burst_figures(holdfire.engine)
            print(f"{n:,} due at one instant: all settled {seconds:.2f} s later; "
                  f"none was overtaken by more than {overtaken:.2f} s")  # fmt: skip
            holdfire.stop()


def passes(engines: Engines, rounds: int, scale: float) -> None:
    """A claim of 400 due postbacks with 10,000 and with 1,000,000 held, in turn."""
    with _running(engines) as (holdfire, target):
        holdfire.enqueue(urls_at(target.url, 1))
        taken: dict[int, list[float]] = {}
        for held in (NEARLY_EMPTY, int(FULL * scale)):
            _fill(holdfire.engine, held)
            taken[held] = [_claim_ms(holdfire.engine) for _ in range(20 * rounds)]
            print(f"{held:,} held: a claim of 400 takes {statistics.median(taken[held]):.2f} ms "
                  f"(quartiles {' to '.join(f'{q:.2f}' for q in statistics.quantiles(taken[held])[::2])})")  # fmt: skip
        few, many = (statistics.median(times) for times in taken.values())
        print(f"ratio {many / few:.2f}")


def signals(engines: Engines, rounds: int, scale: float) -> None:
    """Signals in messages of 500 with 10,000 and with 1,000,000 held: refunds that void, and partial ones."""
    configure_logging("console", "WARNING")
    with _running(engines) as (holdfire, target):
        holdfire.enqueue(urls_at(target.url, 1))
        each = int(10_000 * scale)
        for kind, amount in (("full refunds", None), ("partial refunds", "1.00")):
            found: dict[int, list[float]] = {}
            for held in (NEARLY_EMPTY + each, int(FULL * scale) + each):
                _fill(holdfire.engine, held)
                found[held] = [_signals_per_s(holdfire.engine, each, amount) for _ in range(rounds)]
                print(f"{held:,} held: {statistics.median(found[held]):,.0f} {kind} a second "
                      f"({min(found[held]):,.0f} to {max(found[held]):,.0f})")  # fmt: skip
            few, many = (statistics.median(rates) for rates in found.values())
            print(f"{kind}: ratio {few / many:.2f}")


def _signals_per_s(engine: Engine, count: int, amount: str | None) -> float:
    """Take in as many signals as given, each about another held postback, and let the table be as it was."""
    with engine.connect() as connection:
        orders = list(
            connection.execute(
                text("""
                SELECT c.order_id FROM conversions c JOIN postbacks p ON p.conversion_id = c.id
                WHERE p.state = 'held' ORDER BY random() LIMIT :n"""),
                {"n": count},
            ).scalars()
        )
    label = secrets.token_hex(4)
    given = {} if amount is None else {"amount": amount, "currency": "EUR"}
    events = [
        {"version": 1, "type": "refund", "event_id": f"{label}:{order}", "source": "bench", "order_id": order,
         "occurred_at": datetime.now(UTC).isoformat(), **given}
        for order in orders
    ]  # fmt: skip
    applied = Destinations(engine)
    started = time.perf_counter()
    for start in range(0, count, MAX_EVENTS_PER_MESSAGE):
        message = events[start : start + MAX_EVENTS_PER_MESSAGE]
        taken = take_message(engine, applied, f"{label}:{start}", message, datetime.now(UTC))
        assert taken.signals == len(message)
    seconds = time.perf_counter() - started
    with engine.begin() as connection:
        moved = connection.execute(
            text("""
            UPDATE postbacks p SET state = 'held', void_reason = NULL, due_at = release_at, settled_at = NULL
            WHERE state = 'voided'""")
        ).rowcount
        assert moved == (count if amount is None else 0)
        connection.execute(
            text("UPDATE conversions SET outcomes = '{}', net_value = value WHERE outcomes <> '{}'")
        )
        connection.execute(text("DELETE FROM signals"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE postbacks, conversions, signals"))
    return count / seconds


def lateness(engines: Engines, rounds: int, scale: float) -> None:
    """300 postbacks due every second while a million others are held: how long after its due instant each is fired."""
    for _ in range(rounds):
        with _running(engines) as (holdfire, target):
            _fill(holdfire.engine, int(FULL * scale), since=target.url)
            n = LATE_PER_S * LATE_SECONDS
            before = _count(holdfire.engine)
            holdfire.enqueue(urls_at(target.url, n))
            _hold(
                holdfire.engine,
                f"now() + interval '5 seconds' + (id - {before + 1}) * interval '1 second' / {LATE_PER_S}",
                f"id > {before}",
            )
            holdfire.start()
            holdfire.wait_done(n, 120)
            late = _lateness_s(holdfire.engine)
            cuts = statistics.quantiles(late, n=100)
            print(f"{LATE_PER_S}/s due with {before:,} held: late by p50 {cuts[49]:.3f} s, p99 {cuts[98]:.3f} s, "
                  f"max {max(late):.3f} s; peak memory of a worker {peak_rss_mb(holdfire.worker_pids()):.0f} MB")  # fmt: skip
            holdfire.stop()


class _running:  # noqa: N801 — reads as a clause in a with statement
    """A target and a prepared Holdfire, both ended whatever happens."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self._holdfire = Holdfire()

    def __enter__(self) -> tuple[Holdfire, Target]:
        self._target = Target()
        self._holdfire.prepare(self._engines.database_url, self._engines.broker_url)
        return self._holdfire, self._target

    def __exit__(self, *_: object) -> None:
        self._holdfire.stop()
        self._target.stop()


def _hold(engine: Engine, until: str, which: str = "true") -> None:
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE postbacks SET release_at = {until}, due_at = {until} WHERE {which}"))


def _fill(engine: Engine, held: int, since: str = "http://127.0.0.1:9/sspx") -> None:
    """Hold ``held`` postbacks whose windows end over the coming month."""
    if not _versions(engine):
        Holdfire.aim(_Bound(engine), f"{since}/sspx")  # type: ignore[arg-type]
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        label = secrets.token_hex(4)
        connection.execute(
            text("""
            WITH made AS (
                INSERT INTO conversions (source, event_id, name, order_id, click_ids, occurred_at, value, net_value,
                    currency, routed, event)
                SELECT 'bench', :label || n, 'purchase', :label || n, '{}', now(), 49.90, 49.90, 'EUR', 1,
                    json_build_object('version', 1, 'type', 'conversion', 'event_id', :label || n, 'source', 'bench',
                        'name', 'purchase', 'occurred_at', now(), 'order_id', n::text)
                FROM generate_series(1, :n) n RETURNING id)
            INSERT INTO postbacks (conversion_id, version_id, state, release_at, due_at)
            SELECT id, (SELECT max(id) FROM destination_versions), 'held', at, at
            FROM (SELECT id, now() + interval '1 day' + random() * interval '30 days' AS at FROM made) AS held"""),
            {"n": held - _count(engine), "label": label},
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE postbacks"))


class _Bound:
    hold = {"kind": "none"}  # noqa: RUF012 — a stand-in read once

    def __init__(self, engine: Engine) -> None:
        self.engine = engine


def _claim_ms(engine: Engine) -> float:
    with engine.begin() as connection:
        connection.execute(
            text("""UPDATE postbacks SET due_at = now() - interval '1 second' * random()
                    WHERE id IN (SELECT id FROM postbacks WHERE state = 'held' ORDER BY id LIMIT 400)""")
        )
    started = time.perf_counter()
    claimed = releasing.claim_all(engine, limit=400, lease_s=15, per_lease=200)
    taken = (time.perf_counter() - started) * 1000
    assert sum(len(lease.postback_ids) for lease in claimed.leases) == 400
    with engine.begin() as connection:
        connection.execute(
            text("""UPDATE postbacks SET state = 'held', due_at = release_at, lease_token = NULL
                    WHERE state = 'leased'""")
        )
    return taken


def _count(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT coalesce(max(id), 0) FROM postbacks")).scalar_one())


def _versions(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM destination_versions")).scalar_one())


def _burst_figures(engine: Engine) -> tuple[float, float]:
    """Seconds from the due instant to the last settlement, and the longest by which a later one came before."""
    with engine.connect() as connection:
        row = connection.execute(
            text("""
            SELECT extract(epoch FROM max(a.ended_at) - min(p.release_at))::float AS seconds,
                extract(epoch FROM max(a.intent_at - earliest))::float AS overtaken
            FROM (SELECT a.*, min(intent_at) OVER (ORDER BY postback_id ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)
                    AS earliest FROM attempts a) a JOIN postbacks p ON p.id = a.postback_id""")
        ).one()
        return row.seconds, row.overtaken


def _lateness_s(engine: Engine) -> list[float]:
    with engine.connect() as connection:
        found = connection.execute(
            text("""
            SELECT extract(epoch FROM a.intent_at - p.release_at)::float
            FROM attempts a JOIN postbacks p ON p.id = a.postback_id""")
        )
        return [timedelta(seconds=late).total_seconds() for late in found.scalars()]
