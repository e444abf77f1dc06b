"""Celery's consumer, but one that outlives its broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from celery.worker.consumer import Consumer

log = structlog.get_logger()


class LastingConsumer(Consumer):  # type: ignore[misc]  # celery has no types
    """Reconnects also when the broker went while tasks were running.

    kombu forgets the transport of a connection that is gone, and stumbles over that with an AttributeError when it
    then closes a channel with unacknowledged messages, or when a task that ended meanwhile acknowledges its own.
    Celery 5.7 takes the error for the end of the worker. Either way the message comes again when its time is up.
    """

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """What is left of the connection is dropped."""
        _unless_gone(super().on_connection_error_after_connected, exc)

    def create_task_handler(self, *given: Any, **named: Any) -> Callable[[Any], None]:
        """Messages are acknowledged when their task has ended, which may be on a connection that is gone by then."""
        handle: Callable[[Any], None] = super().create_task_handler(*given, **named)

        def handle_with_lasting_answers(message: Any) -> None:
            for name in ("ack_log_error", "reject_log_error"):
                setattr(message, name, _lasting(getattr(message, name)))
            handle(message)

        return handle_with_lasting_answers


def _lasting(answer: Callable[..., None]) -> Callable[..., None]:
    return lambda *given, **named: _unless_gone(answer, *given, **named)


def _unless_gone(call: Callable[..., None], *given: Any, **named: Any) -> None:
    try:
        call(*given, **named)
    except AttributeError as error:
        log.warning("broker.line_gone", reason=str(error))
