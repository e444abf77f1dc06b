"""RevenueCat: each period of a subscription is an order of its own."""

from __future__ import annotations

import pytest

from producers.hooks.hook import Options
from producers.hooks.registry import HOOKS
from tests.unit.hooks.eight import changed, delivery, event, fixture, refusals, taken, verified

FIRST = "revenuecat_initial_purchase.json"
RENEWAL = "revenuecat_renewal.json"
REFUND = "revenuecat_refund.json"


def test_the_authorization_header_is_the_secret_as_it_was_typed() -> None:
    """RevenueCat sends what stands in its dashboard, with or without Bearer."""
    sent = delivery(b"{}", headers={"authorization": "Bearer rc-secret"})
    assert verified("revenuecat", sent, "Bearer rc-secret") is None
    assert verified("revenuecat", sent, "rc-secret") is not None


def test_a_first_purchase_is_what_the_buyer_paid() -> None:
    """In the currency it was bought in, not in the dollars it was converted to."""
    found = event("revenuecat", fixture(FIRST), click_ids={"xandr": "subscriber_attributes.sspdata.value"})
    assert found == {
        "type": "conversion",
        "event_id": "revenuecat:12345678-1234-1234-1234-123456789012",
        "name": "purchase",
        "order_id": "410001234567890",
        "occurred_at": "2026-09-21T14:13:20Z",
        "value": "7.99",
        "currency": "EUR",
        "click_ids": {"xandr": "nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE."},
    }


def test_without_a_currency_the_price_is_in_dollars() -> None:
    """A converted price has too many places: it is rounded to cents."""
    body = changed(FIRST, event__currency=None, event__price=8.136)
    found = event("revenuecat", body)
    assert (found["value"], found["currency"]) == ("8.14", "USD")


def test_a_refund_takes_back_the_latest_period_only() -> None:
    """It carries that period's transaction, so the first period's conversion is another order."""
    renewal, refund = event("revenuecat", fixture(RENEWAL)), event("revenuecat", fixture(REFUND))
    assert (renewal["name"], renewal["sequence"]) == ("renewal", 2)
    assert refund["order_id"] == renewal["order_id"] != event("revenuecat", fixture(FIRST))["order_id"]
    assert (refund["amount"], refund["amount_is"]) == ("7.99", "delta")


def test_periods_that_share_an_order_id_are_told_apart_by_sequence() -> None:
    """The first one is 0, so that a refund of a later one does not reach it."""
    found = [
        event("revenuecat", fixture(name), order_id="original_transaction_id")
        for name in (FIRST, RENEWAL, REFUND)
    ]
    assert {each["order_id"] for each in found} == {"410001234567890"}
    assert [each["sequence"] for each in found] == [0, 2, 2]


def test_a_refund_that_states_no_negative_price_is_of_all_of_it() -> None:
    """Then the price is the period's, and says nothing of how much went back."""
    body = changed(REFUND, event__price=8.14, event__price_in_purchased_currency=7.99)
    found = event("revenuecat", body)
    assert found["type"] == "refund"
    assert "amount" not in found


def test_a_cancellation_without_money_is_no_refund() -> None:
    """Somebody who will not renew keeps what was paid for; a table may still call it a cancel."""
    body = changed(
        REFUND,
        event__cancel_reason="UNSUBSCRIBE",
        event__price=8.14,
        event__price_in_purchased_currency=7.99,
    )
    assert "CANCELLATION.UNSUBSCRIBE is not mapped" in (taken("revenuecat", body).ignored or "")
    assert event("revenuecat", body, signals={"CANCELLATION.UNSUBSCRIBE": "cancel"})["type"] == "cancel"


def test_trials_are_trials_and_their_first_payment_the_purchase() -> None:
    """A trial costs 0, which is no value; the renewal that ends it is the first money."""
    trial = changed(FIRST, event__period_type="TRIAL", event__price=0, event__price_in_purchased_currency=0)
    assert event("revenuecat", trial)["name"] == "trial"
    assert "value" not in event("revenuecat", trial)
    assert event("revenuecat", changed(RENEWAL, event__is_trial_conversion=True))["name"] == "purchase"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("event__environment", "SANDBOX", "sandbox"),
        ("event__is_family_share", True, "family"),
        ("event__period_type", "PROMOTIONAL", "PROMOTIONAL is not mapped"),
        ("event__type", "TEST", "not mapped"),
    ],
)
def test_what_nobody_paid_for_is_no_conversion(field: str, value: object, reason: str) -> None:
    """Sandbox purchases, family shares, promotions and tests look like purchases."""
    assert reason in (taken("revenuecat", changed(FIRST, **{field: value})).ignored or "")


def test_sandbox_purchases_are_taken_where_the_table_says_so() -> None:
    """For trying the whole way through."""
    body = changed(FIRST, event__environment="SANDBOX")
    assert event("revenuecat", body, sandbox=True)["name"] == "purchase"


def test_a_repetition_has_the_same_ids() -> None:
    """RevenueCat repeats with the same event id."""
    assert taken("revenuecat", fixture(FIRST)).dedupe_id == "12345678-1234-1234-1234-123456789012"


def test_a_purchase_with_a_negative_price_is_refused() -> None:
    """It contradicts itself; a person looks."""
    (problem,) = refusals("revenuecat", changed(FIRST, event__price_in_purchased_currency=-1))
    assert problem.startswith("event.price: is negative in INITIAL_PURCHASE")


def test_a_table_that_cannot_be_meant_is_told_before_a_delivery_comes() -> None:
    """A signal that there is none of, an unknown order id, a sandbox that is a word."""
    wrong = Options("it", {"signals": {"X": "void"}, "order_id": "product_id", "sandbox": "yes"})
    assert [problem.field for problem in HOOKS["revenuecat"].check(wrong)] == [
        "signals.X",
        "order_id",
        "sandbox",
    ]
