"""Relaying: what was committed to the outbox and never reached intake goes into the queue again."""

from __future__ import annotations

import orjson
import structlog
from celery import Celery
from sqlalchemy import Engine

from infra import broker
from infra.store import outbox

log = structlog.get_logger()

PER_PASS = 50


def relay(engine: Engine, app: Celery) -> int:
    """Give overdue messages to the queue again, oldest first. Returns how many. A broker that is away raises.

    Intake takes a message twice without harm, so that neither a full queue nor a lost answer needs looking into.
    """
    messages = outbox.overdue(engine, limit=PER_PASS)
    for place, message in enumerate(messages):
        try:
            app.send_task(
                broker.INTAKE_TASK,
                args=[orjson.loads(message.json)],
                task_id=message.message_id,
                confirm_timeout=broker.ANSWER_TIMEOUT_S,
            )
        except Exception:
            outbox.hold_back(engine, messages[place:])
            raise
    if messages:
        log.info("outbox.relayed", count=len(messages))
    return len(messages)
