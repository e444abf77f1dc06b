"""Celery's consumer, but one that outlives its broker."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import structlog
from celery.exceptions import CPendingDeprecationWarning
from celery.worker.consumer import Consumer

log = structlog.get_logger()

REFUSED_PAUSE_S = 1.0


class LastingConsumer(Consumer):  # type: ignore[misc]  # celery has no types
    """Reconnects also when the broker went while tasks were running, and makes no queues but Holdfire's.

    kombu forgets the transport of a connection that is gone, and stumbles over that with an AttributeError when it
    then closes a channel with unacknowledged messages, or when a task that ended meanwhile acknowledges its own.
    Celery 5.7 takes the error for the end of the worker. Either way the message comes again.
    """

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc]  # celery has no types
        """Celery's, but for the 28 quorum queues that would hold tasks with an ETA: here nothing has one."""

        default_steps = [  # noqa: RUF012 — celery's own attribute
            step for step in Consumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        ]

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """What is left of the connection is dropped."""
        if isinstance(exc, self.channel_errors):
            # The broker is there and refuses: a queue that was declared otherwise is not helped by haste.
            time.sleep(REFUSED_PAUSE_S)
        with warnings.catch_warnings():
            # Celery advertises a setting that cancels tasks on every lost connection, and overrides any filter.
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            try:
                super().on_connection_error_after_connected(exc)
            except AttributeError as error:
                log.warning("broker.line_gone", reason=str(error))

    def create_task_handler(self, *given: Any, **named: Any) -> Callable[[Any], None]:
        """Messages are acknowledged when their task has ended, which may be on a connection that is gone by then."""
        handle: Callable[[Any], None] = super().create_task_handler(*given, **named)

        def handle_with_lasting_answers(message: Any) -> None:
            message.ack_log_error = _lasting(message.ack)
            message.reject_log_error = _lasting(message.reject)
            handle(message)

        return handle_with_lasting_answers


def _lasting(answer: Callable[..., None]) -> Callable[..., None]:
    """In place of kombu's: one line for a connection that is gone, where kombu logs a traceback as critical."""

    def answer_unless_gone(_logger: object, errors: tuple[Any, ...], *rest: Any, **named: Any) -> None:
        gone: tuple[type[Exception], ...] = (*errors, AttributeError)
        try:
            answer(*rest, **named)
        except gone as error:
            log.warning("broker.line_gone", reason=str(error))

    return answer_unless_gone
