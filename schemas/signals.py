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
    is the greater of the two; a net of zero voids. A refund in another currency, or of more than was paid, is
    kept with a note and not applied.
    """
    deltas, cumulative = Decimal(0), Decimal(0)
    voids: set[VoidReason] = set()
    notes: dict[str, str] = {}
    for signal in signals:
        match signal:
            case CancelSignal():
                voids.add(VoidReason.CANCELLED)
            case RefundSignal(amount=None):
                voids.add(VoidReason.REFUNDED)
            case RefundSignal():
                assert signal.amount is not None
                fault = _refund_fault(signal, value, currency)
                if fault:
                    notes[signal.event_id] = fault
                elif signal.amount_is == "delta":
                    deltas += signal.amount
                else:
                    cumulative = max(cumulative, signal.amount)
            case ChargebackSignal(outcome="opened" | "lost"):
                voids.add(VoidReason.CHARGED_BACK)
            case CreditCheckSignal(outcome="declined"):
                voids.add(VoidReason.DECLINED)
            case _:
                notes[signal.event_id] = (
                    f"{signal.type} {signal.outcome}: no policy of this conversion acts on it"
                )
    void = next((reason for reason in VoidReason if reason in voids), None)
    refunded = max(deltas, cumulative)
    if value is None or not refunded:
        return Standing(void, value, notes)
    if refunded > value:
        notes["refunds"] = f"refunds add up to {refunded}, more than the {value} that was paid"
    net = max(value - refunded, Decimal(0))
    return Standing(void or (VoidReason.REFUNDED if not net else None), net, notes)


def _refund_fault(signal: RefundSignal, value: Decimal | None, currency: str | None) -> str | None:
    if value is None:
        return "partial refund of a conversion without a value: not applied"
    if signal.currency is not None and signal.currency != currency:
        return f"refund in {signal.currency} of a conversion in {currency}: not applied"
    return None
