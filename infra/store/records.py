"""What the store gives to people who read it: facts as they were written down, nothing interpreted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from infra.store.stopping.stopping import Stop
from schemas.by_hand import Act
from schemas.check import CheckKind
from schemas.click import KeyName
from schemas.destination import DestinationVersion
from schemas.event import ConversionEvent, Signal
from schemas.exchange import Hop
from schemas.lifecycle import State
from schemas.network import AdjustmentKind
from schemas.problem import Problem
from schemas.reconciling.findings import Bucket, Cause
from schemas.signals import Outcome as Standing
from schemas.verdict import VerdictKind


@dataclass(frozen=True, slots=True)
class MatchRecord:
    """A click id that was found for a conversion, by which key and in which click of the register."""

    at: datetime
    destination: str
    network: str
    key: KeyName
    key_value: str
    click: int
    click_id: str
    clicked_at: datetime


@dataclass(frozen=True, slots=True)
class ConversionRecord:
    """A conversion as it stands. ``routed`` counts its postbacks; without any, ``unrouted_reason`` says why.

    ``net_value`` and ``outcomes`` are what its signals come to.
    """

    id: int
    event: ConversionEvent
    received_at: datetime
    net_value: Decimal | None
    routed: int
    unrouted_reason: str | None
    outcomes: tuple[Standing, ...] = ()
    matches: tuple[MatchRecord, ...] = ()
    refusals: Mapping[str, str] = field(default_factory=dict)
    """By destination that takes such events: what it required and did not get."""
    erased_at: datetime | None = None
    """When what it was about was made unreadable, at a person's request."""
    erased_by: str | None = None

    @property
    def attributed(self) -> ConversionEvent:
        """The event with the click ids that were found for it."""
        found = {match.destination: match.click_id for match in self.matches}
        return self.event.model_copy(update={"click_ids": self.event.click_ids | found})

    def found_late(self, destination: str) -> bool:
        """Whether the destination took the conversion only when its click came."""
        return any(each.destination == destination and each.at > self.received_at for each in self.matches)


@dataclass(frozen=True, slots=True)
class SignalRecord:
    """A signal and what it came to. ``status``: waiting for its conversion, applied, or noted."""

    id: int
    event: Signal
    received_at: datetime
    status: str
    outcome: str


@dataclass(frozen=True, slots=True)
class RejectRecord:
    """What could not be taken, verbatim, and why. Code ``duplicate``: it had been taken before."""

    id: int
    received_at: datetime
    code: str
    problems: tuple[Problem, ...]
    source: str | None
    event_id: str | None
    raw: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was written down when an attempt ended. ``state`` is what the postback became by it."""

    ended_at: datetime
    version_id: int
    trigger: str
    worker_version: str
    verdict: VerdictKind
    rule: str
    state: State
    status_code: int | None
    error_class: str | None
    error_message: str | None
    next_attempt_at: datetime | None
    delay_s: float | None
    click_id: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt: its intent, and its outcome once there is one. ``intended_url`` has its secrets masked."""

    id: int
    postback_id: int
    number: int
    intent_at: datetime
    worker: str
    intended_url: str | None
    outcome: Outcome | None
    hops: tuple[Hop, ...]
    hops_read: bool = True
    """Whether its hops were asked for: of a long life, a reader may leave most of them where they are."""
    archive: str | None = None
    """The file that it was read from, once it has left the database."""

    @property
    def answered_late(self) -> bool:
        """Whether a full answer came after the attempt had been written off as *outcome unknown*."""
        if self.outcome is None or self.outcome.verdict is not VerdictKind.UNKNOWN or not self.hops:
            return False
        return self.hops[-1].status_code is not None


@dataclass(frozen=True, slots=True)
class CheckRecord:
    """One question to the advertiser's own service, and what it said: ``verdict`` release, void or again.

    ``number``: of its postback's questions, from 1. A ``stale`` one was answered when its postback had been moved
    already, and moved nothing.
    """

    id: int
    postback_id: int
    version_id: int
    number: int
    intent_at: datetime
    ended_at: datetime
    asks_again_at: datetime | None
    worker: str
    worker_version: str
    stale: bool
    verdict: CheckKind
    rule: str
    status_code: int | None
    error_class: str | None
    error_message: str | None
    hops: tuple[Hop, ...]
    archive: str | None = None
    """As of an attempt."""


