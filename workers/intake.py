"""Intake: a message of events is validated again and committed whole, once."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime

import structlog
from sqlalchemy import Engine

from infra.erasure_key import ErasureKeyError
from infra.store import intake as store
from infra.store.destinations import Destinations
from infra.store.intake import IntakeResult, Refused, Taken
from infra.store.transactions import is_away
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
    try:
        result = store.commit_message(engine, message_id, taken, refused, destinations)
    except Exception as error:
        if is_away(error) or isinstance(error, ErasureKeyError):
            raise
        log.error("message.not_committed", message_id=message_id, error=_said(error))
        result = _one_by_one(engine, message_id, taken, refused, destinations)
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


def _one_by_one(
    engine: Engine,
    message_id: str,
    taken: list[Taken],
    refused: list[Refused],
    destinations: Destinations,
) -> IntakeResult:
    """Commit each event alone, since one of them makes the whole message fail: that one is kept as a reject."""
    results = []
    for item in taken:
        try:
            results.append(store.commit_message(engine, message_id, [item], [], destinations, whole=False))
        except Exception as error:
            if is_away(error):
                raise
            log.error(
                "event.not_committed", message_id=message_id, event_id=item.event.event_id, error=_said(error)
            )
            problem = Problem(
                "cannot_be_stored",
                "event",
                f"made its commit fail ({type(error).__name__})",
                "Report it as a bug",
            )
            refused = [*refused, Refused(item.raw, [problem])]
    results.append(store.commit_message(engine, message_id, [], refused, destinations))
    names = [field.name for field in fields(IntakeResult)]
    return IntakeResult(**{name: sum(getattr(result, name) for result in results) for name in names})


def _said(error: Exception) -> str:
    """Not the error's own text: SQLAlchemy's quotes every value of the statement."""
    return f"{type(error).__name__}: {getattr(error, 'orig', error)}"


def _malformed(reason: str) -> Problem:
    return Problem("malformed", "message", reason, f"Send one list of 1 to {MAX_EVENTS_PER_MESSAGE} events")
