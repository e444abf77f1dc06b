"""Rerouting: clicks that came after their conversion, held against those that still want one."""

from __future__ import annotations

import structlog
from sqlalchemy import Engine

from infra.store import rerouting as store
from infra.store.destinations import Destinations

log = structlog.get_logger()

PASSES_MAX = 20
"""In one tick; the next one goes on."""


def route_again(engine: Engine, destinations: Destinations) -> int:
    """Hold waiting clicks against earlier conversions. Returns how many postbacks that made."""
    postbacks = 0
    for _ in range(PASSES_MAX):
        result = store.route_again(engine, destinations)
        postbacks += result.postbacks
        if result.conversions:
            log.info(
                "clicks.matched_late",
                clicks=result.clicks,
                conversions=result.conversions,
                postbacks=result.postbacks,
                voided=result.voided,
            )
        if result.clicks < store.PER_PASS:
            break
    return postbacks
