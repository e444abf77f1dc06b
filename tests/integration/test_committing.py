"""The one thread that commits for a whole door: whatever happens behind an answer, the next request gets one too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from sqlalchemy import Engine

from infra.broker import celery_app
from producers.door.committing import Committer
from producers.door.metrics import Metrics
from producers.door.sending import Sender
from producers.lines import Lines
from schemas.arrival import Arrival, Receipt
from tests.integration.door import NO_BROKER


class Breaking(Metrics):
    """Counts nothing, and fails at it."""

    def committed(self, receipts: Iterable[Receipt], started: float) -> None:
        raise ZeroDivisionError


def test_a_fault_behind_an_answer_does_not_end_the_thread_that_commits(engine: Engine) -> None:
    """Two requests one after the other are both committed and answered."""
    sender = Sender(engine, Lines(celery_app(NO_BROKER)))
    committer = Committer(engine, sender, Breaking())
    arrival = Arrival("events", "shop", "POST", "/v1/events", [], b"[]", None, [])

    async def twice() -> list[int]:
        async with asyncio.timeout(20):
            return [(await committer.commit(arrival)).request_id for _ in range(2)]

    try:
        first, second = asyncio.run(twice())
        assert second > first
    finally:
        committer.close()
        sender.close()
