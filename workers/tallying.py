"""Keeping the counts that the overview shows: attempts by the minute, postbacks by state."""

from __future__ import annotations

import time

from sqlalchemy import Engine

from infra.store.tallying import count_states, tally

WITHIN_S = 3.0
"""A pass that finds much to count leaves the rest to the next one."""


def keep_count(engine: Engine, *, within_s: float = WITHIN_S) -> int:
    """Count what has ended since the last pass. Returns past how many ids of attempts the count has moved."""
    deadline = time.monotonic() + within_s
    moved = 0
    while True:
        done = tally(engine)
        moved += done.ids
        if not done.more or time.monotonic() >= deadline:
            break
    count_states(engine)
    return moved
