"""What refunds, disputes and decisions leave of a conversion, case by case."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from schemas.event import Signal, read_event
from schemas.signals import VoidReason, standing

NOW = datetime(2026, 11, 22, tzinfo=UTC)
_numbers = itertools.count()


def _signal(kind: str, **fields: Any) -> Signal:
    raw = {"version": 1, "type": kind, "source": "billing", "order_id": "1", "occurred_at": NOW.isoformat()}
    event = read_event(raw | {"event_id": f"e{next(_numbers)}"} | fields, NOW)
    assert event.type != "conversion"
    return event


@pytest.mark.parametrize(
    ("signal", "reason"),
    [
        (_signal("refund"), VoidReason.REFUNDED),
        (_signal("refund", amount="50.00"), VoidReason.REFUNDED),
        (_signal("refund", amount="50.00", amount_is="cumulative", currency="EUR"), VoidReason.REFUNDED),
        (_signal("cancel"), VoidReason.CANCELLED),
        (_signal("chargeback", outcome="opened"), VoidReason.CHARGED_BACK),
        (_signal("chargeback", outcome="lost"), VoidReason.CHARGED_BACK),
        (_signal("credit_check", outcome="declined"), VoidReason.DECLINED),
    ],
)
def test_what_leaves_nothing_voids_with_its_reason(signal: Signal, reason: VoidReason) -> None:
    """Each kind of end has its own name."""
    assert standing(Decimal("50.00"), "EUR", [signal]).void is reason


def test_partial_refunds_add_up() -> None:
    """Two of ten leave thirty of fifty."""
    found = standing(Decimal("50.00"), "EUR", [_signal("refund", amount="10.00") for _ in range(2)])
    assert (found.void, found.net_value, found.notes) == (None, Decimal("30.00"), {})


def test_partial_refunds_that_add_up_to_all_void() -> None:
    """The last of them leaves nothing to report."""
    found = standing(Decimal("50.00"), "EUR", [_signal("refund", amount="25.00") for _ in range(2)])
    assert (found.void, found.net_value) == (VoidReason.REFUNDED, Decimal(0))


def test_a_cumulative_amount_states_the_total_so_far() -> None:
    """Ten, then fifteen in all: fifteen were refunded, in whichever order the two came."""
    came = [_signal("refund", amount=amount, amount_is="cumulative") for amount in ("15.00", "10.00")]
    assert standing(Decimal("50.00"), "EUR", came).net_value == Decimal("35.00")


def test_a_delta_and_a_total_of_the_same_refund_count_once() -> None:
    """Two sources tell of the same ten: the greater of both is taken, not their sum."""
    came = [_signal("refund", amount="10.00"), _signal("refund", amount="10.00", amount_is="cumulative")]
    assert standing(Decimal("50.00"), "EUR", came).net_value == Decimal("40.00")


def test_the_same_signal_twice_counts_once() -> None:
    """A queue delivers at least once."""
    signal = _signal("refund", amount="10.00")
    assert standing(Decimal("50.00"), "EUR", [signal, signal]).net_value == Decimal("40.00")


def test_a_refund_of_more_than_was_paid_leaves_nothing_and_a_note() -> None:
    """It voids, and somebody should look."""
    found = standing(Decimal("50.00"), "EUR", [_signal("refund", amount="60.00")])
    assert (found.void, found.net_value) == (VoidReason.REFUNDED, Decimal(0))
    assert "more than the 50.00" in found.notes["refunds"]


def test_a_refund_in_another_currency_is_noted_and_not_applied() -> None:
    """Ten dollars are not ten euros."""
    signal = _signal("refund", amount="10.00", currency="USD")
    found = standing(Decimal("50.00"), "EUR", [signal])
    assert (found.void, found.net_value) == (None, Decimal("50.00"))
    assert "USD" in found.notes[signal.event_id]


def test_a_partial_refund_of_a_conversion_without_a_value_is_noted() -> None:
    """Nothing can be subtracted from it."""
    signal = _signal("refund", amount="10.00")
    found = standing(None, None, [signal])
    assert (found.void, found.net_value) == (None, None)
    assert signal.event_id in found.notes


@pytest.mark.parametrize(
    "signal",
    [
        _signal("chargeback", outcome="won"),
        _signal("credit_check", outcome="approved"),
        _signal("credit_check", outcome="review"),
    ],
)
def test_a_signal_without_consequence_says_so(signal: Signal) -> None:
    """It is kept, and the note says that nothing acts on it."""
    found = standing(Decimal("50.00"), "EUR", [signal])
    assert (found.void, found.net_value) == (None, Decimal("50.00"))
    assert "no policy" in found.notes[signal.event_id]


def test_no_signals_leave_everything() -> None:
    """A conversion that nobody disputes stands in full."""
    found = standing(Decimal("50.00"), "EUR", [])
    assert (found.void, found.net_value, found.notes) == (None, Decimal("50.00"), {})
