"""What a dead destination costs a healthy one beside it: 200,000 due there, and how late the healthy one's are fired."""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from sqlalchemy import Engine, text

from infra.catalogue import load_catalogue
from infra.embedded import Engines
from infra.store import destinations
from infra.store.stopping.stopping import pause, resume
from schemas.destination import Contract, Destination
from tests.benchmarks.holdfire import CONCURRENCY, Holdfire
from tests.benchmarks.holding import _count, _hold, _running
from tests.benchmarks.peers.drive import urls_at
from tests.benchmarks.peers.target import Target

PER_S = 200
SECONDS = 20
BACKLOG = 200_000
WITHIN_S = 120.0

Scene = Literal["alone", "breaker", "no breaker", "paused", "resumed"]
SCENES: dict[Scene, str] = {
    "alone": "nothing else due",
    "breaker": "beside a network that does not answer",
    "no breaker": "the same without a breaker",
    "paused": "beside a paused one",
    "resumed": "beside one that was paused and goes on, at a network that answers",
}


def stopping(engines: Engines, rounds: int, scale: float) -> None:
    """200 a second are due at a healthy destination, in five scenes."""
    for _ in range(rounds):
        for scene in SCENES:
            with _running(engines) as (holdfire, target), _silent_network() as silent:
                _measure(holdfire, target, silent, scene, int(BACKLOG * scale))


def _measure(holdfire: Holdfire, target: Target, silent: str, scene: Scene, backlog: int) -> None:
    engine = holdfire.engine
    if scene != "alone":
        breaker = {} if scene != "no breaker" else {"breaker": False}
        _backlog(engine, target.url if scene == "resumed" else silent, backlog, **breaker)
    if scene in {"paused", "resumed"}:
        pause(engine, "other", "benchmark", "to measure")
    n, before = PER_S * SECONDS, _count(engine)
    holdfire.enqueue(urls_at(target.url, n))
    due = f"now() + interval '4 seconds' + (id - {before + 1}) * interval '1 second' / {PER_S}"
    _hold(engine, due, f"id > {before}")
    holdfire.start()
    if scene == "resumed":
        _wait(engine, "SELECT count(*) FROM postbacks WHERE parked", min(backlog, 50_000))
        resume(engine, "other", "benchmark")
    delivered = f"SELECT count(*) FROM attempts WHERE postback_id > {before} AND verdict = 'delivered'"
    _wait(engine, delivered, n)
    late = _lateness(engine, before)
    cuts = statistics.quantiles(late, n=100)
    spent = _one(engine, f"SELECT count(*) FROM intents WHERE postback_id <= {before}")
    parked = _one(engine, "SELECT count(*) FROM postbacks WHERE parked")
    print(f"{SCENES[scene]}: late by p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s, most {max(late):.2f} s; "
          f"of the other's {backlog if scene != 'alone' else 0:,} {spent:,} attempted, {parked:,} parked", flush=True)  # fmt: skip
    holdfire.stop()


@contextmanager
def _silent_network() -> Iterator[str]:
    """Takes a few connections and never says a word; further ones are not even taken."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def _backlog(engine: Engine, url: str, count: int, **policy: Any) -> None:
    """A destination of its own with ``count`` postbacks that were due within the last hour."""
    destination = Destination.model_validate(
        {
            "network": "xandr",
            "events": ["never"],
            "settings": {"id": "25619", "url": f"{url}/s2s/conversion"},
            "limits": {"concurrency": CONCURRENCY},
            "allow_private": True,
            "allow_http": True,
            **policy,
        }
    )
    contract = Contract(name="other", destination=destination, network=load_catalogue()["xandr"])
    destinations.apply(engine, {"other": contract}, who="benchmark")
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(
            text("""
            WITH made AS (
                INSERT INTO conversions (source, event_id, name, order_id, click_ids, occurred_at, value, net_value,
                    currency, routed, event)
                SELECT 'bench', 'other' || n, 'purchase', 'other' || n, '{}', now() - interval '1 h', 49.90, 49.90, 'EUR', 1,
                    json_build_object('version', 1, 'type', 'conversion', 'event_id', 'other' || n, 'source', 'bench',
                        'name', 'purchase', 'occurred_at', now() - interval '1 h', 'order_id', 'other' || n,
                        'value', '49.90', 'currency', 'EUR',
                        'click_ids', json_build_object('xandr', md5(n::text) || md5((n + 1)::text)))
                FROM generate_series(1, :n) n RETURNING id)
            INSERT INTO postbacks (conversion_id, version_id, state, release_at, due_at)
            SELECT id, (SELECT max(id) FROM destination_versions), 'held', at, at
            FROM (SELECT id, now() - random() * interval '1 hour' AS at FROM made) AS held"""),
            {"n": count},
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE postbacks"))


def _wait(engine: Engine, query: str, count: int) -> None:
    end = time.monotonic() + WITHIN_S
    while _one(engine, query) < count:
        if time.monotonic() > end:
            raise TimeoutError(f"{query}: not {count} within {WITHIN_S:.0f} s")
        time.sleep(0.2)


def _one(engine: Engine, query: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(query)).scalar_one())


def _lateness(engine: Engine, before: int) -> list[float]:
    """Of each healthy one: how long after its due instant its first attempt began."""
    query = text("""
        SELECT extract(epoch FROM i.intent_at - p.release_at)::float
        FROM intents i JOIN postbacks p ON p.id = i.postback_id WHERE p.id > :before AND i.number = 1""")
    with engine.connect() as connection:
        return [float(late) for late in connection.execute(query, {"before": before}).scalars()]
