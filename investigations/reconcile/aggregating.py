"""Reports of sums beside our log: day by day and currency by currency."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from sqlalchemy import Connection

from infra.store.reports import report_days
from infra.store.reports.report_days import OurSum
from infra.store.reports.report_gathering import Scope
from infra.store.reports.report_writing import Judged
from schemas.lifecycle import State
from schemas.reconciling.days import WAITING, OurDay, Sum, counts_under, judge_day, shift_of_sums
from schemas.reconciling.findings import Cause


@dataclass(slots=True)
class Days:
    """What a report of sums came to. ``agreeing`` conversions are on both sides of their days."""

    judged: list[Judged] = field(default_factory=list)
    agreeing: int = 0
    amounts: dict[str | None, Decimal] = field(default_factory=dict)
    told: int = 0
    listed: int = 0


def judge_days(connection: Connection, report_id: int, scope: Scope, notes: list[str]) -> Days:
    """Compare every day of the report, and every day of ours within it."""
    theirs = report_days.their_days(connection, report_id, scope.first, scope.last)
    ours = report_days.our_days(connection)
    quarters = report_days.deliveries_by_quarter(connection, scope.zone)
    by_day: dict[date, int] = {}
    for (day, _), total in theirs.items():
        by_day[day] = by_day.get(day, 0) + total.count
    shift = shift_of_sums(quarters, by_day)
    shifted = None if shift is None else counts_under(quarters, shift)
    if shift is not None:
        hours = shift.total_seconds() / 3600
        notes.append(
            f"a clock {hours:+g} h from {scope.zone} makes most days agree: give the report's zone with --time-zone"
        )
    currencies = {currency for _, currency in theirs}
    # A report that names no currency is laid beside all of ours.
    keys = set(theirs) | {
        (
            each.day,
            each.currency if each.currency in currencies else (None if None in currencies else each.currency),
        )
        for each in ours
    }
    found = Days()
    for day, currency in sorted(keys, key=lambda key: (key[0], key[1] or "")):
        of_day = [each for each in ours if each.day == day and currency in {None, each.currency}]
        side = _our_day(of_day, None if shifted is None or len(currencies) > 1 else shifted.get(day, 0))
        total = theirs.get((day, currency), Sum())
        line = report_days.line_of(connection, report_id, day)
        found.judged += [
            Judged(finding, line, day=day, times=times) for finding, times in judge_day(total, side, currency)
        ]
        both = min(total.count, side.delivered.count)
        found.agreeing += both
        found.told += side.delivered.count
        found.listed += total.count
        if both and total.value is not None:
            agreed = min(total.value, side.delivered.value or total.value)
            found.amounts[currency] = found.amounts.get(currency, Decimal(0)) + agreed
    return found


def _our_day(sums: list[OurSum], shifted: int | None) -> OurDay:
    delivered = Sum()
    others: dict[Cause, Sum] = {}
    for each in sums:
        if each.state is State.DELIVERED and not each.retracted:
            delivered = _plus(delivered, each)
        else:
            cause = Cause.RETRACTED if each.state is State.DELIVERED else WAITING[each.state]
            others[cause] = _plus(others.get(cause, Sum()), each)
    return OurDay(delivered, others, shifted)


def _plus(one: Sum, more: OurSum) -> Sum:
    value = one.value if more.value is None else (one.value or Decimal(0)) + more.value
    return Sum(one.count + more.count, value)
