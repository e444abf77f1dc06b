"""The only wiring: what a worker process is made of, and the Celery app that drives it."""

from __future__ import annotations

import threading
from functools import cached_property

from celery import Celery
from sqlalchemy import Engine

from infra import broker
from infra.clock import DatabaseClock
from infra.db.engine import open_engine
from infra.store.destinations import Destinations
from infra.store.firing import database_now
from infra.store.intake import commit_message
from workers import tasks, undecodable
from workers.firing import Firing
from workers.rendering import Renderer

LEASE_S = 15.0
"""How long a claim lasts. A working process renews its own well before; a dead one's postbacks are taken back
this long after its last sign of life."""


class Runtime:
    """One process's parts, each made when first needed and then kept."""

    def __init__(self, database_url: str, *, lease_s: float = LEASE_S) -> None:
        self.database_url = database_url
        self.lease_s = lease_s
        self._lock = threading.RLock()
        self._started = False

    @cached_property
    def engine(self) -> Engine:
        return open_engine(self.database_url)

    @cached_property
    def destinations(self) -> Destinations:
        return Destinations(self.engine)

    @cached_property
    def renderer(self) -> Renderer:
        return Renderer(self.destinations)

    @cached_property
    def clock(self) -> DatabaseClock:
        clock = DatabaseClock()
        clock.observe(database_now(self.engine))
        return clock

    @property
    def firing(self) -> Firing:
        with self._lock:
            self._started = True
            return self._firing

    @cached_property
    def _firing(self) -> Firing:
        return Firing(self.engine, self.renderer, lease_s=self.lease_s)

    def close(self) -> None:
        """Let what is on the wire end and be settled, then give the connections back."""
        with self._lock:
            if self._started:
                self._firing.close()
        self.engine.dispose()


def create_app(database_url: str, broker_url: str, *, lease_s: float = LEASE_S) -> tuple[Celery, Runtime]:
    """A Celery app with Holdfire's tasks, and the runtime they work on."""
    app = broker.celery_app(broker_url)
    runtime = Runtime(database_url, lease_s=lease_s)
    tasks.register(app, runtime)
    undecodable.install(app, lambda name, refused: commit_message(runtime.engine, name, [], [refused], []))
    # kombu's own reader revives typed objects: an event's params may hold just such keys, and stay what they are.
    broker.read_plain_json()
    return app, runtime
