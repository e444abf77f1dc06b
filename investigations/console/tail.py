"""The live tail of one process: one look at the database a beat, shared by everybody who watches, and bounded memory."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from infra.store.console import tailing
from infra.store.console.tailing import TailedAttempt
from schemas.verdict import VerdictKind

log = structlog.get_logger()

BEAT_S = 1.0
KEPT = 1_000
"""Attempts in mind, however many come."""
MOST_WATCHERS = 64
HEARTBEAT_S = 10.0
"""Who watches hears something at least so often, so that a connection that is gone is noticed."""
REST_S = 30.0
"""After the last look that somebody asked for, the database is left alone."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which attempts to see; everything given must hold."""

    destination: str | None = None
    verdict: VerdictKind | None = None

    def takes(self, attempt: TailedAttempt) -> bool:
        return self.destination in (None, attempt.destination) and self.verdict in (None, attempt.verdict)


@dataclass(frozen=True, slots=True)
class Batch:
    """What is new for one watcher. ``left_out``: there was more than is kept in mind."""

    attempts: list[TailedAttempt]
    left_out: bool
    place: int


class Tail:
    """Used on one event loop. It looks only while somebody watches."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._kept: deque[tuple[int, TailedAttempt]] = deque(maxlen=KEPT)
        self._place = 0
        self._gap_at = 0
        """The place up to which something was left out."""
        self._floor: int | None = None
        self._seen: set[int] = set()
        self._looked_at = 0.0
        self._lock = asyncio.Lock()
        self._watchers = 0
        self._ending = False

    @property
    def has_room(self) -> bool:
        return self._watchers < MOST_WATCHERS and not self._ending

    def end(self) -> None:
        """Let everybody go; may be called from another thread or a signal's handler."""
        self._ending = True

    async def newest(self, wanted: Wanted, count: int) -> tuple[list[TailedAttempt], int]:
        """The newest that match, oldest first, and the place to watch on from. Raises what the database raises."""
        await self._look()
        found = [attempt for _, attempt in self._kept if wanted.takes(attempt)]
        return found[-count:], self._place

    async def watch(self, wanted: Wanted, place: int | None) -> AsyncIterator[Batch]:
        """What is new from ``place`` on, beat by beat, until this ends. A database that is away is waited for."""
        here = self._place if place is None or place > self._place else place
        said_at = time.monotonic()
        self._watchers += 1
        try:
            while not self._ending:
                try:
                    await self._look()
                except SQLAlchemyError as error:
                    log.warning("tail.blind", kind=type(error).__name__)
                new = [attempt for at, attempt in self._kept if at > here and wanted.takes(attempt)]
                oldest = self._kept[0][0] if self._kept else self._place + 1
                left_out = here < self._gap_at or (here + 1 < oldest and here < self._place)
                here = self._place
                if new or left_out or time.monotonic() - said_at >= HEARTBEAT_S:
                    said_at = time.monotonic()
                    yield Batch(new, left_out, here)
                await asyncio.sleep(BEAT_S)
        finally:
            self._watchers -= 1

    async def _look(self) -> None:
        """Look at the database, unless somebody just did."""
        async with self._lock:
            now = time.monotonic()
            if now - self._looked_at < BEAT_S * 0.9:
                return
            if now - self._looked_at > REST_S:
                self._floor = None
            await run_in_threadpool(self._look_once)
            self._looked_at = time.monotonic()

    def _look_once(self) -> None:
        if self._floor is None:
            self._floor = tailing.beginning(self._engine)
            self._gap_at = self._place
        found = tailing.look(self._engine, self._floor, self._seen)
        for attempt in found.attempts:
            if attempt.id in self._seen:
                continue
            self._place += 1
            self._kept.append((self._place, attempt))
            self._seen.add(attempt.id)
        if found.left_out:
            self._gap_at = self._place - len(found.attempts)
        self._floor = found.floor
        self._seen = {each for each in self._seen if each > found.floor}
