"""What refunds, disputes and decisions leave of a conversion, case by case."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from schemas.event import Signal, read_event
from schemas.hold import HoldPolicy
from schemas.signals import Named, Outcome, Standing, VoidReason, names, standing

NOW = datetime(2026, 11, 22, tzinfo=UTC)
_numbers = itertools.count()


def _signal(kind: str, **fields: Any) -> Signal:
    raw = {"version": 1, "type": kind, "source": "billing", "order_id": "1", "occurred_at": NOW.isoformat()}
    event = read_event(raw | {"event_id": f"e{next(_numbers)}"} | fields, NOW)
    assert event.type != "conversion"
    return event


def void(found: Standing) -> VoidReason | None:
    """Under the policy that a destination has if it says nothing."""
    return HoldPolicy().void_reason(found.outcomes)


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
    assert void(standing(Decimal("50.00"), "EUR", [signal])) is reason


def test_partial_refunds_add_up() -> None:
    """Two of ten leave thirty of fifty."""
    found = standing(Decimal("50.00"), "EUR", [_signal("refund", amount="10.00") for _ in range(2)])
    assert (void(found), found.net_value, found.notes) == (None, Decimal("30.00"), {})


def test_partial_refunds_that_add_up_to_all_void() -> None:
    """The last of them leaves nothing to report."""
    found = standing(Decimal("50.00"), "EUR", [_signal("refund", amount="25.00") for _ in range(2)])
    assert (void(found), found.net_value) == (VoidReason.REFUNDED, Decimal(0))


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
    assert (void(found), found.net_value) == (VoidReason.REFUNDED, Decimal(0))
    assert "more than the 50.00" in found.notes["refunds"]


def test_a_refund_in_another_currency_is_noted_and_not_applied() -> None:
    """Ten dollars are not ten euros."""
    signal = _signal("refund", amount="10.00", currency="USD")
    found = standing(Decimal("50.00"), "EUR", [signal])
    assert (void(found), found.net_value) == (None, Decimal("50.00"))
    assert "USD" in found.notes[signal.event_id]


def test_a_partial_refund_of_a_conversion_without_a_value_is_noted() -> None:
    """Nothing can be subtracted from it."""
    signal = _signal("refund", amount="10.00")
    found = standing(None, None, [signal])
    assert (void(found), found.net_value) == (None, None)
    assert signal.event_id in found.notes


@pytest.mark.parametrize(
    ("came", "outcome"),
    [
        ([("credit_check", "review", 0)], "credit_check.review"),
        ([("credit_check", "review", 0), ("credit_check", "approved", 1)], "credit_check.approved"),
        ([("credit_check", "approved", 1), ("credit_check", "review", 0)], "credit_check.approved"),
        ([("credit_check", "declined", 0), ("credit_check", "approved", 1)], "credit_check.approved"),
        ([("credit_check", "approved", 0), ("credit_check", "declined", 0)], "credit_check.declined"),
        ([("chargeback", "opened", 0), ("chargeback", "won", 1)], "chargeback.won"),
        ([("chargeback", "won", 1), ("chargeback", "opened", 0)], "chargeback.won"),
        ([("chargeback", "won", 0), ("chargeback", "opened", 1)], "chargeback.opened"),
        ([("chargeback", "won", 0), ("chargeback", "lost", 0)], "chargeback.lost"),
    ],
)
@pytest.mark.parametrize("turn", [1, -1])
def test_the_latest_word_of_a_decision_or_dispute_holds(
    came: list[tuple[str, str, int]], outcome: Outcome, turn: int
) -> None:
    """By its own clock, not by its arrival; at one instant the more final and then the worse."""
    signals = [
        _signal(kind, outcome=said, occurred_at=(NOW - timedelta(hours=1 - hour)).isoformat())
        for kind, said, hour in came
    ]
    assert standing(Decimal("50.00"), "EUR", signals[::turn]).outcomes == {outcome}


@pytest.mark.parametrize(
    ("came", "net", "outcomes"),
    [
        ([("opened", "10.00", "EUR")], "40.00", {"partial_refund"}),
        ([("opened", "10.00", None), ("lost", None, None)], "40.00", {"partial_refund"}),
        ([("opened", "10.00", "EUR"), ("won", None, None)], "50.00", {"chargeback.won"}),
        ([("opened", "50.00", "EUR")], "50.00", {"chargeback.opened"}),
        ([("opened", "10.00", "USD")], "50.00", {"chargeback.opened"}),
        ([("opened", None, None), ("lost", None, None)], "50.00", {"chargeback.lost"}),
    ],
)
def test_a_dispute_over_a_part_takes_that_part_off_while_it_stands(
    came: list[tuple[str, str | None, str | None]], net: str, outcomes: set[Outcome]
) -> None:
    """Ten of fifty disputed leave forty, until it is won; what cannot be compared disputes all of it."""
    signals = []
    for hour, (said, amount, currency) in enumerate(came):
        given = {"amount": amount, "currency": currency}
        at = (NOW - timedelta(hours=2 - hour)).isoformat()
        kept = {name: value for name, value in given.items() if value is not None}
        signals.append(_signal("chargeback", outcome=said, occurred_at=at, **kept))
    found = standing(Decimal("50.00"), "EUR", signals)
    assert (found.net_value, found.outcomes) == (Decimal(net), outcomes)


@dataclass(frozen=True)
class Rebill:
    """A conversion as signals name it."""

    sequence: int | None
    occurred_at: datetime = NOW
    event_id: str = "c"
    order_id: str | None = "1"


@pytest.mark.parametrize(
    ("fields", "conversion", "named"),
    [
        ({}, Rebill(None), True),
        ({"order_id": "2"}, Rebill(None), False),
        ({"order_id": "2", "conversion_event_id": "c"}, Rebill(2), True),
        ({"conversion_event_id": "other"}, Rebill(None), False),
        ({"sequence": 2}, Rebill(2), True),
        ({"sequence": 2}, Rebill(1), False),
        ({"sequence": 2}, Rebill(None), False),
        ({}, Rebill(2), True),
        ({}, Rebill(2, NOW + timedelta(days=30)), False),
        ({"sequence": 2}, Rebill(2, NOW + timedelta(days=30)), True),
    ],
)
def test_a_signal_names_its_conversion_by_event_or_by_order_and_rebill(
    fields: dict[str, Any], conversion: Named, *, named: bool
) -> None:
    """Of rebills the one it gives the sequence of, or all that had occurred by then."""
    assert names(_signal("refund", **fields), conversion) is named


def test_no_signals_leave_everything() -> None:
    """A conversion that nobody disputes stands in full."""
    found = standing(Decimal("50.00"), "EUR", [])
    assert (found.outcomes, found.net_value, found.notes) == (frozenset(), Decimal("50.00"), {})
