"""Giving committed messages to the queue. What the broker does not take stays in the outbox, and is relayed."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence

import structlog
from sqlalchemy import Engine

from infra.broker import BrokerAwayError
from infra.store import outbox
from infra.store.outbox import Message
from infra.store.transactions import is_away
from producers.lines import Lines

log = structlog.get_logger()

QUEUE_MAX = 500
"""Messages that may wait for the broker in memory; the others wait in the outbox alone."""
RELAY_EVERY_S = 2.0
AWAY_PAUSE_S = 2.0


class Sender:
    """Sends messages to the queue in the background: one thread, in order, and nothing waits for it."""

    def __init__(self, engine: Engine, lines: Lines) -> None:
        self._engine = engine
        self._lines = lines
        self._queue: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._away_until = 0.0
        self._thread = threading.Thread(target=self._run, name="sending", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many messages wait in memory."""
        return self._queue.qsize()

    def send(self, messages: Sequence[Message]) -> None:
        """Send messages that stand in the outbox. Returns at once."""
        for message in messages:
            if self._queue.qsize() >= QUEUE_MAX:
                return
            self._queue.put(message)

    def close(self) -> None:
        """Send what waits, and stop."""
        self._queue.put(None)
        self._thread.join(timeout=10)
        self._lines.close()

    def _run(self) -> None:
        relayed_at = time.monotonic()
        while True:
            try:
                message = self._queue.get(timeout=RELAY_EVERY_S)
                if message is None:
                    return
                self._try(message)
            except queue.Empty:
                pass
            if time.monotonic() - relayed_at > RELAY_EVERY_S:
                self._relay()
                relayed_at = time.monotonic()

    def _try(self, message: Message) -> None:
        if time.monotonic() < self._away_until:
            return  # the outbox has it
        try:
            self._lines.send(message)
        except BrokerAwayError as error:
            self._away_until = time.monotonic() + AWAY_PAUSE_S
            log.warning("broker.away", error=str(error))

    def _relay(self) -> None:
        """Send again what intake has not taken in time. Workers do the same; each message is sent by one of them."""
        if time.monotonic() < self._away_until:
            return
        messages: list[Message] = []
        try:
            messages = outbox.overdue(self._engine)
            while messages:
                self._lines.send(messages[0])
                messages.pop(0)
        except BrokerAwayError as error:
            self._away_until = time.monotonic() + AWAY_PAUSE_S
            log.warning("broker.away", error=str(error))
            self._hold_back(messages)
        except Exception as error:
            if not is_away(error):
                raise
            log.warning("database.away", error=type(error).__name__)

    def _hold_back(self, messages: list[Message]) -> None:
        try:
            outbox.hold_back(self._engine, messages)
        except Exception as error:
            if not is_away(error):
                raise
            log.warning("database.away", error=type(error).__name__)
