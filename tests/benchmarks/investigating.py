"""Searching in 10 million attempts of 3 million conversions: how long each kind of search, page and overview takes.

HOLDFIRE_BENCH_KEEP names a folder in which the history is kept from run to run, so that only the first one makes it.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event, text

from infra.db.engine import open_engine
from infra.db.migrate import migrate
from infra.embedded import Engines, use_engines
from infra.store.evidence import read_life
from infra.store.overview import read_overview
from infra.store.searching.search import Criteria, Sort, search_page
from infra.store.selection import Selection, extent, next_stretch
from infra.store.tallying import BATCH, count_states, tally
from investigations.query import look_up, read_query
from tests.benchmarks import history
from tests.integration.console import OPERATOR, ConsoleThread, Visitor

CONVERSIONS = 3_000_000
KEEP = "HOLDFIRE_BENCH_KEEP"
EACH = 200
LARGE = ("conversions", "postbacks", "intents", "attempts", "hops")
# Kinds of searches with the bound that each is held to, in milliseconds at the 99th percentile.
POINT_MS, PAGE_MS, LIFE_MS, OVERVIEW_MS, BATCH_MS, COUNT_MS = 50, 300, 100, 300, 1_000, 10_000
ACTED_ON = ("state:dead", "state:dead error:timeout", "state:dead value:200..300", 'state:dead text:"try again"',
            "state:rejected status:4xx")  # fmt: skip

Measured = Callable[[], Any]


def investigating(engines: Engines, rounds: int, scale: float) -> None:
    """Load, unless it was kept, then measure every kind with other arguments each time, and read the plans."""
    size = history.Size(int(CONVERSIONS * scale))
    kept = os.environ.get(KEEP)
    if kept is None:
        _investigate(engines.database_url, size, rounds)
        return
    with use_engines(Path(kept), linger_s=0) as own:
        _investigate(own.database_url, size, rounds)


def _investigate(database_url: str, size: history.Size, rounds: int) -> None:
    engine = open_engine(database_url)
    migrate(engine)
    if not _count(engine, "SELECT id FROM conversions ORDER BY id DESC LIMIT 1"):
        history.load(engine, size, lambda words: print(f"loaded {words}", flush=True))
    print(_extent(engine), flush=True)
    _count_up(engine)
    with ConsoleThread(engine) as console:
        browser = console.signed_in(OPERATOR)
        for seed in range(rounds):
            _round(engine, browser, random.Random(seed))  # the same searches at every run
    engine.dispose()


def _round(engine: Engine, browser: Visitor, draw: random.Random) -> None:
    """Every kind, each time about something else; the slowest is in nobody's cache."""
    print(f"\n{'kind':54} {'n':>4} {'p50':>8} {'p95':>8} {'p99':>8}  bound", flush=True)
    late = []
    for name, (bound_ms, each) in _kinds(engine, browser, draw).items():
        whole = partly = 0
        times = []
        for measured in each:
            started = time.perf_counter()
            result = measured()
            times.append((time.perf_counter() - started) * 1000)
            if hasattr(result, "complete"):
                whole, partly = whole + result.complete, partly + (not result.complete)
        with _plans(engine) as read:
            for measured in each[:3]:
                measured()
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        note = f"  {partly} of {whole + partly} ran out of time" if partly else ""
        print(
            f"{name:54} {len(times):4} {cuts[49]:8.1f} {cuts[94]:8.1f} {cuts[98]:8.1f}  {bound_ms}{note}",
            flush=True,
        )
        assert not read, f"{name} reads a large table whole: {read}"
        if cuts[98] > bound_ms:
            late.append(name)
    print(f"above their bound: {', '.join(late) or 'none'}", flush=True)


