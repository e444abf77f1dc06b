"""What a worker process is made of: one engine, one set of destinations, one firing, each made once."""

from __future__ import annotations

import threading
from datetime import datetime

from infra.clock import DatabaseClock
from infra.db.engine import open_engine
from infra.store.destinations import Destinations
from infra.store.firing import database_now
from workers.firing import Firing
from workers.rendering import Renderer

LEASE_S = 15.0
"""How long a claim lasts. A working process renews its own well before; a dead one's postbacks are taken back
this long after its last sign of life."""

CLOCK_KEPT_S = 60.0
"""Clocks drift apart, and a machine that slept has counted nothing: after this the database is asked again."""


class Runtime:
    """One process's parts. Nothing connects, and nothing is started, before it is needed."""

    def __init__(self, database_url: str, *, lease_s: float = LEASE_S) -> None:
        self.lease_s = lease_s
        self._lock = threading.Lock()
        self._firing: Firing | None = None
        self.taking_in = threading.Lock()
        """Held while a message is taken in. Side by side they would only share the interpreter, each with its message
        in memory several times over."""
        self.clock = DatabaseClock()
        self.engine = open_engine(database_url)
        self.destinations = Destinations(self.engine)
        self.renderer = Renderer(self.destinations)

    def now(self) -> datetime:
        """The database's clock."""
        if self.clock.age_s > CLOCK_KEPT_S:
            self.clock.observe(database_now(self.engine))
        return self.clock.now()

    @property
    def firing(self) -> Firing:
        with self._lock:
            if self._firing is None:
                self._firing = Firing(self.engine, self.renderer, lease_s=self.lease_s)
            return self._firing

    def close(self) -> None:
        """Let what is on the wire end and be settled, then give the connections back."""
        with self._lock:
            if self._firing is not None:
                self._firing.close()
        self.engine.dispose()
