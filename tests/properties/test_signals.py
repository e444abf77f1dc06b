"""Laws of the fold: neither the order of signals nor their repetition matters."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.event import CancelSignal, ChargebackSignal, CreditCheckSignal, RefundSignal, Signal
from schemas.hold import HoldPolicy
from schemas.signals import Standing, VoidReason, standing

quick = settings(max_examples=300, deadline=None)
COMMON = {
    "version": 1,
    "source": "billing",
    "occurred_at": datetime(2026, 11, 22, tzinfo=UTC),
    "order_id": "1",
}


def void(found: Standing) -> VoidReason | None:
    """Under the policy that a destination has if it says nothing."""
    return HoldPolicy().void_reason(found.outcomes)


amounts = st.decimals(0, 10**6, places=2)
currencies = st.sampled_from([None, "EUR", "USD"])
shapes = st.one_of(
    st.builds(
        lambda amount, how, currency: (
            RefundSignal,
            {"type": "refund", "amount": amount, "amount_is": how, "currency": currency},
        ),
        st.none() | amounts,
        st.sampled_from(["delta", "cumulative"]),
        currencies,
    ),
    st.sampled_from(["opened", "won", "lost"]).map(
        lambda o: (ChargebackSignal, {"type": "chargeback", "outcome": o})
    ),
    st.sampled_from(["approved", "declined", "review"]).map(
        lambda o: (CreditCheckSignal, {"type": "credit_check", "outcome": o})
    ),
    st.just((CancelSignal, {"type": "cancel"})),
)
signals = st.lists(shapes, max_size=6).map(
    lambda chosen: [
        kind(**COMMON, **fields, event_id=str(number)) for number, (kind, fields) in enumerate(chosen)
    ]
)
values = st.none() | amounts


@quick
@given(values, signals, st.randoms(use_true_random=False))
def test_the_order_of_signals_does_not_matter(
    value: Decimal | None, came: list[Signal], chance: object
) -> None:
    """Refund before its conversion or after it, one before the other or not: the standing is the same."""
    shuffled = list(came)
    chance.shuffle(shuffled)  # type: ignore[attr-defined] # hypothesis gives a random.Random
    assert standing(value, "EUR", shuffled) == standing(value, "EUR", came)


@quick
@given(values, signals, st.data())
def test_a_signal_that_comes_again_changes_nothing(
    value: Decimal | None, came: list[Signal], data: st.DataObject
) -> None:
    """Delivered twice by the queue or sent twice by its source, it counts once."""
    again = data.draw(st.lists(st.sampled_from(came), max_size=4)) if came else []
    assert standing(value, "EUR", [*came, *again]) == standing(value, "EUR", came)


@quick
@given(amounts, signals)
def test_the_net_value_never_grows_and_never_falls_below_zero(value: Decimal, came: list[Signal]) -> None:
    """What is left lies between nothing and what was paid; nothing left voids."""
    found = standing(value, "EUR", came)
    assert found.net_value is not None
    assert 0 <= found.net_value <= value
    if value and not found.net_value:
        assert void(found) is not None


@quick
@given(values, signals, shapes)
def test_only_a_won_dispute_or_a_decision_takes_a_void_back(
    value: Decimal | None, came: list[Signal], shape: tuple[type, dict[str, object]]
) -> None:
    """Once void, a conversion stays void whatever comes after, but for what withdraws the reason."""
    kind, fields = shape
    before = standing(value, "EUR", came)
    if void(before) is not None and fields.get("outcome") not in {"won", "approved", "review"}:
        assert void(standing(value, "EUR", [*came, kind(**COMMON, **fields, event_id="last")])) is not None


@quick
@given(values, signals)
def test_what_was_not_applied_is_noted(value: Decimal | None, came: list[Signal]) -> None:
    """Every signal either counts or says in a note why it does not."""
    found = standing(value, "EUR", came)
    for signal in came:
        alone = standing(value, "EUR", [signal])
        counts = bool(alone.outcomes) or alone.net_value != value or getattr(signal, "amount", None) == 0
        assert counts or signal.event_id in found.notes


def test_the_first_reason_of_the_list_names_a_void_with_several() -> None:
    """A cancelled order that was refunded as well is called refunded, whichever came first."""
    refund = RefundSignal(**COMMON, type="refund", event_id="a")
    cancel = CancelSignal(**COMMON, type="cancel", event_id="b")
    assert void(standing(None, None, [cancel, refund])) is VoidReason.REFUNDED
