"""Intake: a message of events is validated again and committed whole, once."""

from __future__ import annotations

from datetime import datetime

import structlog
from sqlalchemy import Engine

from infra.store import intake as store
from infra.store.destinations import Destinations
from infra.store.intake import IntakeResult, Refused, Taken
from schemas.event import MAX_EVENTS_PER_MESSAGE, read_event
from schemas.problem import InvalidInputError, Problem

log = structlog.get_logger()


def take_message(
    engine: Engine, destinations: Destinations, message_id: str, message: object, now: datetime
) -> IntakeResult:
    """Commit one queue message: a list of 1 to 500 events, each good or kept as a reject with its reason.

    Runs again without harm: what is already committed counts as a duplicate and changes nothing.
    """
    taken, refused = sort_out(message, now)
    result = store.commit_message(engine, message_id, taken, refused, destinations.current())
    log.info(
        "message.committed",
        message_id=message_id,
        conversions=result.conversions,
        signals=result.signals,
        duplicates=result.duplicates,
        rejected=result.rejected,
        postbacks=result.postbacks,
        voided=result.voided,
    )
    return result


def sort_out(message: object, now: datetime) -> tuple[list[Taken], list[Refused]]:
    """Split a message into what can be taken and what cannot, keeping both verbatim."""
    if not isinstance(message, list):
        return [], [Refused(message, [_malformed(f"is {type(message).__name__}, not a list of events")])]
    taken, refused = [], []
    for raw in message:
        try:
            taken.append(Taken(read_event(raw, now), raw))
        except InvalidInputError as error:
            refused.append(Refused(raw, error.problems))
    return taken, refused


def _malformed(reason: str) -> Problem:
    return Problem("malformed", "message", reason, f"Send one list of 1 to {MAX_EVENTS_PER_MESSAGE} events")
