"""Celery's consumer, but one that outlives its broker."""

from __future__ import annotations

import structlog
from celery.worker.consumer import Consumer

log = structlog.get_logger()


class LastingConsumer(Consumer):  # type: ignore[misc]  # celery has no types
    """Reconnects also when the broker went while tasks were running.

    kombu then closes a channel that has unacknowledged messages and no transport any more, stumbles over the
    missing transport with an AttributeError, and Celery 5.7 takes that for the end of the worker.
    """

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """What is left of the connection is dropped either way: its messages come again when their time is up."""
        try:
            super().on_connection_error_after_connected(exc)
        except AttributeError as error:
            log.warning("broker.line_dropped", reason=str(error))
