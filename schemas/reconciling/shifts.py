"""Offsets and ratios that explain most differences at once: found from histograms, so that a million pairs cost no memory."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal

STEP_S = 900
"""Offsets of time zones are whole quarters of an hour."""
_STEPS_A_DAY = 86_400 // STEP_S
FARTHEST_STEPS = 14 * 3600 // STEP_S + 12 * 3600 // STEP_S
"""From UTC-12 to UTC+14: no two clocks on earth are farther apart."""
OFFSETS = sorted(
    range(-FARTHEST_STEPS, FARTHEST_STEPS + 1), key=lambda step: (step % 4 != 0, step % 2 != 0, abs(step))
)
"""In the order in which they are believed: whole hours first, then halves and quarters, the smallest first."""
MOST = 0.8
"""Share of what differs that one cause must explain to be the report's."""
FEWEST = 5
"""Differences from which on there is anything to explain at once."""


def shift_of_days(gaps: Mapping[int, int], differing: int) -> timedelta | None:
    """The constant offset of the network's clock that puts most pairs of a report of *days* on the same day.

    ``gaps`` counts pairs by how many quarters of an hour lie from our instant, in the zone assumed, to the midnight at
    which their day begins, rounded up. ``differing`` of them are on another day now. None if no offset explains
    most of these without breaking others; of several the likeliest.
    """
    if differing < FEWEST:
        return None
    total = sum(gaps.values())
    best, best_same = 0, total - differing
    for step in OFFSETS:
        # Under an offset of ``step`` our instant is on their day when midnight <= instant + step < midnight + a day.
        same = sum(count for gap, count in gaps.items() if gap <= step < gap + _STEPS_A_DAY)
        if same > best_same:
            best, best_same = step, same
    if best == 0 or best_same - (total - differing) < MOST * differing:
        return None
    return timedelta(seconds=best * STEP_S)


def shift_of_instants(gaps: Mapping[int, int], differing: int) -> timedelta | None:
    """The same of a report with instants: ``gaps`` counts pairs by their instant less ours, in quarters, rounded.

    The offset must be that of most pairs, not just of those whose day it changes.
    """
    if differing < FEWEST or not gaps:
        return None
    step, count = max(gaps.items(), key=lambda item: (item[1], -abs(item[0])))
    if step == 0 or abs(step) > FARTHEST_STEPS or count < MOST * sum(gaps.values()):
        return None
    return timedelta(seconds=step * STEP_S)


def common_ratio(ratios: Mapping[Decimal, int], differing: int) -> Decimal | None:
    """The ratio of theirs to ours that most of the ``differing`` values share; ``ratios`` to three places, with counts."""
    if differing < FEWEST or not ratios:
        return None
    ratio, _ = max(ratios.items(), key=lambda item: item[1])
    step = Decimal("0.001")
    near = sum(count for each, count in ratios.items() if abs(each - ratio) <= step)
    return ratio if ratio != 1 and near >= MOST * differing else None
