"""Celery's scheduler, but one that says in one line that the broker is away, and in one that it is back."""

from __future__ import annotations

from typing import Any

import structlog
from celery.beat import Scheduler, SchedulingError

log = structlog.get_logger()


class Ticker(Scheduler):  # type: ignore[misc]  # celery has no types
    """Sends the ticks. One that could not be sent is not made up for: the next one says the same."""

    _away = False

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send one tick. Celery would log a traceback for each that fails, five in a second."""
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except SchedulingError as error:
            if not self._away:
                log.warning("ticks.not_sent", reason=str(error))
            self._away = True
            return
        if self._away:
            log.info("ticks.sent_again")
        self._away = False
