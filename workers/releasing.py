"""Releasing: claim what is due and hint the firing workers. A lost hint costs a lease's length, never a postback."""

from __future__ import annotations

from collections.abc import Callable

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
        leases = store.claim(
            engine, limit=min(PER_CLAIM, room * PER_LEASE), lease_s=lease_s, per_lease=PER_LEASE
        )
        for lease in leases:
            hint(lease)
        claimed = sum(len(lease.postback_ids) for lease in leases)
        released += claimed
        if claimed < PER_CLAIM:
            break
        room = HINTS_WAITING_MAX - hints_waiting()
    if released:
        log.info("postbacks.released", count=released)
    return released