def _kinds(engine: Engine, browser: Visitor, draw: random.Random) -> dict[str, tuple[int, list[Measured]]]:
    ids = draw.sample(range(1, _count(engine, "SELECT max(id) FROM conversions")), EACH)
    query = "SELECT id, order_id, event_id, click_ids[1] AS token, customer_id FROM conversions WHERE id = ANY(:ids)"
    with engine.connect() as connection:
        some = connection.execute(text(query), {"ids": ids}).all()
    draw.shuffle(some)  # type: ignore[arg-type]
    now = datetime.now(UTC)
    page = lambda **asked: lambda: search_page(engine, Criteria(**asked))  # noqa: E731 — many of one shape
    typed = lambda words, **how: lambda: search_page(engine, read_query(words, now).search, **how)  # noqa: E731

    def day() -> str:
        at = now - timedelta(days=draw.randrange(2, history.DAYS - 1))
        return f"received:{at:%Y-%m-%d}"

    def looked_up(words: str) -> Measured:
        return lambda: look_up(engine, read_query(words, now))

    def visited(path: str) -> Measured:
        return lambda: browser.get(path).raise_for_status()

    def second(words: str, **how: Any) -> Measured:
        after = search_page(engine, read_query(words, now).search, **how).next
        return lambda: search_page(engine, read_query(words, now).search, after=after, **how)

    filtered = {
        "everything, newest": "", "state:dead": "state:dead", "state:in_doubt": "state:in_doubt",
        "state:held": "state:held", "state:delivered": "state:delivered",
        "state:retrying,firing": "state:retrying,firing", "destination, common": "destination:alpha-eu",
        "destination, 1 in 1,000": "destination:eta-seldom",
        "destination and state": "destination:zeta-app state:rejected", "network and state": "network:generic state:expired",
        "source, common": "source:app", "source, 1 in 100,000": "source:import-2019", "status:5xx": "status:5xx",
        "status:404": "status:404", "status:302, followed": "status:302", "status:2xx": "status:2xx",
        "verdict:rejected": "verdict:rejected", "verdict:unknown": "verdict:unknown", "error:timeout": "error:timeout",
        "error and state": "error:timeout state:dead", "value, common": "value:10..50", "value, rare": "value:>1500",
        "value and state": "value:200..300 state:dead", "since:2h": "since:2h", "lost:yes": "lost:yes",
        "matched:no state:delivered": "matched:no state:delivered",
        "text, common": 'text:"try again"', "text in a state": 'text:"try again" state:dead',
        "text, nowhere": 'text:"no such words"',
    }  # fmt: skip
    few = EACH // 5
    last = _count(engine, "SELECT max(id) FROM postbacks")

    def next_batch(words: str) -> Measured:
        selection, after = Selection(read_query(words, now).search), draw.randrange(last)

        def come_by() -> Any:
            with engine.connect() as connection:
                return next_stretch(connection, selection, after, last, 1_000)

        return come_by

    kinds: dict[str, tuple[int, list[Measured]]] = {
        "order id": (POINT_MS, [page(order_id=row.order_id) for row in some]),
        "click id": (POINT_MS, [page(click_id=row.token) for row in some]),
        "event id": (POINT_MS, [page(event_id=row.event_id) for row in some]),
        "bare word, looked up": (POINT_MS, [looked_up(word) for row in some for word in draw.sample([row.order_id, row.token, row.event_id, row.customer_id], 1)]),
        "an id that is nowhere": (POINT_MS, [page(named=f"none-{row.id}") for row in some]),
        "text that is a click id": (PAGE_MS, [page(text=row.token) for row in some[:few]]),
        "conversion, all of its life": (LIFE_MS, [lambda row=row: read_life(engine, row.id) for row in some]),
        **{f"{name}": (PAGE_MS, [typed(words)] * few) for name, words in filtered.items()},
        "a day": (PAGE_MS, [typed(day()) for _ in range(EACH)]),
        "a day and state": (PAGE_MS, [typed(f"{day()} state:dead") for _ in range(EACH)]),
        "a day and status": (PAGE_MS, [typed(f"{day()} status:404") for _ in range(EACH)]),
        "a day, a destination and a value": (PAGE_MS, [typed(f"{day()} destination:gamma-push value:>200") for _ in range(EACH)]),
        "by value": (PAGE_MS, [typed("", sort=Sort.VALUE)] * few),
        "by value, state:dead": (PAGE_MS, [typed("state:dead", sort=Sort.VALUE)] * few),
        "by due instant": (PAGE_MS, [typed("", sort=Sort.DUE)] * few),
        "oldest first, destination": (PAGE_MS, [typed("destination:beta-us", sort=Sort.OLDEST)] * few),
        "the page after, state:dead": (PAGE_MS, [second("state:dead")] * few),
        "the page after, by value": (PAGE_MS, [second("", sort=Sort.VALUE)] * few),
        "conversion page, over HTTP": (LIFE_MS, [visited(f"/conversions/cv_{row.id}") for row in some]),
        "search page by order, over HTTP": (PAGE_MS, [visited(f"/search?q=order:{row.order_id}") for row in some]),
        "search page, state:dead, over HTTP": (PAGE_MS, [visited("/search?q=state:dead")] * few),
        "overview page, over HTTP": (OVERVIEW_MS, [visited("/")] * few),
        "overview of 24 hours": (OVERVIEW_MS, [lambda: read_overview(engine)] * few),
        "overview of 31 days": (OVERVIEW_MS, [lambda: read_overview(engine, hours=744)] * few),
        **{f"to act on, the next 1,000: {words}": (BATCH_MS, [next_batch(words) for _ in range(few)]) for words in ACTED_ON},
        **{f"to act on, all counted: {words}": (COUNT_MS, [lambda words=words: extent(engine, Selection(read_query(words, now).search))] * 3)
           for words in ACTED_ON},
    }  # fmt: skip
    return kinds


