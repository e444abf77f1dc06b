"""Days that work, and ticks of a schedule: waits in business days, cron expressions and time zones, DST included."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Annotated
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, PlainSerializer
from pydantic_core import PydanticCustomError

from schemas import durations

_BUSINESS_DAYS = re.compile(r"^(\d{1,3})bd$")
LONGEST_BUSINESS_DAYS = 366


@dataclass(frozen=True, slots=True)
class BusinessDays:
    """A wait counted in days on which a policy's calendar works; written ``"10bd"``."""

    count: int


def _wait(text: object) -> timedelta | BusinessDays:
    if isinstance(text, BusinessDays):
        return text
    match = _BUSINESS_DAYS.match(text.strip()) if isinstance(text, str) else None
    if match is None:
        return durations.parse(text)
    if int(match[1]) > LONGEST_BUSINESS_DAYS:
        raise PydanticCustomError("duration_size", "{text} is longer than a year", {"text": repr(text)})
    return BusinessDays(int(match[1]))


def show_wait(wait: timedelta | BusinessDays) -> str:
    """The wait as it is written in a policy."""
    return f"{wait.count}bd" if isinstance(wait, BusinessDays) else durations.show(wait)


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise PydanticCustomError(
            "time_zone", "{name} is no IANA time zone: write one such as Europe/Berlin", {"name": repr(name)}
        ) from None
    return name


def _cron(expression: str) -> str:
    if len(expression.split()) != 5:
        raise PydanticCustomError(
            "schedule",
            "{text} has not the five fields of a cron expression, such as 0 6 * * 1-5",
            {"text": repr(expression)},
        )
    try:
        next(CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as error:
        raise PydanticCustomError(
            "schedule",
            "{text} is no cron expression: {error}",
            {"text": repr(expression), "error": str(error)},
        ) from None
    return expression


def _calendar(code: str) -> str:
    try:
        _holidays(code)
    # NotImplementedError is the library's word for a country or region that it has no holidays of.
    except (NotImplementedError, KeyError):
        raise PydanticCustomError(
            "calendar",
            "{code} is no holiday calendar: write a country such as DE, with its subdivision as in DE-BE if need be",
            {"code": repr(code)},
        ) from None
    return code


Wait = Annotated[
    timedelta | BusinessDays, BeforeValidator(_wait), PlainSerializer(show_wait, return_type=str)
]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Cron = Annotated[str, AfterValidator(_cron)]
Calendar = Annotated[str, AfterValidator(_calendar)]


def next_tick(instant: datetime, schedule: str, timezone: str) -> datetime:
    """The first tick at or after ``instant``, in UTC. A tick that a change of clocks skips comes right after the gap."""
    # cronsim looks from the minute after the one it is given.
    before = instant.astimezone(ZoneInfo(timezone)) - timedelta(microseconds=1)
    return next(CronSim(schedule, before)).astimezone(UTC)


@lru_cache(maxsize=64)
def longest_gap(schedule: str, timezone: str) -> timedelta:
    """The longest time between two ticks, among those of the coming four years or the first 2,000."""
    ticks = CronSim(schedule, datetime(2026, 1, 1, tzinfo=ZoneInfo(timezone)))
    last, longest = next(ticks), timedelta(0)
    for tick in islice(ticks, 2000):
        longest, last = max(longest, tick.astimezone(UTC) - last.astimezone(UTC)), tick
        if tick.year > 2029:
            break
    return longest


def add_business_days(start: datetime, count: int, calendar: str, timezone: str) -> datetime:
    """``start`` moved on by ``count`` working days of ``calendar`` at the same local time of day, in UTC."""
    local = start.astimezone(ZoneInfo(timezone))
    day = local.date()
    while count:
        day += timedelta(days=1)
        count -= _works(calendar, day)
    return local.replace(year=day.year, month=day.month, day=day.day).astimezone(UTC)


@lru_cache(maxsize=20_000)
def _works(calendar: str, day: date) -> bool:
    return day.weekday() < 5 and day not in _holidays(calendar)


@lru_cache(maxsize=16)
def _holidays(calendar: str) -> Container[date]:
    """The holidays of ``"DE"`` or ``"US-CA"``. Imported when first asked for: few policies need a calendar."""
    from holidays import country_holidays  # noqa: PLC0415 — 9 MB that most workers never need

    country, _, subdivision = calendar.partition("-")
    return country_holidays(country, subdiv=subdivision or None)
