"""Messages that Celery cannot make a task call of: kept as rejects, where Celery alone would log and drop them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import structlog
from celery import Celery

from infra.store.intake import Refused
from schemas.problem import Problem
from workers.consumer import LastingConsumer

log = structlog.get_logger()

GIVE_BACK_PAUSE_S = 1.0

Keep = Callable[[str, Refused], object]
"""Commits one refused message under its id. Raises when it could not."""

_REMEDY = "Send a Celery task call, protocol 2, as docs/events.md shows it"


class KeepingConsumer(LastingConsumer):
    """A Celery consumer that hands every message it cannot use to ``keep`` before it acknowledges it.

    A message that cannot be kept either, because the database is away, goes back to the broker.
    """

    keep: Keep

    def create_task_handler(self, *given: Any, **named: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*given, **named)

        def handle_or_keep(message: Any) -> None:
            try:
                handle(message)
            except (*self.connection_errors, *self.channel_errors):
                raise
            except Exception as error:
                # A JSON body of another shape ends Celery's worker, and then the next one that gets the message.
                self._keep(message, "no_task_call", f"is no task call ({error})")

        return handle_or_keep

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._keep(message, "undecodable", f"cannot be decoded ({exc})")

    def on_unknown_message(self, body: object, message: Any) -> None:
        self._keep(message, "no_task_call", "is no task call")

    def on_unknown_task(self, body: object, message: Any, exc: Exception) -> None:
        self._keep(message, "unknown_task", f"calls a task that is not ours ({exc})")

    def on_invalid_task(self, body: object, message: Any, exc: Exception) -> None:
        self._keep(message, "invalid_call", f"is no valid task call ({exc})")

    def _keep(self, message: Any, code: str, reason: str) -> None:
        name = str((message.properties or {}).get("correlation_id") or message.delivery_tag)
        log.error("message.refused", message_id=name, code=code, reason=reason)
        try:
            self.keep(name, Refused(_text(message.body), [Problem(code, "message", reason, _REMEDY)]))
        except Exception as error:
            log.error("message.not_kept", message_id=name, error=type(error).__name__)
            # It comes back at once, and a database that is away is not helped by haste.
            time.sleep(GIVE_BACK_PAUSE_S)
            message.requeue()
            return
        message.ack()


def install(app: Celery, keep: Keep) -> None:
    """Make the app's workers keep what they cannot use."""
    app.conf.worker_consumer = type("KeepingConsumer", (KeepingConsumer,), {"keep": staticmethod(keep)})


def _text(body: object) -> str:
    """The body as it came; bytes that are no UTF-8 are shown as escapes."""
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body).decode("utf-8", "backslashreplace")
    return str(body)
