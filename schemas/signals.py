"""What the signals about a conversion come to. Order and repetition do not matter: the set decides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from schemas.event import CancelSignal, ChargebackSignal, CreditCheckSignal, RefundSignal, Signal


class VoidReason(StrEnum):
    REFUNDED = "refunded"
    DECLINED = "declined"
    CANCELLED = "cancelled"
    CHARGED_BACK = "charged_back"


@dataclass(frozen=True, slots=True)
class Standing:
    """What is left of a conversion: ``void`` set means nothing is. ``notes`` by event id say what was not applied."""

    void: VoidReason | None
    net_value: Decimal | None
    notes: dict[str, str]


def standing(value: Decimal | None, currency: str | None, signals: Iterable[Signal]) -> Standing:
    """Fold every signal of one conversion.

    Deltas add up; a cumulative amount states the total at its time, so the largest counts. What was refunded
    is the greater of the two, a net of zero voids, and refunds of more than was paid leave zero with a note.
    A refund in another currency is kept with a note and not applied. A signal that comes again counts once.
    """
    notes: dict[str, str] = {}
    voids: set[VoidReason] = set()
    partial: list[RefundSignal] = []
    for signal in {(signal.source, signal.event_id): signal for signal in signals}.values():
        if reason := _voids(signal):
            voids.add(reason)
        elif note := _unapplied(signal, value, currency):
            notes[signal.event_id] = note
        elif isinstance(signal, RefundSignal):
            partial.append(signal)
    void = next((reason for reason in VoidReason if reason in voids), None)
    refunded = _refunded(partial)
    if value is None or not refunded:
        return Standing(void, value, notes)
    if refunded > value:
        notes["refunds"] = f"refunds add up to {refunded}, more than the {value} that was paid"
    net = max(value - refunded, Decimal(0))
    return Standing(void or (VoidReason.REFUNDED if not net else None), net, notes)


def _voids(signal: Signal) -> VoidReason | None:
    """What a signal voids by itself, whatever else came."""
    match signal:
        case CancelSignal():
            return VoidReason.CANCELLED
        case RefundSignal(amount=None):
            return VoidReason.REFUNDED
        case ChargebackSignal(outcome="opened" | "lost"):
            return VoidReason.CHARGED_BACK
        case CreditCheckSignal(outcome="declined"):
            return VoidReason.DECLINED
    return None


def _refunded(partial: list[RefundSignal]) -> Decimal:
    deltas = sum((s.amount for s in partial if s.amount and s.amount_is == "delta"), Decimal(0))
    totals = (s.amount for s in partial if s.amount and s.amount_is == "cumulative")
    return max(deltas, *totals, Decimal(0))


def _unapplied(signal: Signal, value: Decimal | None, currency: str | None) -> str | None:
    """Why a signal that voids nothing changes nothing either, or None for a refund that is applied."""
    if isinstance(signal, ChargebackSignal | CreditCheckSignal):
        return f"{signal.type} {signal.outcome}: no policy of this conversion acts on it"
    if not isinstance(signal, RefundSignal):
        return None
    if value is None:
        return "partial refund of a conversion without a value: not applied"
    if signal.currency is not None and signal.currency != currency:
        return f"refund in {signal.currency} of a conversion in {currency}: not applied"
    return None
