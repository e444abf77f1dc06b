"""A destination's circuit breaker: when answers say that its network is down, it is left alone for a while. Pure.

Closed, it counts outcomes; open, nothing is sent until the cooldown has passed; half open, a few probes are, and their
answers close it or open it for longer. All of it is a function of the breaker, what was heard, the instant and the policy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.durations import Duration
from schemas.verdict import VerdictKind

PROBES = 3
"""Attempts that a half-open breaker lets through: one conversion that always fails must not keep it open."""


class BreakerPolicy(BaseModel):
    """When a network counts as down, and how long it is left alone then.

    It opens after at least ``failures`` failed attempts within ``window``, if they are a ``share`` of the latest ones. It
    stays open for ``cooldown``, doubled each time that its probes fail, up to ``cap``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    failures: Annotated[int, Field(ge=2, le=1000)] = 20
    share: Annotated[float, Field(ge=0.5, le=1)] = 0.9
    window: Annotated[Duration, Field(ge=timedelta(seconds=1), le=timedelta(hours=1))] = timedelta(minutes=1)
    cooldown: Annotated[Duration, Field(ge=timedelta(seconds=2), le=timedelta(hours=1))] = timedelta(
        seconds=30
    )
    cap: Annotated[Duration, Field(ge=timedelta(seconds=2), le=timedelta(days=1))] = timedelta(minutes=10)

    @model_validator(mode="after")
    def _cap_holds_the_cooldown(self) -> BreakerPolicy:
        if self.cap < self.cooldown:
            raise ValueError("cap is shorter than cooldown; give a cap of at least the cooldown")
        return self


class Sign(StrEnum):
    """What an attempt says of its network."""

    UP = "up"
    """It answered, whatever it said: a refusal is an answer."""
    DOWN = "down"
    """No answer, or one that a network gives in trouble."""
    NEITHER = "neither"
    """It asked for patience (429 with Retry-After), or was never asked at all."""


def sign_of(verdict: VerdictKind, status_code: int | None, *, told_when: bool) -> Sign:
    """``told_when``: whether the answer said when to come back."""
    if verdict in {VerdictKind.RETRY, VerdictKind.UNKNOWN}:
        return Sign.NEITHER if status_code == 429 and told_when else Sign.DOWN
    # Refused by our own guard: nothing was sent.
    return Sign.NEITHER if status_code is None else Sign.UP


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Tally:
    """Outcomes that were settled together: how many said that the network is down, and how many that it is up."""

    at: datetime
    down: int
    up: int

    @property
    def count(self) -> int:
        return self.down + self.up


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is remembered of a destination. ``since``: when it came into its state."""

    state: BreakerState
    since: datetime
    until: datetime | None = None
    """Open: when it is probed. Half open: until when the probes are waited for."""
    trips: int = 0
    """How often it opened in a row."""
    probes: int = 0
    """Half open: how many are out; none when nothing was due yet."""
    failed: int = 0
    """Half open: how many of them failed."""
    recent: tuple[Tally, ...] = ()
    """Closed: the latest outcomes, oldest first, as long as one of them failed."""
    says: str = ""
    """Open and half open: why it opened."""

    @property
    def wants_probes(self) -> bool:
        """Half open, without any probe out."""
        return self.state is BreakerState.HALF_OPEN and not self.probes


@dataclass(frozen=True, slots=True)
class Heard:
    """Outcomes that a process tells: all of them, oldest first, and those of the current probes apart."""

    tallies: tuple[Tally, ...] = ()
    probes_down: int = 0
    probes_up: int = 0


def closed(now: datetime) -> Breaker:
    return Breaker(BreakerState.CLOSED, now)


def advance(breaker: Breaker, heard: Heard, now: datetime, policy: BreakerPolicy | None) -> Breaker:
    """The breaker after what was heard. Total; without a policy it is closed, whatever it was.

    While it is open nothing that is heard counts: it is of attempts that left before. Half open, only probes do.
    """
    if policy is None:
        return breaker if breaker == closed(breaker.since) else closed(now)
    match breaker.state:
        case BreakerState.CLOSED:
            return _count(breaker, heard.tallies, now, policy)
        case BreakerState.HALF_OPEN:
            return _probed(breaker, heard, now, policy)
        case BreakerState.OPEN:
            return breaker


def look(breaker: Breaker, now: datetime) -> Breaker:
    """The breaker once time has passed: half open after its cooldown, and again when its probes were not heard of."""
    if breaker.until is None or now < breaker.until or breaker.state is BreakerState.CLOSED:
        return breaker
    return replace(breaker, state=BreakerState.HALF_OPEN, since=now, until=None, probes=0, failed=0)


def send_probes(breaker: Breaker, probes: int, now: datetime, patience: timedelta) -> Breaker:
    """The breaker once ``probes`` are on their way; they are heard of within ``patience``, or others go."""
    return replace(breaker, probes=probes, failed=0, until=now + patience) if probes else breaker


def cooldown(trips: int, policy: BreakerPolicy) -> timedelta:
    """How long it stays open the ``trips``-th time in a row, from 1."""
    return min(policy.cooldown * (1 << min(max(trips - 1, 0), 20)), policy.cap)


def _count(breaker: Breaker, tallies: Sequence[Tally], now: datetime, policy: BreakerPolicy) -> Breaker:
    recent = _latest([*breaker.recent, *tallies], now - policy.window, policy)
    down, count = sum(tally.down for tally in recent), sum(tally.count for tally in recent)
    if down >= policy.failures and down >= policy.share * count:
        return _open(breaker, f"{down} of the last {count} attempts failed", now, policy)
    return replace(breaker, recent=recent if down else ())


def _latest(tallies: Sequence[Tally], since: datetime, policy: BreakerPolicy) -> tuple[Tally, ...]:
    """As many whole tallies as ``failures`` can be the ``share`` of, the newest: what was long before says nothing."""
    enough, count = math.floor(policy.failures / policy.share), 0
    kept: list[Tally] = []
    for tally in reversed(tallies):
        if count >= enough:
            break
        if tally.at >= since and tally.count:
            kept.append(tally)
            count += tally.count
    return tuple(reversed(kept))


def _probed(breaker: Breaker, heard: Heard, now: datetime, policy: BreakerPolicy) -> Breaker:
    if heard.probes_up:
        return closed(now)
    failed = breaker.failed + heard.probes_down
    if breaker.probes and failed >= breaker.probes:
        return _open(breaker, breaker.says, now, policy)
    return replace(breaker, failed=failed)


def _open(breaker: Breaker, says: str, now: datetime, policy: BreakerPolicy) -> Breaker:
    trips = breaker.trips + 1
    return Breaker(BreakerState.OPEN, now, now + cooldown(trips, policy), trips, says=says)
