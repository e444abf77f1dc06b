"""Group commit: requests that come while one group is being committed make up the next, each answered by its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog
from sqlalchemy import Engine

from infra.erasure_key import ErasureKeyError
from infra.store import inbox
from infra.store.transactions import is_away
from producers.door.metrics import Metrics
from producers.door.problems import RefusedError, unavailable
from producers.door.sending import Sender
from schemas.arrival import Arrival, Receipt

log = structlog.get_logger()

GROUP_MAX = 200
"""Requests in one transaction."""
GROUP_MAX_BYTES = 4_000_000
WAITING_MAX = 2_000
"""Requests that may wait for their group; beyond, the database is behind and the sender is told so."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    arrival: Arrival
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Receipt]


class Committer:
    """Commits what arrives: one thread, one transaction at a time, as many requests in each as have come."""

    def __init__(self, engine: Engine, sender: Sender, metrics: Metrics | None = None) -> None:
        self._engine = engine
        self._sender = sender
        self._metrics = metrics or Metrics()
        self._waiting: deque[_Waiting] = deque()
        self._some = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="committing", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many requests wait for their group."""
        return len(self._waiting)

    async def commit(self, arrival: Arrival) -> Receipt:
        """Returns once the request is committed. Raises RefusedError (503) when it cannot be now."""
        if len(self._waiting) >= WAITING_MAX or self._closing:
            raise unavailable("too many requests wait to be committed. Send it again later")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Receipt] = loop.create_future()
        self._waiting.append(_Waiting(arrival, loop, answer))
        self._some.set()
        return await answer

    def close(self) -> None:
        """Commit what waits, and stop."""
        self._closing = True
        self._some.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while not self._closing or self._waiting:
            self._some.wait()
            self._some.clear()
            while self._waiting:
                self._finish(self._next_group())

    def _finish(self, group: list[_Waiting]) -> None:
        """Commit and answer a group. The one thread that commits must outlive what nobody foresaw."""
        try:
            self._commit(group)
        except Exception as error:
            log.error("group.not_finished", count=len(group), error=f"{type(error).__name__}: {error}")
            # Those that were answered keep their answer.
            refused = unavailable("it is not known whether this was taken. Send it again: it counts once")
            with suppress(RuntimeError):  # their loop has ended, and nobody waits any more
                _answer(group, [refused] * len(group))

    def _next_group(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        size = 0
        while self._waiting and len(group) < GROUP_MAX and size < GROUP_MAX_BYTES:
            group.append(self._waiting.popleft())
            size += len(group[-1].arrival.body)
        return group

    def _commit(self, group: list[_Waiting]) -> None:
        started = time.perf_counter()
        try:
            committed = inbox.commit(self._engine, [each.arrival for each in group])
        except Exception as error:
            self._commit_apart(group, error)
            return
        # Answered first: what is committed is kept, and reaches the queue in any case.
        _answer(group, committed.receipts)
        self._sender.send(committed.messages)
        self._metrics.committed(committed.receipts, started)

    def _commit_apart(self, group: list[_Waiting], error: Exception) -> None:
        """One request that cannot be stored must not refuse the others; a database that is away refuses all."""
        if isinstance(error, ErasureKeyError):
            log.error("requests.not_committed", count=len(group), error=str(error))
            _answer(
                group,
                [unavailable("its erasure key is missing. Nothing was taken; send it again")] * len(group),
            )
        elif is_away(error):
            log.error("requests.not_committed", count=len(group), error=type(error).__name__)
            refused = unavailable("the database does not answer. Nothing was taken; send it again")
            _answer(group, [refused] * len(group))
        elif len(group) == 1:
            log.error(
                "request.not_committed", error=f"{type(error).__name__}: {getattr(error, 'orig', error)}"
            )
            _answer(group, [unavailable("it could not be stored. Nothing was taken; report it as a bug")])
        else:
            for each in group:
                self._commit([each])


def _answer(group: list[_Waiting], results: Sequence[Receipt | RefusedError]) -> None:
    """Wake the requests of a group, all of one loop, by one call."""
    group[0].loop.call_soon_threadsafe(_wake, group, results)


def _wake(group: list[_Waiting], results: Sequence[Receipt | RefusedError]) -> None:
    for each, result in zip(group, results, strict=True):
        if each.answer.done():  # its sender went away
            continue
        if isinstance(result, RefusedError):
            each.answer.set_exception(result)
        else:
            each.answer.set_result(result)
