"""The intake peer: one `delay()` an event, one INSERT an event in the task, on the same tuned Celery settings.

The producer keeps its connection, and the worker keeps its own to the database, as in the tuned recipe.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from celery import Celery
from celery.signals import worker_process_init, worker_ready
from psycopg2.extras import Json

from tests.benchmarks.peers import celery_tuning, ground, processes

_QUEUE = "peer.intake"
_DATABASE = "PEER_DATABASE_URL"
_BROKER = "PEER_BROKER_URL"
_INSERT = (
    "INSERT INTO conversions (source, event_id, name, occurred_at, order_id, value, currency, click_ids)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (source, event_id) DO NOTHING"
)

app = Celery("delay_insert", broker=os.environ.get(_BROKER), set_as_current=False)
app.conf.update(celery_tuning.SETTINGS, task_default_queue=_QUEUE)


class _Process:
    """What one pool process keeps between tasks."""

    cursor: Any


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _open(**_: object) -> None:
    _Process.cursor = ground.connect(os.environ[_DATABASE]).cursor()


@worker_ready.connect  # type: ignore[untyped-decorator]
def _ready(**_: object) -> None:
    processes.say_ready()


@app.task(name="peer.take")
def take(event: dict[str, Any]) -> None:
    """Store one conversion event once."""
    _Process.cursor.execute(
        _INSERT,
        (
            event["source"],
            event["event_id"],
            event["name"],
            event["occurred_at"],
            event["order_id"],
            event["value"],
            event["currency"],
            Json(event["click_ids"]),
        ),
    )


class DelayInsert:
    """One producer and one Celery worker with a prefork pool of two processes."""

    name = "one delay() and one INSERT per event"

    def __init__(self) -> None:
        self._children: list[processes.Child] = []

    @staticmethod
    def events(n: int, label: str) -> list[dict[str, object]]:
        """Conversion events of envelope version 1, none alike; `label` keeps batches apart."""
        occurred_at = datetime.now(UTC).isoformat()
        return [
            {
                "version": 1,
                "type": "conversion",
                "event_id": f"shopify:order:{label}:{number}",
                "source": "shop",
                "name": "purchase",
                "occurred_at": occurred_at,
                "order_id": str(number),
                "value": "49.90",
                "currency": "EUR",
                "click_ids": {"xandr": f"nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE.{number}"},
                "clicked_at": None,
                "partner_id": None,
                "sequence": None,
                "params": {"other": "vip"},
            }
            for number in range(n)
        ]

    def prepare(self, database_url: str, broker_url: str) -> None:
        """Empty the conversions table and the queue."""
        self._database_url, self._broker_url = database_url, broker_url
        ground.lay(database_url)
        celery_tuning.empty_queue(broker_url, _QUEUE)
        app.conf.broker_url = broker_url

    def enqueue(self, events: Sequence[Mapping[str, object]]) -> None:
        """Publish one task an event."""
        for event in events:
            take.delay(event)

    def start(self) -> list[processes.Child]:
        """Start the worker and wait until it consumes."""
        environment = {_DATABASE: self._database_url, _BROKER: self._broker_url}
        self._children = [celery_tuning.start_worker(__name__, _QUEUE, environment)]
        return self._children

    def wait_done(self, rows: int, timeout_s: float) -> None:
        """Wait until that many events are committed since `prepare`."""
        ground.wait_for_rows(self._database_url, "conversions", rows, timeout_s)

    def stop(self) -> None:
        """End the worker and drop the tables."""
        for child in self._children:
            child.stop()
        self._children = []
        ground.clear(self._database_url)
