"""Chargebee: invoices in minor units, behind Basic authentication."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.unit.hooks.eight import changed, delivery, event, events, fixture, refusals, taken, verified

PAID = "chargebee_payment_succeeded.json"
REFUNDED = "chargebee_payment_refunded.json"
CANCELLED = "chargebee_subscription_cancelled.json"


def test_basic_credentials_are_compared_whole() -> None:
    """The secret is user:password, as a colon in the password shows."""
    sent = delivery(b"{}", headers={"authorization": "Basic " + base64.b64encode(b"cb:pass:word").decode()})
    assert verified("chargebee", sent, "cb:pass:word") is None
    assert verified("chargebee", sent, "cb:pass") is not None
    assert "no Basic credentials" in (verified("chargebee", delivery(b"{}"), "cb:pass:word") or "")


def test_a_payment_is_a_conversion_of_its_invoice() -> None:
    """Minor units become the currency's own, and the click id comes from the subscription's meta data."""
    found = event("chargebee", fixture(PAID), click_ids={"xandr": "subscription.meta_data.sspdata"})
    assert found == {
        "type": "conversion",
        "event_id": "chargebee:ev_19yTSMHnJaEBS1T0Z",
        "name": "purchase",
        "order_id": "INV-104",
        "occurred_at": "2026-09-21T14:13:20Z",
        "value": "49.90",
        "currency": "EUR",
        "click_ids": {"xandr": "nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE."},
    }


@pytest.mark.parametrize(("currency", "value"), [("JPY", "4990"), ("KWD", "4.990"), ("USD", "49.90")])
def test_minor_units_are_the_currencys_own(currency: str, value: str) -> None:
    """Yen have none, dinars three."""
    found = event("chargebee", changed(PAID, content__transaction__currency_code=currency))
    assert (found["value"], found["currency"]) == (value, currency)


def test_a_refund_is_what_was_given_back_this_time() -> None:
    """It names the invoice that the credit note refers to, not the credit note."""
    found = event("chargebee", fixture(REFUNDED))
    assert (found["type"], found["order_id"], found["amount"]) == ("refund", "INV-104", "10.00")
    assert (found["amount_is"], found["reason"]) == ("delta", "Product Unsatisfactory")


@pytest.mark.parametrize("field", ["reason_code", "create_reason_code"])
def test_a_refund_for_a_chargeback_is_a_chargeback(field: str) -> None:
    """Chargebee records a lost dispute as a refund with this reason."""
    found = event("chargebee", changed(REFUNDED, **{f"content__credit_note__{field}": "Chargeback"}))
    assert (found["type"], found["outcome"], found["amount"]) == ("chargeback", "lost", "10.00")


def test_a_payment_of_several_invoices_is_a_conversion_of_each() -> None:
    """Each with the part that was applied to it, under an id of its own that a repetition has again."""
    links = [
        {"invoice_id": "INV-104", "applied_amount": 4000},
        {"invoice_id": "INV-105", "applied_amount": 990},
    ]
    body = changed(PAID, content__transaction__linked_invoices=links)
    assert [(each["order_id"], each["value"]) for each in events("chargebee", body)] == [
        ("INV-104", "40.00"),
        ("INV-105", "9.90"),
    ]
    ids = [each["event_id"] for each in events("chargebee", body)]
    assert len(set(ids)) == 2
    assert ids == [each["event_id"] for each in events("chargebee", body)]


def test_by_subscription_only_its_first_invoice_counts() -> None:
    """A renewal, and the refund of one, leave the subscription's conversion as it is."""
    by_subscription: dict[str, Any] = {"order_id": "subscription"}
    for name in (PAID, REFUNDED):
        assert event("chargebee", fixture(name), **by_subscription)["order_id"] == "16BdDXSlbu4uS1Ee4"
        renewal = taken("chargebee", changed(name, content__invoice__first_invoice=False), **by_subscription)
        assert "renewal" in (renewal.ignored or "")


def test_a_cancelled_subscription_cancels_it_where_subscriptions_are_orders() -> None:
    """Where invoices are, there is nothing it takes back, and the delivery says so."""
    found = event("chargebee", fixture(CANCELLED), order_id="subscription")
    assert found == {
        "type": "cancel",
        "event_id": "chargebee:ev_19yTSMHnJcX8V1T7q",
        "order_id": "16BdDXSlbu4uS1Ee4",
        "occurred_at": "2026-09-23T14:13:20Z",
        "reason": "Not needed",
    }
    assert 'order_id = "subscription"' in (taken("chargebee", fixture(CANCELLED)).ignored or "")


def test_a_repeated_delivery_is_known_by_its_id() -> None:
    """Chargebee repeats, and sends out of order."""
    assert taken("chargebee", fixture(PAID)).dedupe_id == "ev_19yTSMHnJaEBS1T0Z"


def test_other_topics_are_ignored_by_name() -> None:
    """A failed payment is no event until somebody says so."""
    body = changed(PAID, event_type="payment_failed")
    assert "payment_failed is not mapped" in (taken("chargebee", body).ignored or "")
    assert event("chargebee", body, events={"payment_failed": "dunning"})["name"] == "dunning"


def test_an_amount_that_is_no_whole_number_is_refused() -> None:
    """49.9 is in the currency, not in its minor units."""
    (problem,) = refusals("chargebee", changed(PAID, content__transaction__amount=49.9))
    assert problem.startswith("content.transaction.amount: is a number, not a whole number of minor units")
