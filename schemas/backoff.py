"""How long to wait before the next attempt: exponential, capped, jittered without bias, never under Retry-After."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field

from schemas.durations import Duration

LONGEST_RETRY_AFTER = timedelta(days=36500)


class RetryPolicy(BaseModel):
    """Retry as data.

    ``attempts``: tries in all, the first included. ``base``: the wait after the first failure, multiplied by
    ``factor`` after each further one, never above ``cap``. ``jitter``: the half-width of the spread, as a
    share of the wait. ``horizon``: no attempt starts later than this after the first one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    attempts: Annotated[int, Field(ge=1, le=100)] = 12
    base: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(seconds=5)
    factor: Annotated[float, Field(ge=1, le=10)] = 3.0
    cap: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(hours=6)
    jitter: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    horizon: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(days=3)


class Backoff(Protocol):
    """What the arithmetic needs of a policy; the fields mean what they mean in ``RetryPolicy``."""

    @property
    def base(self) -> timedelta: ...
    @property
    def factor(self) -> float: ...
    @property
    def cap(self) -> timedelta: ...
    @property
    def jitter(self) -> float: ...


def delay(attempt: int, policy: Backoff, draw: float, retry_after: timedelta | None = None) -> timedelta:
    """The wait after failed attempt number ``attempt`` (from 1), for ``draw`` uniform in [0, 1).

    Without ``retry_after`` the result is spread evenly around ``base * factor ** (attempt - 1)`` and never
    exceeds ``cap``: the middle is held below ``cap / (1 + jitter)``, so that clamping cannot bias the spread.
    ``retry_after`` is a floor; the spread is put on top of it, so that a crowd told to come back at
    one instant does not (RFC 9110 §10.2.3 gives the earliest instant, not an appointment).
    """
    middle_most = policy.cap / (1 + policy.jitter)
    try:
        middle = min(policy.base * policy.factor ** (attempt - 1), middle_most)
    except OverflowError:
        middle = middle_most
    spread = policy.jitter * (2 * draw - 1)
    wait = min(middle * (1 + spread), policy.cap)
    if retry_after is None or retry_after <= wait:
        return wait
    return retry_after + policy.jitter * draw * min(middle, retry_after)


def parse_retry_after(value: str, now: datetime) -> timedelta | None:
    """Read a Retry-After field: delay-seconds or HTTP-date (RFC 9110 §10.2.3), relative to aware ``now``.

    None when it is neither; an instant already past is a wait of zero. A number of seconds beyond
    ``LONGEST_RETRY_AFTER`` counts as that: the horizon ends such a postback, not an overflow.
    """
    text = value.strip()
    if text.isascii() and text.isdigit():
        digits = text.lstrip("0") or "0"
        return (
            min(timedelta(seconds=int(digits)), LONGEST_RETRY_AFTER)
            if len(digits) <= 10
            else LONGEST_RETRY_AFTER
        )
    try:
        instant = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return max(instant - now, timedelta(0))
