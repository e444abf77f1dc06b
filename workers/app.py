"""The only wiring: the Celery app that drives a worker process's parts."""

from __future__ import annotations

from celery import Celery

from infra import broker
from infra.store.intake import commit_message
from workers import tasks, undecodable
from workers.runtime import LEASE_S, Runtime


def create_app(database_url: str, broker_url: str, *, lease_s: float = LEASE_S) -> tuple[Celery, Runtime]:
    """A Celery app with Holdfire's tasks, and the runtime they work on."""
    app = broker.celery_app(broker_url)
    runtime = Runtime(database_url, lease_s=lease_s)
    tasks.register(app, runtime)
    undecodable.install(
        app, lambda name, refused: commit_message(runtime.engine, name, [], [refused], runtime.destinations)
    )
    # kombu's own reader revives typed objects: an event's params may hold just such keys, and stay what they are.
    broker.read_plain_json()
    return app, runtime