@dataclass(frozen=True, slots=True)
class PostbackRecord:
    """A postback as it stands, with its attempts and checks, oldest first. ``due_at``: when somebody has to act next."""

    id: int
    conversion_id: int
    version: DestinationVersion
    state: State
    release_at: datetime
    due_at: datetime | None
    first_attempt_at: datetime | None
    expires_at: datetime | None
    settled_at: datetime | None
    attempts_made: int
    void_reason: str | None
    reason: str | None
    duplicate_of: int | None
    attempts: tuple[AttemptRecord, ...]
    by_hand: bool = False
    """Whether it waits for ``holdfire release --due`` once its window has ended; ``due_at`` is None then."""
    adjustment: AdjustmentKind | None = None
    """Of a correction."""
    adjusts: int | None = None
    """Of a correction: id of the delivered postback that it corrects."""
    adjustments: int = 0
    """How many corrections of it were ordered."""
    overtaken: bool = False
    """Whether a signal came while an attempt was on the wire."""
    reported: Decimal | None = None
    """What the network was told last, where that is not the conversion's own value; of a correction what it told."""
    retracted_at: datetime | None = None
    """When the network was told that nothing stands."""
    lost: Decimal | None = None
    """What the network shows too much and cannot be told, negative for too little; None also without a value."""
    lost_at: datetime | None = None
    counted_by: int | None = None
    """The last network's report that has counted it; None while none has."""
    counted_at: datetime | None = None
    """When that was found."""
    dispute: Dispute | None = None
    let_go_at: datetime | None = None
    """When a person released it by hand."""
    checks: tuple[CheckRecord, ...] = ()
    parked: bool = False
    """Whether it is due and waits in the queue of its own destination."""
    unreadable: tuple[str, ...] = ()
    """Archives that have evidence of it and cannot be read, each with the reason."""
    run_id: int | None = None
    """By which run a person fired it again, last."""
    budget_from: int = 0
    """Attempts that had been made then: its retry policy counts from there, and ``first_attempt_at`` is the first since."""
    falls_back: State | None = None
    """What it is again if firing it again comes to nothing."""
    settled_by: str | None = None
    """Who said that the network has it."""

    @property
    def fires_again(self) -> bool:
        """Whether it waits for the attempt that a person fires again."""
        return self.run_id is not None and self.due_at is not None and self.attempts_made == self.budget_from

    @property
    def last_attempt(self) -> AttemptRecord | None:
        return self.attempts[-1] if self.attempts else None


@dataclass(frozen=True, slots=True)
class Dispute:
    """What the last network's report that speaks of a postback found, where it did not plainly match."""

    report_id: int
    at: datetime
    bucket: Bucket
    cause: Cause
    explanation: str


@dataclass(frozen=True, slots=True)
class ActRecord:
    """What a person did to a postback by hand, who and why; its window's end ``before`` and ``after`` it."""

    at: datetime
    postback_id: int
    act: Act
    who: str
    reason: str
    state: State
    """The postback's, before."""
    wish: bool
    """It could not be voided at once."""
    before: datetime
    after: datetime


@dataclass(frozen=True, slots=True)
class RedoRecord:
    """What a person did about a postback that had ended: fired it again (``replay``), thought better of that
    (``put_back``), or said what the network said of it (``settle``)."""

    at: datetime
    postback_id: int
    action: str
    who: str
    reason: str
    run_id: int | None = None
    state: State | None = None
    """Before, of a replay."""
    attempts: int = 0
    """Made before it, of a replay."""
    due_at: datetime | None = None
    overruled: tuple[str, ...] = ()
    """What spoke against it."""
    version: int | None = None
    """Number of the destination's version that it took, if it took another."""
    said: str | None = None
    """``delivered`` or ``not-counted``, of one that was settled."""


@dataclass(frozen=True, slots=True)
class Life:
    """All that is known of one conversion, as of ``now`` by the database's clock, read in one snapshot."""

    now: datetime
    conversion: ConversionRecord
    signals: tuple[SignalRecord, ...]
    postbacks: tuple[PostbackRecord, ...]
    repeats: tuple[RejectRecord, ...]
    """Later events with the same source and event id: refused, as duplicates or for another reason."""
    acts: tuple[ActRecord, ...] = ()
    """What people did by hand, oldest first."""
    redone: tuple[RedoRecord, ...] = ()
    """What people did about those that had ended, oldest first."""
    stops: Mapping[str, Stop] = field(default_factory=dict)
    """By name: its destinations that are stopped now."""

    def stop_of(self, postback: PostbackRecord) -> Stop | None:
        return self.stops.get(postback.version.contract.name)

    def acts_on(self, postback_id: int, act: Act) -> list[ActRecord]:
        return [each for each in self.acts if each.postback_id == postback_id and each.act is act]


@dataclass(frozen=True, slots=True)
class FoundPostback:
    """One row of a search: a postback and the conversion it reports."""

    postback_id: int
    conversion_id: int
    destination: str
    network: str
    state: State
    source: str
    event_id: str
    name: str
    order_id: str | None
    value: Decimal | None
    net_value: Decimal | None
    currency: str | None
    click_ids: Mapping[str, str]
    occurred_at: datetime
    received_at: datetime
    release_at: datetime
    due_at: datetime | None
    attempts_made: int
    status_code: int | None
    verdict: VerdictKind | None
    reason: str | None
    outcomes: tuple[Standing, ...]
    adjustment: AdjustmentKind | None
    adjusts: int | None
    reported: Decimal | None
    retracted_at: datetime | None
    lost: Decimal | None
    lost_at: datetime | None
