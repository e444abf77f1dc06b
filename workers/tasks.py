"""Celery tasks: thin shims over the rooms' functions. Nothing here decides anything."""

from __future__ import annotations

import gc
import time
from datetime import timedelta
from typing import Any

import structlog
from celery import Celery, Task
from celery.exceptions import Reject

from infra import broker
from infra.settings import load_settings
from schemas.postback import Lease
from workers.housekeeping import Housekeeper
from workers.intake import take_message
from workers.pruning import make_room
from workers.relaying import relay
from workers.releasing import release_due
from workers.rerouting import route_again
from workers.rescuing import rescue
from workers.runtime import Runtime
from workers.tallying import keep_count

log = structlog.get_logger()

GIVE_BACK_PAUSE_S = 1.0
"""Before a message that cannot be committed now is taken up again: a database that is away is not helped by haste."""
RELEASE_EVERY = timedelta(milliseconds=250)
RESCUE_EVERY = timedelta(seconds=1)
TALLY_EVERY = timedelta(seconds=10)
PRUNE_EVERY = timedelta(hours=1)


def register(app: Celery, runtime: Runtime) -> None:
    """Put Holdfire's tasks on the app, and the clock's schedule."""
    gauge = broker.Gauge(app)
    housekeeper = Housekeeper(runtime.engine, load_settings().data_dir)

    @app.task(name=broker.INTAKE_TASK, bind=True)
    def intake(self: Task[Any, Any], *arguments: object, **named: object) -> None:
        # Whatever the call looks like, it is taken: what is not one list of events is kept as a reject.
        message = arguments[0] if len(arguments) == 1 and not named else {"args": arguments, "kwargs": named}
        message_id = self.request.id or "unnamed"
        try:
            with runtime.taking_in:
                take_message(runtime.engine, runtime.destinations, message_id, message, runtime.now())
                # A message leaves reference cycles: few objects, which the collector counts, and many bytes.
                gc.collect()
        except Exception as error:
            # Celery acknowledges what fails. The only copy of these events is in our hands: it goes back.
            log.error("message.given_back", message_id=message_id, error=type(error).__name__)
            time.sleep(GIVE_BACK_PAUSE_S)
            raise Reject(error, requeue=True) from error

    @app.task(name=broker.FIRE_TASK)
    def fire(token: int, version_id: int, postback_ids: list[int]) -> None:
        runtime.firing.fire(token, version_id, postback_ids)

    @app.task(name=broker.RELEASE_TASK)
    def release() -> None:
        release_due(
            runtime.engine,
            hints_waiting=lambda: gauge.depth(broker.FIRE),
            hint=lambda lease: hint(app, lease),
            lease_s=runtime.lease_s,
        )

    @app.task(name=broker.RESCUE_TASK)
    def rescue_silent() -> None:
        rescue(runtime.engine, runtime.renderer)
        route_again(runtime.engine, runtime.destinations)
        relay(runtime.engine, app)

    @app.task(name=broker.TALLY_TASK)
    def count() -> None:
        keep_count(runtime.engine)

    @app.task(name=broker.PRUNE_TASK)
    def prune() -> None:
        make_room(runtime.engine)
        housekeeper.tick()

    # A tick that nobody took in time is worthless: the next one says the same.
    app.conf.beat_schedule = {
        name: {
            "task": task,
            "schedule": every,
            "options": {
                "expires": max(2.0, every.total_seconds()),
                "confirm_timeout": broker.ANSWER_TIMEOUT_S,
            },
        }
        for name, task, every in (
            ("release", broker.RELEASE_TASK, RELEASE_EVERY),
            ("rescue", broker.RESCUE_TASK, RESCUE_EVERY),
            ("tally", broker.TALLY_TASK, TALLY_EVERY),
            ("prune", broker.PRUNE_TASK, PRUNE_EVERY),
        )
    }


def hint(app: Celery, lease: Lease) -> None:
    """Tell the firing workers of a lease."""
    app.send_task(
        broker.FIRE_TASK,
        args=[lease.token, lease.version_id, list(lease.postback_ids)],
        confirm_timeout=broker.ANSWER_TIMEOUT_S,
    )
