"""A destination's rate limit: how many may go now, and when the others should come back. GCRA, as arithmetic.

The state is two instants. ``next_at`` is when the next one is owed by the rate; up to ``BURST_S`` of it may be
drawn ahead, since release passes come a few times a second. ``tail_at`` is the end of those told to come back, so
that a long queue is spread out once, in order, instead of all asking again at the same moment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

BURST_S = 0.25


@dataclass(frozen=True, slots=True)
class Pace:
    """What is remembered of a destination between two batches."""

    next_at: datetime
    tail_at: datetime


@dataclass(frozen=True, slots=True)
class Admission:
    """``admitted`` may go now; of the rest, the k-th comes back after ``delay_s + k * spacing_s`` seconds."""

    admitted: int
    delay_s: float
    spacing_s: float
    pace: Pace


def admit(pace: Pace, wanted: int, per_second: float, now: datetime) -> Admission:
    """Admit as many of ``wanted`` as the rate allows at ``now``: over any span of t seconds at most
    ``per_second * (t + BURST_S)`` and one, whoever asks and however often."""
    # Rounded up to the clock's microsecond, so that rounding can only slow down.
    spacing = timedelta(microseconds=math.ceil(1e6 / per_second))
    start = max(pace.next_at, now)
    ahead = now + timedelta(seconds=BURST_S) - start
    admitted = min(wanted, max(0, int(ahead / spacing) + 1)) if ahead >= timedelta(0) else 0
    next_at = start + admitted * spacing
    rest = wanted - admitted
    if not rest:
        return Admission(admitted, 0.0, 0.0, Pace(next_at, pace.tail_at))
    first = max(next_at, pace.tail_at, now)
    return Admission(
        admitted,
        (first - now).total_seconds(),
        spacing.total_seconds(),
        Pace(next_at, first + rest * spacing),
    )