@contextmanager
def _plans(engine: Engine) -> Iterator[set[str]]:
    """Sequential scans of large tables, of each statement's first plan."""
    seen: set[int] = set()
    found: set[str] = set()

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        if hash(statement) in seen or not statement.lstrip().upper().startswith(("SELECT", "WITH")):
            return
        seen.add(hash(statement))
        with cursor.connection.cursor() as beside:
            beside.execute(f"EXPLAIN {statement}", parameters)
            lines = [line for (line,) in beside.fetchall()]
        # A month without rows has no index that would be cheaper than nothing.
        found.update(
            line.strip()
            for line in lines
            if "Seq Scan on" in line
            and any(f" {name}" in line for name in LARGE)
            and "rows=1 " not in line
            and not _empty(line)
        )

    event.listen(engine, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", explain)


def _empty(line: str) -> bool:
    """Partitions of months to come, and of none."""
    months = {f"{datetime.now(UTC) + timedelta(days=31 * ahead):%Y_%m}" for ahead in (1, 2)}
    return "_rest" in line or any(month in line for month in months)


def _count_up(engine: Engine) -> None:
    """As the clock does, until the overview's tallies have everything."""
    started = time.monotonic()
    counted = passes = 0
    while True:
        done = tally(engine)
        counted, passes = counted + done.ids, passes + 1
        if passes > 3 and not done.ids:
            break
    seconds = time.monotonic() - started
    if counted:
        print(
            f"tallied {counted:,} attempts in {seconds:.0f} s, {BATCH * seconds / counted:.2f} s for {BATCH:,}"
        )
    started = time.monotonic()
    count_states(engine, every_s=0)
    print(f"counted the states of all postbacks in {time.monotonic() - started:.2f} s", flush=True)


def _extent(engine: Engine) -> str:
    query = """SELECT (SELECT count(*) FROM conversions) AS conversions, (SELECT count(*) FROM postbacks) AS postbacks,
        (SELECT count(*) FROM attempts) AS attempts, (SELECT count(*) FROM hops) AS hops,
        pg_database_size(current_database()) / 1e9 AS gb"""
    with engine.connect() as connection:
        connection.execute(text("SET statement_timeout = 0"))
        row = connection.execute(text(query)).one()
        return (f"{row.conversions:,} conversions, {row.postbacks:,} postbacks, {row.attempts:,} attempts, {row.hops:,} hops, "
                f"{row.gb:.1f} GB")  # fmt: skip


def _count(engine: Engine, query: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(query)).scalar() or 0)
