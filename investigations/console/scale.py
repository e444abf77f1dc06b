"""A time axis on which a fortnight and three seconds are both legible. Pure.

No linear or logarithmic axis shows a life that waits for two weeks, then fires and retries within a minute. Here every
stretch between two neighbouring instants is drawn by the logarithm of its length, and is labelled with it: the order and
the neighbourhood of everything are kept, the lengths are read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from math import log2

SHORTEST_S = 0.05
"""Stretches are drawn in doublings of this."""
_FLOOR = 0.35
"""What even the shortest stretch is drawn with, so that two marks are two."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What lies between two neighbouring instants, in units of the drawing and in time."""

    left: float
    right: float
    since: datetime
    until: datetime

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def middle(self) -> float:
        return (self.left + self.right) / 2


@dataclass(frozen=True, slots=True)
class Scale:
    """Places of instants between ``left`` and ``right``; ``instants`` are distinct and in order."""

    instants: tuple[datetime, ...]
    places: tuple[float, ...]

    def place(self, instant: datetime) -> float:
        """Where an instant stands; one between two others stands between them in proportion, one outside at the end."""
        at = bisect_left(self.instants, instant)
        if at == len(self.instants):
            return self.places[-1]
        if at == 0 or self.instants[at] == instant:
            return self.places[at]
        before, after = self.instants[at - 1], self.instants[at]
        share = (instant - before) / (after - before)
        return self.places[at - 1] + share * (self.places[at] - self.places[at - 1])

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        pairs = zip(pairwise(self.places), pairwise(self.instants), strict=True)
        return tuple(Stretch(left, right, since, until) for (left, right), (since, until) in pairs)


def scale(instants: Iterable[datetime], left: float, right: float) -> Scale:
    """The axis on which all of ``instants`` are placed. Raises ``ValueError`` when there are none."""
    distinct = tuple(sorted(set(instants)))
    if not distinct:
        raise ValueError("an axis needs an instant")
    weights = [_weight((after - before).total_seconds()) for before, after in pairwise(distinct)]
    unit = (right - left) / sum(weights) if weights else 0.0
    places = [left]
    for weight in weights:
        places.append(places[-1] + weight * unit)
    return Scale(distinct, tuple(places))


def _weight(seconds: float) -> float:
    return _FLOOR + log2(1 + seconds / SHORTEST_S)
