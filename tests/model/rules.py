"""The rules of hold, signals, releases, rescues and corrections, a second time: slow, plain, and by somebody else.

Nothing here comes from the code under test, so what both say alike is no echo. Instants are whole minutes since the
story began, money is ``Decimal``, everything else is text, lists and dictionaries, and nothing is done in bulk: each
postback is looked at again whenever anything happened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

ALL_TAKEN_BACK = ("refund", "cancel", "chargeback.opened", "chargeback.lost", "credit_check.declined")
VOIDED_BY = (
    ("refund", "refunded"),
    ("partial_refund", "refunded"),
    ("credit_check.declined", "declined"),
    ("cancel", "cancelled"),
    ("chargeback.opened", "charged_back"),
    ("chargeback.lost", "charged_back"),
)
GIVEN_BY_SIGNALS = ("refunded", "declined", "cancelled", "charged_back")
OPEN = ("held", "leased", "firing", "retrying")
GIVES_ITS_PLACE_AWAY = ("voided", "expired")
FAILED = ("rejected", "dead", "expired", "in_doubt")
NOTHING = "nothing"
"""What stands of a conversion that was taken back, and what a network that was told so knows. No amount: a conversion
that never had a value can stand, too."""
NEVER = 10**9
"""When a postback is due that waits for a hand."""

Worth = Decimal | None | Literal["nothing"]


@dataclass(frozen=True)
class Policy:
    """How long a place holds, and which outcomes end that."""

    kind: str = "none"
    wait: int = 0
    measured_from: str = "event"
    release_on: tuple[str, ...] = ()
    void_on: tuple[str, ...] = ALL_TAKEN_BACK
    voids_undecided: bool = False
    manual: bool = False


@dataclass(frozen=True)
class Correcting:
    """A correction that a network takes."""

    dedupe: str
    revives: bool = False
    by_delta: bool = False


@dataclass(frozen=True)
class Place:
    """A destination with its network's rules."""

    name: str
    policy: Policy
    dedupe: str
    partner: bool = False
    sub_id: bool = False
    age_limit: int | None = None
    attempts: int = 3
    base: int = 10
    horizon: int = 65
    sends_corrections: bool = True
    correction_wait: int = 0
    retraction: Correcting | None = None
    restatement: Correcting | None = None


@dataclass(frozen=True)
class Signal:
    event_id: str
    kind: str
    occurred_at: int
    outcome: str = ""
    amount: Decimal | None = None
    cumulative: bool = False
    currency: str | None = None
    order_id: str | None = None
    conversion_event_id: str | None = None
    sequence: int | None = None

    def words(self) -> str:
        about = self.conversion_event_id or f"order {self.order_id}"
        sequence = "" if self.sequence is None else f" sequence {self.sequence}"
        total = " in total" if self.cumulative else ""
        amount = "" if self.amount is None else f" {self.amount} {self.currency}{total}"
        return (
            f"{self.event_id} at {self.occurred_at}: {self.kind} {self.outcome}{amount} of {about}{sequence}"
        )


@dataclass(eq=False)
class Conversion:
    event_id: str
    order_id: str | None
    occurred_at: int
    value: Decimal | None
    currency: str | None
    clicks: dict[str, str]
    """Token by the name of the place that is to have it."""
    partner_id: str | None = None
    sequence: int | None = None
    net: Decimal | None = None
    outcomes: set[str] = field(default_factory=set)

    def words(self) -> str:
        clicks = ", ".join(f"{place} {token}" for place, token in self.clicks.items())
        partner = "" if self.partner_id is None else f" partner {self.partner_id} sequence {self.sequence}"
        return (
            f"{self.event_id} at {self.occurred_at}: {self.value} order {self.order_id} for {clicks}{partner}"
        )


@dataclass(eq=False)
class Postback:
    number: int
    conversion: Conversion
    place: Place
    state: str
    release_at: int
    due_at: int | None
    expires_at: int | None = None
    void_reason: str | None = None
    duplicate_of: Postback | None = None
    attempts: int = 0
    first_attempt_at: int | None = None
    had_unknown: bool = False
    token: int | None = None
    attempt_id: int | None = None
    sending: Worth = NOTHING
    """What the attempt on the wire, or the last one, tells the network."""
    told: Worth = NOTHING
    """Of one delivered: what its network was told last."""
    kind: str | None = None
    """Of a correction: ``retraction`` or ``restatement``."""
    corrects: Postback | None = None
    corrections: list[Postback] = field(default_factory=list)
    lost: bool = False
    overtaken: bool = False
    """Of a correction: a signal came while it was on the wire. If it fails, what stands now has not been tried."""
    budget_from: int = 0
    """Attempts made before a person fired it again."""
    stays: str | None = None
    """What it is again, if a person fired it again and that comes to nothing."""
    freed: bool = False
    """A person said that its network has not counted it: its place is free."""
    run: int | None = None
    """Which run of replays took it up last."""
    failed_telling: Worth | Literal["untold"] = "untold"
    """Of one delivered: what a correction failed to tell. It is not tried again until something else stands."""

    @property
    def label(self) -> str:
        nth = "" if self.corrects is None else f" {self.kind} {self.corrects.corrections.index(self) + 1}"
        return f"{self.conversion.event_id}@{self.place.name}{nth}"

    @property
    def lost_amount(self) -> Decimal | None:
        """By how much the network shows too much (or, negative, too little), where the conversion has a value."""
        if not self.lost or self.conversion.value is None:
            return None
        return amount_of(self.told) - amount_of(stands(self))


