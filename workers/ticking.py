"""Celery's beat, but one that ends whenever it is told to, and says in one line that the broker is away."""

from __future__ import annotations

from typing import Any

import structlog
from celery.apps.beat import Beat
from celery.beat import Scheduler, SchedulingError, Service
from celery.platforms import signals

log = structlog.get_logger()


class Clock(Beat):  # type: ignore[misc]  # celery has no types
    """A beat whose signals ask it to end. Celery's raise SystemExit wherever the process happens to be, and where that
    is a finaliser or a library's catch-all, it is lost and the clock ticks on."""

    def install_sync_handler(self, service: Service) -> None:
        """End after the tick that is under way."""

        def stop(_signum: int, _frame: object) -> None:
            service._is_shutdown.set()

        signals.update(SIGTERM=stop, SIGINT=stop)


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
