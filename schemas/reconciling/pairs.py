"""Judging a row and the postback that it stands for, and the rows beyond that one. Total over every state."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from schemas.durations import show as show_duration
from schemas.ids import show
from schemas.lifecycle import State
from schemas.money import MINOR_DIGITS, plain
from schemas.reconciling.facts import Ours, Terms, Theirs
from schemas.reconciling.findings import Bucket, Cause, Finding, Side, finding

_SAME_RATIO = Decimal("0.002")


def judge_pair(ours: Ours, theirs: Theirs, terms: Terms) -> Finding:
    """A postback and the row that stands for it."""
    if not theirs.counted:
        return _declined(ours)
    if not ours.told:
        return _never_sent(ours, theirs)
    return _judge_value(ours, theirs, terms) or _judge_day(ours, theirs, terms) or _matched(ours)


def _matched(ours: Ours) -> Finding:
    if ours.state is State.DELIVERED:
        words = "in both logs, with the same value, on the same day"
        return Finding(Bucket.MATCHED, None, Side.NOBODY, words, ours.value, ours.currency)
    words = f"{show('pb', ours.postback_id)} is {_name(ours.state)}, and the report says that it was counted"
    return finding(Bucket.MATCHED, Cause.COUNTED_ANYWAY, words, stake=ours.value, currency=ours.currency)


def _declined(ours: Ours) -> Finding:
    words = "the report lists it with a status that does not count"
    return finding(
        Bucket.OURS_ONLY, Cause.DECLINED_BY_NETWORK, words, stake=ours.value, currency=ours.currency
    )


def _never_sent(ours: Ours, theirs: Theirs) -> Finding:
    words = f"{show('pb', ours.postback_id)} is {_name(ours.state)} and no request for it ever left"
    return finding(
        Bucket.THEIRS_ONLY,
        Cause.NEVER_SENT,
        words,
        stake=theirs.value,
        currency=theirs.currency or ours.currency,
    )


def _judge_value(ours: Ours, theirs: Theirs, terms: Terms) -> Finding | None:
    """None: the values agree, as far as both say one."""
    bucket = Bucket.VALUE_MISMATCH
    if ours.retracted and theirs.value != 0:
        words = "the network was told that it does not stand, and still counts it"
        return finding(bucket, Cause.CORRECTION_NOT_SHOWN, words, stake=theirs.value, currency=ours.currency)
    if ours.value is None or theirs.value is None or ours.retracted or not terms.tells_value:
        return None
    if theirs.currency and ours.currency and theirs.currency != ours.currency:
        words = f"told in {ours.currency}, reported in {theirs.currency}"
        return finding(bucket, Cause.CURRENCY_DIFFERS, words, stake=ours.value, currency=ours.currency)
    gap = theirs.value - ours.value
    if abs(gap) < smallest_unit(ours.currency):
        return None
    cause, words, side = _why_value(ours, theirs.value, terms)
    return finding(bucket, cause, words, side=side, stake=abs(gap), currency=ours.currency)


def _why_value(ours: Ours, theirs: Decimal, terms: Terms) -> tuple[Cause, str, Side | None]:
    assert ours.value is not None
    said = f"told {plain(ours.value)}, reported {plain(theirs)}"
    if ours.first_value is not None and ours.first_value != ours.value and _near(theirs, ours.first_value):
        return Cause.CORRECTION_NOT_SHOWN, f"{said}: that is the value before its correction", None
    if ours.value and (_near(theirs, ours.value * 100) or _near(theirs * 100, ours.value)):
        return Cause.MINOR_UNITS, f"{said}: a hundredfold", None
    if ours.value and terms.ratio is not None and abs(theirs / ours.value - terms.ratio) <= _SAME_RATIO:
        return Cause.CONSTANT_RATIO, f"{said}: {plain(terms.ratio)} of it, as of most that differ", None
    if theirs == 0:
        return Cause.VALUE_MISSING, f"told {plain(ours.value)}, reported as nothing", None
    if abs(theirs - ours.value) < 1 and (theirs % 1 == 0 or ours.value % 1 == 0):
        return Cause.ROUNDED, f"{said}: rounded to a whole unit", None
    return Cause.VALUE_DIFFERS, said, None


def _near(one: Decimal, other: Decimal) -> bool:
    return abs(one - other) < Decimal("0.01")


def smallest_unit(currency: str | None) -> Decimal:
    """The smallest amount that two values can differ by: the currency's minor unit, a hundredth where none is named."""
    return Decimal(1).scaleb(-MINOR_DIGITS.get(currency or "", 2))


def _judge_day(ours: Ours, theirs: Theirs, terms: Terms) -> Finding | None:
    """None: the same day, as far as the report has days."""
    if theirs.day is None or ours.day is None or theirs.day == ours.day:
        return None
    days = (theirs.day - ours.day).days
    cause, words = _why_day(ours, theirs, terms, days)
    return finding(Bucket.DAY_SHIFT, cause, words, stake=ours.value, currency=ours.currency, days=days)


def _why_day(ours: Ours, theirs: Theirs, terms: Terms, days: int) -> tuple[Cause, str]:
    later = (
        f"{abs(days)} {'day' if abs(days) == 1 else 'days'} {'later' if days > 0 else 'earlier'} than ours"
    )
    if terms.shift is not None and ours.at is not None:
        shifted = (ours.at.astimezone(terms.zone) + terms.shift).date()
        if shifted == theirs.day:
            sign = "+" if terms.shift > timedelta(0) else "-"
            return (
                Cause.TIME_ZONE_SHIFT,
                f"{later}: a clock {sign}{show_duration(abs(terms.shift))} from {terms.zone.key} explains it and most others",
            )
    others: dict[str, datetime | None] = {
        "click": ours.clicked_at,
        "event": ours.event_at,
        "delivery": ours.delivered_at,
    }
    for name, at in others.items():
        if name != terms.dated_by and at is not None and at.astimezone(terms.zone).date() == theirs.day:
            return Cause.DATED_OTHERWISE, f"{later}: it is the day of the {name}"
    if not ours.in_period:
        return Cause.OUTSIDE_PERIOD, f"{later}, outside of the report's days"
    return Cause.DAY_DIFFERS, later


def judge_repeat(theirs: Theirs, ours: Ours) -> Finding:
    """A row beyond the one that stands for the postback."""
    evidence = ours.evidence
    told = evidence.delivered + evidence.unknown
    if not theirs.counted:
        return Finding(Bucket.MATCHED, None, Side.NOBODY, "a repeat that the network does not count")
    if told > 1:
        words = f"{show('pb', ours.postback_id)} was told {told} times: {evidence.delivered} delivered, {evidence.unknown} with unknown outcome"
        cause = Cause.TOLD_TWICE
    else:
        words = f"{show('pb', ours.postback_id)} was delivered once, and this row counts it again"
        cause = Cause.COUNTED_TWICE
    return finding(
        Bucket.DUPLICATE, cause, words, stake=theirs.value, currency=theirs.currency or ours.currency
    )


def _name(state: State) -> str:
    return state.value.replace("_", " ")