def gives_its_place_away(postback: Postback) -> bool:
    """Whether another one that its network would take for it may fire."""
    return postback.freed or postback.state in GIVES_ITS_PLACE_AWAY


def amount_of(worth: Worth) -> Decimal:
    return Decimal(0) if worth is None or worth == NOTHING else Decimal(worth)


# --- What a set of signals comes to -------------------------------------------------------------------------------


def names(signal: Signal, conversion: Conversion) -> bool:
    """Whether a signal is about a conversion."""
    if signal.conversion_event_id is not None:
        return signal.conversion_event_id == conversion.event_id
    if signal.order_id != conversion.order_id:
        return False
    if signal.sequence is not None:
        return signal.sequence == conversion.sequence
    return conversion.sequence is None or conversion.occurred_at <= signal.occurred_at


def fold(conversion: Conversion, signals: list[Signal]) -> tuple[Decimal | None, set[str]]:
    """Net value and outcomes of a conversion, by all signals about it, in whatever order they came."""
    value, outcomes = conversion.value, set()
    disputed, dispute = _disputed(conversion, signals)
    decision = _last_word(signals, "credit_check", ["review", "approved", "declined"])
    outcomes |= {each for each in (dispute, decision) if each}
    outcomes |= {"cancel" for each in signals if each.kind == "cancel"}
    everything = any(each.kind == "refund" and each.amount is None for each in signals)
    if everything:
        outcomes.add("refund")
    if value is None:
        return None, outcomes
    taken = _refunded(conversion, signals) + disputed
    net = Decimal(0) if everything else max(value - taken, Decimal(0))
    if 0 < net < value:
        outcomes.add("partial_refund")
    if net == 0 and taken:
        outcomes.add("refund")
    return net, outcomes


def _refunded(conversion: Conversion, signals: list[Signal]) -> Decimal:
    """What was given back in parts that can be compared with the conversion's value."""
    deltas, total = Decimal(0), Decimal(0)
    for signal in signals:
        if signal.kind != "refund" or signal.amount is None:
            continue
        if signal.currency not in (None, conversion.currency):
            continue
        if signal.cumulative:
            total = max(total, signal.amount)
        else:
            deltas += signal.amount
    return max(deltas, total)


def _in_order(signals: list[Signal], kind: str, ranks: list[str]) -> list[Signal]:
    said = [each for each in signals if each.kind == kind]
    return sorted(said, key=lambda each: (each.occurred_at, ranks.index(each.outcome)))


def _last_word(signals: list[Signal], kind: str, ranks: list[str]) -> str | None:
    said = _in_order(signals, kind, ranks)
    return f"{kind}.{said[-1].outcome}" if said else None


def _disputed(conversion: Conversion, signals: list[Signal]) -> tuple[Decimal, str | None]:
    """The part of the value that is in dispute, or the outcome where all of it is, or the dispute was won."""
    disputes = _in_order(signals, "chargeback", ["opened", "won", "lost"])
    if not disputes:
        return Decimal(0), None
    last = f"chargeback.{disputes[-1].outcome}"
    said = [each for each in disputes if each.amount is not None]
    if last == "chargeback.won" or conversion.value is None or not said:
        return Decimal(0), last
    amount, currency = said[-1].amount, said[-1].currency
    assert amount is not None
    if currency not in (None, conversion.currency) or amount >= conversion.value:
        return Decimal(0), last
    return amount, None


def void_reason(policy: Policy, outcomes: set[str]) -> str | None:
    for outcome, reason in VOIDED_BY:
        if outcome in policy.void_on and outcome in outcomes:
            return reason
    return None


def wished(postback: Postback) -> str | None:
    """Why this postback's conversion is not to be reported, or None if it is."""
    return void_reason(postback.place.policy, postback.conversion.outcomes)


def stands(postback: Postback) -> Worth:
    """What a network that has this delivered postback should know."""
    return NOTHING if wished(postback) else postback.conversion.net
