"""Rescuing: take back what a dead or lost worker held, within seconds of its lease's end."""

from __future__ import annotations

import random

import structlog
from sqlalchemy import Engine

from infra.store import firing, releasing
from schemas.ids import show
from schemas.postback import LostAttempt, SettledAttempt
from workers.firing import log_attempt
from workers.rendering import Renderer
from workers.settling import settle_lost

log = structlog.get_logger()


def rescue(engine: Engine, renderer: Renderer) -> int:
    """Return unfired leases to where they came from, and settle silent attempts as *outcome unknown*."""
    unfired = releasing.rescue_leased(engine)
    if unfired:
        log.warning("leases.rescued", count=unfired)

    def judge(lost: LostAttempt) -> SettledAttempt:
        return settle_lost(lost, renderer.contract(lost.version_id), random.random())  # noqa: S311 — jitter, not cryptography

    lost = firing.settle_lost(engine, judge)
    for attempt in lost:
        log.warning(
            "attempt.lost", attempt=show("at", attempt.attempt_id), worker=attempt.worker, state=attempt.state
        )
        log_attempt(attempt, attempt.state, stale=False)
    return unfired + len(lost)
