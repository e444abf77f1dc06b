"""The hold: how long a conversion waits before it is reported, and from which instant the wait is counted."""

from __future__ import annotations

from collections.abc import Container
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from schemas.calendars import (
    BusinessDays,
    Calendar,
    Cron,
    TimeZone,
    Wait,
    add_business_days,
    longest_gap,
    next_tick,
    show_wait,
)
from schemas.check import ReleaseCheck
from schemas.money import MINOR_DIGITS
from schemas.signals import REASONS, Confirmed, Outcome, TakenBack, VoidReason


class Priced(Protocol):
    """What a rule looks at: an event, or a conversion made of it."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> Decimal | None: ...
    @property
    def currency(self) -> str | None: ...


class HoldPolicy(BaseModel):
    """``none``: fire at once. ``refund``: wait out the refund window, fire what was not refunded. ``credit_check``: wait
    for a lender's decision, at most for ``wait``; ``on_timeout`` says what an application without one comes to.

    ``wait``: a duration, or business days of ``calendar`` (``"10bd"``: Monday to Friday without the holidays of an
    ISO 3166 country or subdivision). ``measured_from``: ``event`` (occurred_at), ``click`` (clicked_at, or the event
    where no click instant came) or ``receipt`` (the database's clock when intake committed the event). ``schedule``:
    five cron fields in ``timezone`` (IANA); what is due goes at the next tick, and a tick that a change of clocks
    skips or doubles comes once. ``release``: ``manual`` keeps what is due until ``holdfire release --due`` lets it go,
    for those whose own scheduler drives the releases.

    ``release_on``: outcomes that end the window early; an approval does under ``credit_check`` if nothing is said.
    ``void_on``: outcomes that take the conversion back. ``check``: a service of one's own that is asked before each
    attempt whether it may be made.
    """

    # Business days are ours to parse and write; pydantic need only let them through.
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    kind: Literal["none", "refund", "credit_check"] = "none"
    wait: Wait = timedelta(0)
    measured_from: Literal["event", "click", "receipt"] = "event"
    calendar: Calendar | None = None
    schedule: Cron | None = None
    timezone: TimeZone = "UTC"
    release: Literal["auto", "manual"] = "auto"
    release_on: tuple[Confirmed, ...] | None = None
    void_on: tuple[TakenBack, ...] = (
        "refund",
        "cancel",
        "chargeback.opened",
        "chargeback.lost",
        "credit_check.declined",
    )
    on_timeout: Literal["release", "void"] | None = None
    check: ReleaseCheck | None = None

    @model_validator(mode="after")
    def _wait_fits_kind(self) -> Self:
        waits = self.wait not in (timedelta(0), BusinessDays(0))
        if self.kind == "refund" and not waits:
            raise PydanticCustomError(
                "hold_without_wait", 'a refund window needs its length, such as wait = "14d"'
            )
        if self.kind == "credit_check" and not waits:
            raise PydanticCustomError(
                "hold_without_wait",
                'a credit check needs the longest time that a decision may take, such as wait = "30d"',
            )
        if self.kind == "none" and self.wait != timedelta(0):
            raise PydanticCustomError("wait_without_hold", 'wait is given, but kind = "none" does not wait')
        return self

    @model_validator(mode="after")
    def _outcomes_fit_kind(self) -> Self:
        if self.on_timeout is not None and self.kind != "credit_check":
            raise PydanticCustomError(
                "timeout_without_decision",
                'on_timeout is for a decision that never comes: it goes with kind = "credit_check"',
            )
        if self.release_on and self.kind == "none":
            raise PydanticCustomError(
                "release_without_hold", 'release_on is given, but kind = "none" does not wait'
            )
        if self.kind == "credit_check" and "chargeback.won" in (self.release_on or ()):
            raise PydanticCustomError(
                "release_without_decision",
                'release_on has "chargeback.won", but a won dispute is no credit decision. Leave it out',
            )
        if "refund" not in self.void_on:
            raise PydanticCustomError(
                "void_without_refund",
                'void_on leaves out "refund": what was given back in full is never reported. Add it',
            )
        if "chargeback.opened" in self.void_on and "chargeback.lost" not in self.void_on:
            raise PydanticCustomError(
                "void_without_loss",
                'void_on has "chargeback.opened" but not "chargeback.lost": a lost dispute would bring it back. Add it',
            )
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
    def releases_on(self) -> tuple[Confirmed, ...]:
        """Outcomes that end the window early."""
        if self.release_on is not None:
            return self.release_on
        return ("credit_check.approved",) if self.kind == "credit_check" else ()

    @property
    def needs_decision(self) -> bool:
        """Whether its window's end voids what no credit decision approved."""
        return self.kind == "credit_check" and self.on_timeout != "release"

    def void_reason(self, outcomes: Container[Outcome]) -> VoidReason | None:
        """Why a conversion of which ``outcomes`` hold is not reported, or None if it is."""
        standing = (each for each in REASONS if each in self.void_on and each in outcomes)
        return next((REASONS[each] for each in standing), None)

    @property
    def longest_wait(self) -> timedelta:
        """A bound on how long a postback is held: business days with their weekends and a fortnight of holidays,
        the longest time between two ticks of the schedule, and how long its service may give no answer."""
        wait = self.wait
        if isinstance(wait, BusinessDays):
            wait = timedelta(days=-(-wait.count * 7 // 5) + 2 + 14 * (1 + wait.count // 130))
        if self.schedule is not None:
            wait += longest_gap(self.schedule, self.timezone)
        return wait if self.check is None else wait + self.check.horizon

    def words(self) -> str:
        """The policy in words, for people: ``refund, 10bd (DE) from the event, at 0 6 * * * Europe/Berlin``."""
        if self.kind == "none":
            said = "none: fires at once"
        else:
            start = {"event": "the event", "click": "the click", "receipt": "its receipt"}[self.measured_from]
            kind = self.kind.replace("_", " ")
            said = (
                f"{kind}, {show_wait(self.wait)}{f' ({self.calendar})' if self.calendar else ''} from {start}"
            )
        if self.kind == "credit_check":
            said = (
                f"{said}, without a decision {'released' if self.on_timeout == 'release' else 'voided'} then"
            )
        if self.schedule is not None:
            said = f"{said}, at {self.schedule} {self.timezone}"
        if self.release == "manual":
            said = f"{said}, then released by hand"
        return said if self.check is None else f"{said}, asks {self.check.url} before release"


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

    def takes(self, event: Priced) -> bool:
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
    policy: HoldPolicy,
    *,
    occurred_at: datetime,
    clicked_at: datetime | None,
    received_at: datetime,
    now: datetime | None = None,
) -> datetime:
    """The instant the window ends and its schedule ticks; it may lie in the past, then the postback is due at once.

    ``now``: when this is asked, if that is later than ``received_at``.
    """
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
        end
        if policy.schedule is None
        else next_tick(max(end, now or received_at), policy.schedule, policy.timezone)
    )
