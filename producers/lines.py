"""Open lines to the broker: made on demand, kept open, lent to one thread at a time."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery

from infra.broker import ANSWER_TIMEOUT_S, EVENTS, BrokerAwayError, broker_errors, depth, open_line
from producers.message import Sendable, task_call

_KEPT_OPEN: Final = 4
"""Idle lines kept. More threads than this may send at once; their lines are closed when they are done."""


@dataclass(frozen=True, slots=True)
class _Line:
    connection: Any
    """A kombu Connection, and a Producer on a channel of it; kombu's own types are too thin to check against."""
    producer: Any

    def close(self, *, goodbye: bool = True) -> None:
        # It is closed because it failed or is not needed; that closing fails too is no news.
        with suppress(BrokerAwayError), broker_errors("unused"):
            if not goodbye:
                self.connection.collect()
            self.connection.release()


class Lines:
    """The lines of one process to one broker. Thread-safe; a forked child makes its own (see Holdfire)."""

    def __init__(self, app: Celery) -> None:
        """Connects to nothing yet."""
        self._app = app
        self._lock = threading.Lock()
        self._idle: list[_Line] = []

    def send(self, message: Sendable) -> None:
        """Give one message to the broker; returns once it has taken it. One try; raises BrokerAwayError."""
        line = self._take() or self._open()
        try:
            with broker_errors(line.connection.as_uri()):
                body, headers, properties = task_call(self._app, message)
                line.producer.publish(
                    body,
                    exchange="",
                    routing_key=EVENTS,
                    content_type="application/json",
                    content_encoding="utf-8",
                    delivery_mode=2,
                    headers=headers,
                    # RabbitMQ would confirm and drop a message whose queue was deleted since it was declared.
                    mandatory=True,
                    confirm_timeout=ANSWER_TIMEOUT_S,
                    **properties,
                )
        except BaseException:
            # Half an exchange may be on this line, and those that idle have likely seen the same end. A RabbitMQ that is
            # out of memory reads no goodbye, and waiting for its answer would be added to the caller's deadline.
            line.close(goodbye=False)
            self._close_idle(goodbye=False)
            raise
        self._give_back(line)

    def queued(self) -> int:
        """How many messages wait for intake. Raises BrokerAwayError."""
        return depth(self._app, EVENTS)

    def close(self) -> None:
        """Close the idle lines. More are opened if more is sent."""
        self._close_idle(goodbye=True)

    def _close_idle(self, *, goodbye: bool) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for line in idle:
            line.close(goodbye=goodbye)

    def _take(self) -> _Line | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _give_back(self, line: _Line) -> None:
        with self._lock:
            if len(self._idle) < _KEPT_OPEN:
                self._idle.append(line)
                return
        line.close()

    def _open(self) -> _Line:
        connection = open_line(self._app)
        try:
            with broker_errors(connection.as_uri()):
                channel = connection.channel()
                self._app.amqp.queues[EVENTS].bind(channel).declare()
                return _Line(connection, self._app.amqp.Producer(channel, auto_declare=False))
        except BaseException:
            _Line(connection, producer=None).close()
            raise
