"""The tuned recipe: one Celery task a postback, as people run it today, with every usual setting put right.

One `httpx.Client` and one psycopg2 connection a process, both kept; one INSERT an attempt; late acknowledgement,
so that a postback is done once its row is committed and Redis has been told; retries left to Celery.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
from celery import Celery
from celery.signals import worker_process_init, worker_ready
from psycopg2.extras import Json

from tests.benchmarks.peers import celery_tuning, ground, processes

_QUEUE = "peer.fire"
_DATABASE = "PEER_DATABASE_URL"
_BROKER = "PEER_BROKER_URL"
_INSERT = (
    "INSERT INTO attempts (postback_id, url, status_code, headers, body, started_at, ended_at, error)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
)

app = Celery("tuned", broker=os.environ.get(_BROKER), set_as_current=False)
app.conf.update(celery_tuning.SETTINGS, task_default_queue=_QUEUE)


class ServerError(Exception):
    """The network answered 5xx or 429: worth another try."""


class _Process:
    """What one pool process keeps between tasks."""

    http: httpx.Client
    cursor: Any


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _open(**_: object) -> None:
    _Process.http = httpx.Client(
        timeout=httpx.Timeout(10, connect=3),
        limits=httpx.Limits(max_connections=10, max_keepalive_connections=10, keepalive_expiry=60),
        trust_env=False,
    )
    _Process.cursor = ground.connect(os.environ[_DATABASE]).cursor()


@worker_ready.connect  # type: ignore[untyped-decorator]
def _ready(**_: object) -> None:
    processes.say_ready()


@app.task(
    name="peer.fire",
    autoretry_for=(httpx.HTTPError, ServerError),
    retry_backoff=True,
    retry_backoff_max=600,
    retry_jitter=True,
    max_retries=10,
)
def fire(postback_id: int, url: str) -> None:
    """Send one postback and log the attempt, whatever came of it."""
    started_at = datetime.now(UTC)
    try:
        answer = _Process.http.get(url)
    except httpx.HTTPError as error:
        ended_at = datetime.now(UTC)
        _Process.cursor.execute(
            _INSERT, (postback_id, url, None, None, None, started_at, ended_at, repr(error))
        )
        raise
    ended_at = datetime.now(UTC)
    row = (postback_id, url, answer.status_code, Json(dict(answer.headers)), answer.text)
    _Process.cursor.execute(_INSERT, (*row, started_at, ended_at, None))
    if answer.status_code >= 500 or answer.status_code == 429:
        raise ServerError(answer.status_code)


class TunedCelery:
    """The recipe on one Celery worker with a prefork pool of two processes."""

    name = "tuned Celery"

    def __init__(self) -> None:
        self._children: list[processes.Child] = []

    def prepare(self, database_url: str, broker_url: str, urls: Sequence[str] = ()) -> None:
        """Empty the log table and the queue, and enqueue a postback for each URL."""
        self._database_url, self._broker_url = database_url, broker_url
        ground.lay(database_url)
        celery_tuning.empty_queue(broker_url, _QUEUE)
        app.conf.broker_url = broker_url
        self.enqueue(urls)

    def enqueue(self, urls: Sequence[str]) -> None:
        """Publish one task a URL."""
        for postback_id, url in enumerate(urls, start=1):
            fire.delay(postback_id, url)

    def start(self) -> list[processes.Child]:
        """Start the worker and wait until it consumes."""
        environment = {_DATABASE: self._database_url, _BROKER: self._broker_url}
        self._children = [celery_tuning.start_worker(__name__, _QUEUE, environment)]
        return self._children

    def wait_done(self, rows: int, timeout_s: float) -> None:
        """Wait until that many attempts are committed since `prepare`."""
        ground.wait_for_rows(self._database_url, "attempts", rows, timeout_s)

    def stop(self) -> None:
        """End the worker and drop the tables."""
        for child in self._children:
            child.stop()
        self._children = []
        ground.clear(self._database_url)
