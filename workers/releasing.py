"""Releasing: claim what is due and hint the firing workers. A lost hint costs a lease's length, never a postback."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy import Engine

from infra.store import releasing as store
from schemas.postback import Lease

log = structlog.get_logger()

PER_LEASE = 200
"""Postbacks in one fire hint: large enough that a message costs little, small enough to be fired in a second."""
PER_CLAIM = 800
HINTS_WAITING_MAX = 12
"""Fire hints that may wait in the queue. What is claimed beyond what can be fired soon only grows old under a lease."""
PATIENCE_S = 10.0
_PAUSE_S = 0.25


@dataclass(frozen=True, slots=True)
class Released:
    """What was released, and how many are due and could not be: enough hints wait already, and nobody takes them."""

    count: int
    left: int


def release_due(
    engine: Engine,
    *,
    hints_waiting: Callable[[], int],
    hint: Callable[[Lease], None],
    lease_s: float,
) -> int:
    """One release pass: claim and hint, oldest first, until nothing is due or enough hints wait. Returns how many.

    Any number of passes may run side by side. A hint that cannot be sent raises: its leases simply run out.
    """
    released = 0
    room = HINTS_WAITING_MAX - hints_waiting()
    while room > 0:
        claimed = store.claim_all(
            engine, limit=min(PER_CLAIM, room * PER_LEASE), lease_s=lease_s, per_lease=PER_LEASE
        )
        for lease in claimed.leases:
            hint(lease)
        released += sum(len(lease.postback_ids) for lease in claimed.leases)
        if not claimed.more:
            break
        room = HINTS_WAITING_MAX - hints_waiting()
    if released:
        log.info("postbacks.released", count=released)
    return released


def release_all(
    engine: Engine,
    *,
    hints_waiting: Callable[[], int],
    hint: Callable[[Lease], None],
    lease_s: float,
    patience_s: float = PATIENCE_S,
) -> Released:
    """Release passes until nothing is due any more, or none was possible for ``patience_s``.

    What its destination's limits defer meanwhile is due later, and not waited for.
    """
    released = 0
    moved_at = time.monotonic()
    while True:
        count = release_due(engine, hints_waiting=hints_waiting, hint=hint, lease_s=lease_s)
        released += count
        left = store.backlog(engine).due
        if count:
            moved_at = time.monotonic()
        if not left or time.monotonic() - moved_at >= patience_s:
            return Released(released, left)
        time.sleep(_PAUSE_S)
