"""Judging reports of sums: how many conversions and how much a day, without saying which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal

from schemas.lifecycle import State
from schemas.money import plain
from schemas.reconciling.findings import Bucket, Cause, Finding, finding
from schemas.reconciling.pairs import smallest_unit
from schemas.reconciling.shifts import FEWEST, MOST, OFFSETS, STEP_S

_QUARTERS_A_DAY = 86_400 // STEP_S
_EPOCH = date(1970, 1, 1)

WAITING: dict[State, Cause] = {
    State.HELD: Cause.STILL_HELD,
    State.LEASED: Cause.IN_FLIGHT,
    State.FIRING: Cause.IN_FLIGHT,
    State.RETRYING: Cause.RETRYING,
    State.VOIDED: Cause.VOIDED,
    State.EXPIRED: Cause.EXPIRED,
    State.REJECTED: Cause.REJECTED,
    State.DEAD: Cause.DEAD,
    State.IN_DOUBT: Cause.IN_DOUBT,
    State.DUPLICATE: Cause.DUPLICATE_OF_OURS,
}
"""Why a conversion of a day was not delivered, by its state."""


@dataclass(frozen=True, slots=True)
class Sum:
    """So many conversions, and what they are worth; None where no value is said."""

    count: int = 0
    value: Decimal | None = None


@dataclass(frozen=True, slots=True)
class OurDay:
    """Our log's side of a day: what was delivered and stands, and by cause what else happened on it."""

    delivered: Sum = field(default_factory=Sum)
    others: Mapping[Cause, Sum] = field(default_factory=dict)
    shifted: int | None = None
    """How many would be delivered on it by the network's clock, where a shift explains most."""


def day_of_quarter(quarter: int) -> date:
    """The day in which a quarter of an hour lies, counted from 1970 on in the network's zone."""
    return _EPOCH + timedelta(days=quarter // _QUARTERS_A_DAY)


def counts_under(quarters: Mapping[int, int], shift: timedelta) -> dict[date, int]:
    """Deliveries a day, by a clock that is off by ``shift``."""
    steps = round(shift.total_seconds() / STEP_S)
    found: dict[date, int] = {}
    for quarter, count in quarters.items():
        day = day_of_quarter(quarter + steps)
        found[day] = found.get(day, 0) + count
    return found


def shift_of_sums(quarters: Mapping[int, int], theirs: Mapping[date, int]) -> timedelta | None:
    """The offset of the network's clock that makes most of the differing days agree, or None.

    ``quarters`` counts deliveries by quarter of an hour, ``theirs`` the network's conversions by day.
    """

    def off(step: int) -> int:
        ours = counts_under(quarters, timedelta(seconds=step * STEP_S))
        return sum(abs(count - ours.get(day, 0)) for day, count in theirs.items())

    now = off(0)
    if now < FEWEST:
        return None
    best = min(OFFSETS, key=off)
    return timedelta(seconds=best * STEP_S) if best and off(best) <= (1 - MOST) * now else None


def judge_day(theirs: Sum, ours: OurDay, currency: str | None) -> Iterator[tuple[Finding, int]]:
    """What differs on one day, each with how many conversions it is about; nothing where the day agrees."""
    for cause, of in ours.others.items():
        words = f"{of.count} of our log's conversions of the day: {cause.value.replace('_', ' ')}"
        yield finding(Bucket.OURS_ONLY, cause, words, stake=of.value, currency=currency), of.count
    gap = theirs.count - ours.delivered.count
    left = gap
    said = f"{theirs.count} reported, {ours.delivered.count} delivered"
    if ours.shifted is not None and abs(theirs.count - ours.shifted) < abs(gap):
        left = theirs.count - ours.shifted
        words = f"{said}; by the network's clock {ours.shifted} of ours lie on this day"
        yield finding(Bucket.DAY_SHIFT, Cause.TIME_ZONE_SHIFT, words, currency=currency), abs(gap) - abs(left)
    each = _each(ours.delivered, theirs)
    if left < 0:
        words = f"{said}{_hints(ours, (Cause.RETRACTED,))}"
        stake = None if each is None else each * -left
        yield finding(Bucket.OURS_ONLY, Cause.NOT_COUNTED, words, stake=stake, currency=currency), -left
    elif left > 0:
        words = f"{said}{_hints(ours, (Cause.IN_DOUBT, Cause.RETRYING, Cause.VOIDED))}"
        stake = None if each is None else each * left
        yield finding(Bucket.THEIRS_ONLY, Cause.UNKNOWN_TO_US, words, stake=stake, currency=currency), left
    if gap == 0 and theirs.value is not None and ours.delivered.value is not None:
        yield from _judge_sum(theirs.value, ours.delivered.value, theirs.count, currency)


def _judge_sum(
    theirs: Decimal, ours: Decimal, count: int, currency: str | None
) -> Iterator[tuple[Finding, int]]:
    gap = abs(theirs - ours)
    if gap < smallest_unit(currency):
        return
    words = f"as many conversions, told {plain(ours)} in all, reported {plain(theirs)}"
    cause = Cause.ROUNDED if gap < max(1, count) * Decimal("0.01") else Cause.SUM_DIFFERS
    yield finding(Bucket.VALUE_MISMATCH, cause, words, stake=gap, currency=currency), max(1, count)


def _each(*sums: Sum) -> Decimal | None:
    """What a conversion of the day is worth on average."""
    for each in sums:
        if each.count and each.value is not None:
            return (each.value / each.count).quantize(Decimal("0.01"))
    return None


def _hints(ours: OurDay, causes: tuple[Cause, ...]) -> str:
    found = [
        f"{ours.others[cause].count} {cause.value.replace('_', ' ')}"
        for cause in causes
        if cause in ours.others
    ]
    return f"; among ours of the day: {', '.join(found)}" if found else ""
