"""What is known of one row of a report, of one postback of ours, and of the report as a whole, when they are judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Literal
from zoneinfo import ZoneInfo

from schemas.lifecycle import State
from schemas.network import AgeLimit
from schemas.reconciling.tokens import Shape

DatedBy = Literal["event", "click", "delivery"]


@dataclass(frozen=True, slots=True)
class Theirs:
    """A readable row of the report."""

    line: int
    click_id: str | None = None
    order_id: str | None = None
    value: Decimal | None = None
    currency: str | None = None
    at: datetime | None = None
    """The instant, where the report has more than days."""
    day: date | None = None
    """In the network's zone."""
    counted: bool = True
    """False where the row's own status says that it does not count."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the attempts of a postback show; of the delivering attempt, or else of the last one."""

    attempt_id: int | None = None
    number: int | None = None
    verdict: str | None = None
    rule: str = ""
    status_code: int | None = None
    hops: int = 0
    last_status: int | None = None
    """Of the last hop."""
    failure: str | None = None
    """What ended the last hop, as ``kind: message``."""
    body: str = ""
    """The beginning of the last hop's body, as text."""
    delivered: int = 0
    """Attempts that were answered as delivered."""
    unknown: int = 0
    """Attempts whose outcome is unknown."""


@dataclass(frozen=True, slots=True)
class Ours:
    """A postback of the destination, with what it was last told to be worth."""

    postback_id: int
    conversion_id: int
    state: State
    attempts: int
    click_id: str | None = None
    order_id: str | None = None
    value: Decimal | None = None
    currency: str | None = None
    at: datetime | None = None
    """The instant by which the network dates it."""
    day: date | None = None
    """Of ``at``, in the network's zone."""
    in_period: bool = True
    retracted: bool = False
    first_value: Decimal | None = None
    """What the conversion was worth before any correction."""
    reason: str | None = None
    void_reason: str | None = None
    duplicate_of: int | None = None
    release_at: datetime | None = None
    due_at: datetime | None = None
    expires_at: datetime | None = None
    delivered_at: datetime | None = None
    event_at: datetime | None = None
    clicked_at: datetime | None = None
    evidence: Evidence = Evidence()

    @property
    def told(self) -> bool:
        """Whether a request for it may have left."""
        return self.attempts > 0


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Where a row's click id or order id is known that no postback of this destination and period stands for."""

    conversion_id: int
    postback_id: int | None = None
    destination: str | None = None
    state: State | None = None
    unrouted_reason: str | None = None
    same_destination: bool = False
    same_click: bool = True
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """An event that our intake refused, for the row's order or click id."""

    reject_id: int
    code: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for the whole report. ``first`` and ``last`` are its days, both included, in ``zone``."""

    first: date | None
    last: date | None
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    dated_by: DatedBy = "event"
    dates_only: bool = True
    shift: timedelta | None = None
    """A constant offset that explains most of the days that differ: the network's clock against ``zone``."""
    ratio: Decimal | None = None
    """One ratio of theirs to ours that explains most of the values that differ."""
    window: timedelta | None = None
    """The network's attribution window, from the click on."""
    age_limit: AgeLimit | None = None
    tells_value: bool = True
    """Whether the destination sends the value at all; if not, none can be wrong."""
    delivered_means: Literal["answered", "tried"] = "answered"
    shape: Shape = field(default_factory=Shape)
    counted_until: datetime | None = None
    """When the last one was delivered that the report counts: it was made after that."""
