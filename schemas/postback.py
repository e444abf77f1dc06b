"""The stages of a postback on its way out: leased → gated → prepared → settled. Each needs the one before it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from schemas.breaker import Sign
from schemas.check import CheckDecision, CheckVerdict, ReleaseCheck
from schemas.conversion import StoredConversion
from schemas.destination import DestinationVersion
from schemas.event import ConversionEvent
from schemas.exchange import Hop, OutboundRequest
from schemas.lifecycle import State
from schemas.network import AdjustmentKind
from schemas.signals import Outcome, VoidReason
from schemas.verdict import VerdictKind

Trigger = Literal["release", "retry", "replay"]


def trigger(number: int, budget_from: int, run: Run | None) -> Trigger:
    """What brought an attempt about; ``budget_from`` attempts had been made when a person fired it again in ``run``."""
    if run is not None and number == budget_from + 1:
        return "replay"
    return "release" if number == 1 else "retry"


@dataclass(frozen=True, slots=True)
class Run:
    """The run of replays by which a person fired a postback again."""

    id: int
    who: str
    reason: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A timed claim on due postbacks of one destination, oldest first. The token fences every later write."""

    token: int
    version_id: int
    postback_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Correction:
    """What makes a postback an adjustment: what it tells, and what the network was told last."""

    kind: AdjustmentKind
    reported: Decimal | None
    """What the network was told last that the conversion is worth."""
    retracted: bool
    """Whether the network was told last that it is worth nothing."""
    by_hand: bool = False
    """Whether a person took the conversion back: then nothing of it stands, whatever the signals say."""


@dataclass(frozen=True, slots=True)
class Gated:
    """A postback that the fire gate holds under row lock: due, not voided, and its lease still ours."""

    postback_id: int
    token: int
    attempt_id: int
    number: int
    """Of the attempt about to be made, from 1."""
    version_id: int
    had_unknown: bool
    first_attempt_at: datetime | None
    expires_at: datetime | None
    net_value: Decimal | None
    event: ConversionEvent | StoredConversion
    now: datetime
    """The database's clock when the gate looked."""
    outcomes: tuple[Outcome, ...] = ()
    """What stands of its conversion."""
    correction: Correction | None = None
    """Of an adjustment."""
    asked: int = 0
    """How often the service was asked whether it may fire, since ``asked_since``."""
    asked_since: datetime | None = None
    confirmed_at: datetime | None = None
    """When the service last said that it may."""
    let_go: bool = False
    """Whether a person released it by hand: that is the decision that its policy waits for."""
    run: Run | None = None
    """By which a person fired it again, last."""
    budget_from: int = 0
    """Attempts that had been made then: its retry policy counts from there."""
    falls_back: State | None = None
    """What it is again if firing it again comes to nothing."""

    @property
    def trigger(self) -> Trigger:
        return trigger(self.number, self.budget_from, self.run)

    @property
    def attempt(self) -> int:
        """Of its present budget, from 1."""
        return self.number - self.budget_from

    @property
    def adjustment(self) -> AdjustmentKind | None:
        """The kind of correction that it is, or None of a conversion's own postback."""
        return None if self.correction is None else self.correction.kind


@dataclass(frozen=True, slots=True)
class Prepared:
    """An attempt whose intent is recorded: ``request`` may be sent, and only once."""

    gated: Gated
    version: DestinationVersion
    request: OutboundRequest
    shown_url: str
    """The URL with its secrets masked, as it is kept."""
    click_id: str | None
    notes: tuple[str, ...]
    value: Decimal | None = None
    """What the network is told that the conversion is worth, as of now."""

    @property
    def told(self) -> Decimal | None:
        """The value to remember as the last one told, where the conversion's own does not say it."""
        gated = self.gated
        if gated.adjustment is None:
            return self.value if self.value != gated.event.value else None
        return self.value if gated.adjustment == "restatement" else None


@dataclass(frozen=True, slots=True)
class Asking:
    """A postback that may fire once a service of the advertiser's has said so: ``request`` is the question.

    It stays leased meanwhile, and no intent is recorded: a question that is put twice does no harm.
    """

    gated: Gated
    version: DestinationVersion
    check: ReleaseCheck
    place: str
    """The key that gives the check, such as ``hold.check``: its credentials are named by it."""
    request: OutboundRequest
    shown_url: str
    """The URL with its secrets masked."""
    click_id: str | None

    @property
    def lane(self) -> str:
        """A slow service holds up its own questions only. No destination has a name with a colon."""
        return f"check:{self.version.contract.name}:{self.place}"


@dataclass(frozen=True, slots=True)
class Stopped:
    """A gated postback that must not be sent: back to waiting (``due_at`` set), or final."""

    gated: Gated
    state: State
    reason: str
    delay_s: float | None = None
    """For one that goes back to waiting: seconds from now until it is due again."""
    void_reason: VoidReason | None = None
    """For one that is voided."""


@dataclass(frozen=True, slots=True)
class SettledAttempt:
    """An attempt that ended, with its evidence (secrets masked) and what becomes of the postback."""

    postback_id: int
    token: int
    attempt_id: int
    number: int
    version_id: int
    trigger: Trigger
    worker: str
    intent_at: datetime
    ended_at: datetime
    verdict: VerdictKind
    rule: str
    state: State
    reason: str
    next_attempt_at: datetime | None = None
    delay_s: float | None = None
    status_code: int | None = None
    error_class: str | None = None
    error_message: str | None = None
    click_id: str | None = None
    notes: tuple[str, ...] = ()
    hops: tuple[Hop, ...] = ()
    told: Decimal | None = None
    """The value that was sent: of a restatement, and of a conversion where it is not its own. None of a retraction."""
    adjustment: AdjustmentKind | None = None
    """Of an attempt to correct what was delivered."""
    sign: Sign = Sign.NEITHER
    """What it says of the network's health."""


@dataclass(frozen=True, slots=True)
class SettledCheck:
    """A question that was answered, or was not, with its evidence (secrets masked) and what becomes of the postback."""

    postback_id: int
    token: int
    attempt_id: int
    """The check's own number, drawn from the attempts' sequence: its hops stand under it."""
    version_id: int
    worker: str
    intent_at: datetime
    ended_at: datetime
    verdict: CheckVerdict
    decision: CheckDecision
    status_code: int | None = None
    error_class: str | None = None
    error_message: str | None = None
    hops: tuple[Hop, ...] = ()


@dataclass(frozen=True, slots=True)
class LostAttempt:
    """An attempt whose worker fell silent: its intent was recorded, its outcome never was."""

    postback_id: int
    token: int
    attempt_id: int
    number: int
    version_id: int
    worker: str
    intent_at: datetime
    first_attempt_at: datetime
    expires_at: datetime | None
    had_unknown: bool
    event: ConversionEvent | StoredConversion
    now: datetime
    adjustment: AdjustmentKind | None = None
    run: Run | None = None
    budget_from: int = 0

    @property
    def trigger(self) -> Trigger:
        return trigger(self.number, self.budget_from, self.run)

    @property
    def attempt(self) -> int:
        """Of its present budget, from 1."""
        return self.number - self.budget_from
