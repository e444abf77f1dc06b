"""The hold: how long a conversion waits before it is reported, and from which instant the wait is counted."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from schemas import durations
from schemas.event import ConversionEvent
from schemas.money import MINOR_DIGITS

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


class HoldPolicy(BaseModel):
    """``none``: fire at once. ``refund``: wait out the refund window, fire what was not refunded.

    ``wait``: a duration, or business days of ``calendar`` (``"10bd"``: Monday to Friday without the holidays of an
    ISO 3166 country or subdivision). ``measured_from``: ``event`` (occurred_at), ``click`` (clicked_at, or the event
    where no click instant came) or ``receipt`` (the database's clock when intake committed the event). ``schedule``:
    five cron fields in ``timezone`` (IANA); what is due goes at the next tick, and a tick that a change of clocks
    skips or doubles comes once. ``release``: ``manual`` keeps what is due until ``holdfire release --due`` lets it go,
    for those whose own scheduler drives the releases.
    """

    # Business days are ours to parse and write; pydantic need only let them through.
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    kind: Literal["none", "refund"] = "none"
    wait: Wait = timedelta(0)
    measured_from: Literal["event", "click", "receipt"] = "event"
    calendar: Annotated[str, AfterValidator(_calendar)] | None = None
    schedule: Annotated[str, AfterValidator(_cron)] | None = None
    timezone: Annotated[str, AfterValidator(_time_zone)] = "UTC"
    release: Literal["auto", "manual"] = "auto"

    @model_validator(mode="after")
    def _wait_fits_kind(self) -> Self:
        if self.kind == "refund" and self.wait in (timedelta(0), BusinessDays(0)):
            raise PydanticCustomError(
                "hold_without_wait", 'a refund window needs its length, such as wait = "14d"'
            )
        if self.kind == "none" and self.wait != timedelta(0):
            raise PydanticCustomError("wait_without_hold", 'wait is given, but kind = "none" does not wait')
        return self

    @model_validator(mode="after")
    def _calendar_fits_wait(self) -> Self:
        if isinstance(self.wait, BusinessDays) and self.calendar is None:
            raise PydanticCustomError(
                "business_days_without_calendar", 'business days need a calendar, such as calendar = "DE"'
            )
        if self.calendar is not None and not isinstance(self.wait, BusinessDays):
            raise PydanticCustomError(
                "calendar_without_business_days",
                'a calendar is given, but wait is not in business days ("10bd")',
            )
        return self

    @model_validator(mode="after")
    def _one_scheduler(self) -> Self:
        if self.release == "manual" and self.schedule is not None:
            raise PydanticCustomError(
                "two_schedulers", 'release = "manual" leaves the schedule to yours: leave one of the two out'
            )
        return self

    @property
    def longest_wait(self) -> timedelta:
        """A bound on how long a postback is held: business days with their weekends and a fortnight of holidays,
        and the longest time between two ticks of the schedule."""
        wait = self.wait
        if isinstance(wait, BusinessDays):
            wait = timedelta(days=-(-wait.count * 7 // 5) + 2 + 14 * (1 + wait.count // 130))
        return wait if self.schedule is None else wait + longest_gap(self.schedule, self.timezone)

    def words(self) -> str:
        """The policy in words, for people: ``refund, 10bd (DE) from the event, at 0 6 * * * Europe/Berlin``."""
        if self.kind == "none":
            said = "none: fires at once"
        else:
            start = {"event": "the event", "click": "the click", "receipt": "its receipt"}[self.measured_from]
            said = f"{self.kind}, {show_wait(self.wait)}{f' ({self.calendar})' if self.calendar else ''} from {start}"
        if self.schedule is not None:
            said = f"{said}, at {self.schedule} {self.timezone}"
        return f"{said}, then released by hand" if self.release == "manual" else said


class HoldRule(BaseModel):
    """A policy for some of a destination's events: the first rule that takes an event decides.

    ``events``: names, all if left out. ``min_value`` and ``max_value``: a band of its value in ``currency``, the lower
    end included and the upper not. An event without a value, or in another currency, is in no band.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hold: HoldPolicy
    events: tuple[str, ...] = ()
    min_value: Annotated[Decimal, Field(ge=0)] | None = None
    max_value: Annotated[Decimal, Field(gt=0)] | None = None
    currency: str | None = None

    @model_validator(mode="after")
    def _band_in_its_currency(self) -> Self:
        banded = self.min_value is not None or self.max_value is not None
        if banded and self.currency not in MINOR_DIGITS:
            raise PydanticCustomError(
                "band_without_currency", 'a value band needs its ISO 4217 currency, such as currency = "EUR"'
            )
        if self.min_value is not None and self.max_value is not None and self.min_value >= self.max_value:
            raise PydanticCustomError("empty_band", "min_value is not below max_value: the band is empty")
        if not banded and not self.events:
            raise PydanticCustomError(
                "rule_for_all",
                "a rule names events or a value band; what holds for all is the destination's `hold`",
            )
        return self

    def takes(self, event: ConversionEvent) -> bool:
        if self.events and event.name not in self.events:
            return False
        if self.min_value is None and self.max_value is None:
            return True
        if event.value is None or event.currency != self.currency:
            return False
        return (self.min_value is None or event.value >= self.min_value) and (
            self.max_value is None or event.value < self.max_value
        )


def release_at(
    policy: HoldPolicy, *, occurred_at: datetime, clicked_at: datetime | None, received_at: datetime
) -> datetime:
    """The instant the window ends and its schedule ticks; it may lie in the past, then the postback is due at once."""
    match policy.measured_from:
        case "event":
            start = occurred_at
        case "click":
            start = clicked_at or occurred_at
        case "receipt":
            start = received_at
    if isinstance(policy.wait, BusinessDays):
        assert policy.calendar is not None
        end = add_business_days(start, policy.wait.count, policy.calendar, policy.timezone)
    else:
        end = start + policy.wait
    # A window that ended in the past waits for the first tick from now on, not for one that nobody saw.
    return (
        end if policy.schedule is None else next_tick(max(end, received_at), policy.schedule, policy.timezone)
    )


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
