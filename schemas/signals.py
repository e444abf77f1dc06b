"""What the signals about a conversion come to. Order and repetition do not matter: the set decides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Literal, Protocol, get_args

from schemas.event import CancelSignal, ChargebackSignal, CreditCheckSignal, RefundSignal, Signal

TakenBack = Literal[
    "refund", "partial_refund", "cancel", "chargeback.opened", "chargeback.lost", "credit_check.declined"
]
"""Outcomes that take a conversion back: ``refund`` when nothing is left of its value, ``partial_refund`` when something
is, and a chargeback when all of it is disputed; a smaller dispute only takes its amount off the value."""
Confirmed = Literal["credit_check.approved", "chargeback.won"]
"""Outcomes that confirm a conversion."""
Undecided = Literal["credit_check.review"]
Outcome = TakenBack | Confirmed | Undecided

OUTCOMES: tuple[Outcome, ...] = (*get_args(TakenBack), *get_args(Confirmed), *get_args(Undecided))


class VoidReason(StrEnum):
    """Why a postback never fires."""

    REFUNDED = "refunded"
    DECLINED = "declined"
    CANCELLED = "cancelled"
    CHARGED_BACK = "charged_back"
    UNCONFIRMED = "unconfirmed"
    """What its policy waits for never came: a credit decision, or an answer of the service that is asked."""
    BY_HAND = "by_hand"
    ERASED = "erased"
    """A person asked that what is known of them be made unreadable."""
    WITHDRAWN = "withdrawn"
    """Of an adjustment: there is nothing left to correct."""


SIGNALLED = frozenset(
    {VoidReason.REFUNDED, VoidReason.DECLINED, VoidReason.CANCELLED, VoidReason.CHARGED_BACK}
)
"""Reasons that signals give, and that other signals may withdraw: a dispute is won, a decision is revised."""

REASONS: dict[TakenBack, VoidReason] = {
    "refund": VoidReason.REFUNDED,
    "partial_refund": VoidReason.REFUNDED,
    "credit_check.declined": VoidReason.DECLINED,
    "cancel": VoidReason.CANCELLED,
    "chargeback.opened": VoidReason.CHARGED_BACK,
    "chargeback.lost": VoidReason.CHARGED_BACK,
}
"""In order of precedence, where several stand."""

_DISPUTE_RANKS = {"opened": 0, "won": 1, "lost": 2}
_CREDIT_RANKS = {"review": 0, "approved": 1, "declined": 2}


@dataclass(frozen=True, slots=True)
class Standing:
    """What is left of a conversion (``net_value``), and the ``outcomes`` that hold of it as of now.

    ``notes`` by event id say what was not applied, and why.
    """

    net_value: Decimal | None
    outcomes: frozenset[Outcome]
    notes: dict[str, str]


class Named(Protocol):
    """What a signal names a conversion by."""

    @property
    def event_id(self) -> str: ...
    @property
    def order_id(self) -> str | None: ...
    @property
    def sequence(self) -> int | None: ...
    @property
    def occurred_at(self) -> datetime: ...


def names(signal: Signal, conversion: Named) -> bool:
    """Whether a signal is about a conversion: by its event id, or else by its order id.

    Rebills share an order id and are told apart by ``sequence``: a signal with one is about that rebill alone. One
    without is about those that had occurred by then: what is refunded today takes nothing off next month's.
    """
    if signal.conversion_event_id is not None:
        return signal.conversion_event_id == conversion.event_id
    if signal.order_id != conversion.order_id:
        return False
    if signal.sequence is not None:
        return signal.sequence == conversion.sequence
    return conversion.sequence is None or conversion.occurred_at <= signal.occurred_at


def standing(value: Decimal | None, currency: str | None, signals: Iterable[Signal]) -> Standing:
    """Fold every signal of one conversion.

    Deltas add up; a cumulative amount states the total at its time, so the largest counts, and what was refunded
    is the greater of the two. Of a dispute and of a credit check the latest word by its own clock holds; of two at one
    instant the more final, then the worse. A dispute over a part of the value takes that part off while it is open or
    lost; it keeps the amount said last. What is left is never below zero. A refund in another currency is kept with
    a note and not applied. A signal that comes again counts once.
    """
    notes: dict[str, str] = {}
    once = list({(signal.source, signal.event_id): signal for signal in signals}.values())
    partial: list[RefundSignal] = []
    for signal in once:
        if isinstance(signal, RefundSignal) and signal.amount is not None:
            if note := _unapplied(signal, value, currency):
                notes[signal.event_id] = note
            else:
                partial.append(signal)
    dispute, disputed = _dispute(once, value, currency)
    outcomes = {
        outcome for outcome in (*map(_takes_all, once), _credit(once), dispute) if outcome is not None
    }
    taken = _refunded(partial) + disputed
    if value is not None and "refund" in outcomes:
        taken = max(taken, value)
    if value is None or not taken:
        return Standing(value, frozenset(outcomes), notes)
    if taken > value:
        notes["refunds"] = f"refunds add up to {taken}, more than the {value} that was paid"
    net = max(value - taken, Decimal(0))
    outcomes.add("partial_refund" if net else "refund")
    return Standing(net, frozenset(outcomes), notes)


_DISPUTES: dict[str, Outcome] = {
    "opened": "chargeback.opened",
    "won": "chargeback.won",
    "lost": "chargeback.lost",
}
_CREDITS: dict[str, Outcome] = {
    "review": "credit_check.review",
    "approved": "credit_check.approved",
    "declined": "credit_check.declined",
}


def _takes_all(signal: Signal) -> Outcome | None:
    """What a signal that needs no other to be understood takes back."""
    match signal:
        case CancelSignal():
            return "cancel"
        case RefundSignal(amount=None):
            return "refund"
    return None


def confirmed_by(signal: Signal) -> Outcome | None:
    """The confirmation that a signal is, whatever else came."""
    match signal:
        case CreditCheckSignal(outcome="approved"):
            return "credit_check.approved"
        case ChargebackSignal(outcome="won"):
            return "chargeback.won"
    return None


def _refunded(partial: list[RefundSignal]) -> Decimal:
    deltas = sum((s.amount for s in partial if s.amount and s.amount_is == "delta"), Decimal(0))
    totals = (s.amount for s in partial if s.amount and s.amount_is == "cumulative")
    return max(deltas, *totals, Decimal(0))


def _credit(signals: Iterable[Signal]) -> Outcome | None:
    decisions = [signal for signal in signals if isinstance(signal, CreditCheckSignal)]
    if not decisions:
        return None
    return _CREDITS[max(decisions, key=lambda s: (s.occurred_at, _CREDIT_RANKS[s.outcome])).outcome]


def _dispute(
    signals: Iterable[Signal], value: Decimal | None, currency: str | None
) -> tuple[Outcome | None, Decimal]:
    """Where the dispute stands, and what it takes off the value: all of it is an outcome, a part of it an amount.

    All of it is disputed where no amount was ever said, and where the amount cannot be compared with the value.
    """
    found = [signal for signal in signals if isinstance(signal, ChargebackSignal)]
    if not found:
        return None, Decimal(0)
    found.sort(key=lambda s: (s.occurred_at, _DISPUTE_RANKS[s.outcome], s.source, s.event_id))
    last, said = found[-1], [signal for signal in found if signal.amount is not None]
    if last.outcome == "won" or not said or value is None:
        return _DISPUTES[last.outcome], Decimal(0)
    amount = said[-1].amount or Decimal(0)
    if said[-1].currency not in {None, currency} or amount >= value:
        return _DISPUTES[last.outcome], Decimal(0)
    return None, amount


def _unapplied(signal: RefundSignal, value: Decimal | None, currency: str | None) -> str | None:
    """Why a partial refund changes nothing, or None if it is applied."""
    if value is None:
        return "partial refund of a conversion without a value: not applied"
    if signal.currency is not None and signal.currency != currency:
        return f"refund in {signal.currency} of a conversion in {currency}: not applied"
    return None
