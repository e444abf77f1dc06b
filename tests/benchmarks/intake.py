"""Holdfire's intake as a contestant: ``enqueue_many`` in this process, the real workers behind the queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from producers.client import Holdfire as Client
from tests.benchmarks.holdfire import Holdfire
from tests.benchmarks.peers import ground, processes
from tests.benchmarks.peers.delay_insert import DelayInsert


class HoldfireIntake:
    """Every event becomes a conversion and a held postback: routed, deduplicated, its window computed."""

    name = "Holdfire enqueue_many, routed and held"
    events = staticmethod(DelayInsert.events)

    def __init__(self) -> None:
        self._holdfire = Holdfire(hold={"kind": "refund", "wait": "14d"})

    def prepare(self, database_url: str, broker_url: str) -> None:
        self._database_url = database_url
        self._holdfire.prepare(database_url, broker_url)
        self._holdfire.aim("http://127.0.0.1:9/sspx")
        self._client = Client(broker_url)

    def enqueue(self, events: Sequence[Mapping[str, object]]) -> None:
        self._client.enqueue_many(events)

    def start(self) -> list[processes.Child]:
        return self._holdfire.start()

    def wait_done(self, rows: int, timeout_s: float) -> None:
        ground.wait_for_rows(self._database_url, "public.conversions", rows, timeout_s)

    def stop(self) -> None:
        self._client.close()
        self._holdfire.stop()
