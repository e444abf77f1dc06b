"""HubSpot: lists of changes, signed over method, address, body and time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest

from producers.hooks.hook import Delivery, Options
from producers.hooks.registry import HOOKS
from tests.unit.hooks.eight import NOW, changed, delivery, event, events, fixture, refusals, taken, verified

WON = {"events": {"deal.dealstage=closedwon": "purchase"}}
URL = "https://door.example.com/hooks/hubspot"


def signed(
    body: bytes, *, url: str = URL, signed_url: str = URL, secret: str = "client-secret", age_s: int = 0
) -> Delivery:
    """As HubSpot's page says: base64 of HMAC-SHA256 over method + uri + body + timestamp in milliseconds."""
    timestamp = str(int(NOW.timestamp() - age_s) * 1000)
    source = "POST" + signed_url + body.decode() + timestamp
    signature = base64.b64encode(
        hmac.new(secret.encode(), source.encode("utf-8"), hashlib.sha256).digest()
    ).decode()
    headers = {"x-hubspot-signature-v3": signature, "x-hubspot-request-timestamp": timestamp}
    return delivery(body, url=url, headers=headers)


def test_a_signed_delivery_is_genuine_under_the_new_and_the_old_secret() -> None:
    """While a secret is rotated both count; a third one does not."""
    sent = signed(fixture("hubspot_deal_won.json"))
    assert verified("hubspot", sent, "new-secret", "client-secret") is None
    assert "does not match" in (verified("hubspot", sent, "another") or "")


@pytest.mark.parametrize("age_s", [301, -301])
def test_a_signature_of_another_time_is_refused(age_s: int) -> None:
    """Five minutes are allowed, on either side."""
    assert "300 s are allowed" in (verified("hubspot", signed(b"[]", age_s=age_s), "client-secret") or "")
    assert verified("hubspot", signed(b"[]", age_s=age_s // 2), "client-secret") is None


def test_a_changed_body_is_refused() -> None:
    """The signature is of the bytes."""
    sent = signed(b'[{"a":1}]')
    forged = delivery(b'[{"a": 1}]', url=URL, headers=sent.headers)
    assert "does not match" in (verified("hubspot", forged, "client-secret") or "")


def test_only_the_encodings_on_hubspots_list_are_decoded_before_signing() -> None:
    """A colon and a slash are decoded in the address that is signed; a space and an ampersand stay as they are."""
    called = f"{URL}?back=https%3a%2F%2Fexample.com%20a%26b"
    meant = f"{URL}?back=https://example.com%20a%26b"
    assert verified("hubspot", signed(b"[]", url=called, signed_url=meant), "client-secret") is None


def test_a_delivery_without_headers_says_which_are_missing() -> None:
    """So a person sees that the app has signatures of another version."""
    assert "x-hubspot-signature-v3" in (verified("hubspot", delivery(b"[]"), "client-secret") or "")


def test_changes_become_events_by_the_sources_tables() -> None:
    """A deal's stage is a purchase of a fixed value, a contact's status a decision, and the rest means nothing."""
    found = events(
        "hubspot",
        fixture("hubspot_deal_won.json"),
        **WON,
        signals={"contact.loan_status=declined": "credit_check.declined"},
        values={"purchase": "49.9"},
        currency="EUR",
    )
    assert found == [
        {
            "type": "conversion",
            "event_id": "hubspot:3816279340:2209120:1246965",
            "name": "purchase",
            "order_id": "1246965",
            "occurred_at": "2026-09-21T14:13:21Z",
            "value": "49.90",
            "currency": "EUR",
        },
        {
            "type": "credit_check",
            "event_id": "hubspot:3816279480:2209121:33251",
            "order_id": "contact:33251",
            "occurred_at": "2026-09-21T14:13:23Z",
            "outcome": "declined",
            "reason": "API",
        },
    ]


def test_a_property_named_without_a_value_is_the_amount() -> None:
    """A property says what was refunded so far: that is a cumulative amount. Emptied, it says nothing."""
    options = {"signals": {"deal.refunded": "refund"}, "currency": "JPY"}
    refund = changed("hubspot_deal_won.json", **{"0__propertyName": "refunded", "0__propertyValue": "500"})
    found = event("hubspot", refund, **options)
    assert (found["amount"], found["amount_is"], found["currency"]) == ("500", "cumulative", "JPY")
    emptied = changed("hubspot_deal_won.json", **{"0__propertyName": "refunded", "0__propertyValue": ""})
    assert events("hubspot", emptied, **options) == []


def test_generic_subscriptions_name_the_same_objects() -> None:
    """``object.propertyChange`` of object type 0-3 is a deal's."""
    generic = changed("hubspot_deal_won.json", **{"0__subscriptionType": "object.propertyChange"})
    body = json.loads(generic)
    body[0]["objectTypeId"] = "0-3"
    assert event("hubspot", json.dumps(body).encode(), **WON)["order_id"] == "1246965"


def test_a_repeated_delivery_has_the_same_ids_in_any_order() -> None:
    """An attempt more changes the bytes, not the ids; two changes under one eventId are told apart."""
    once = fixture("hubspot_deal_won.json")
    again = json.loads(changed("hubspot_deal_won.json", **{"0__attemptNumber": 3, "1__attemptNumber": 3}))
    reversed_ = json.dumps(again[::-1]).encode()
    assert taken("hubspot", once, **WON).dedupe_id == taken("hubspot", reversed_, **WON).dedupe_id
    assert event("hubspot", once, **WON)["event_id"] == event("hubspot", reversed_, **WON)["event_id"]
    other = changed("hubspot_deal_won.json", **{"0__objectId": 7})
    assert event("hubspot", other, **WON)["event_id"] != event("hubspot", once, **WON)["event_id"]


def test_one_change_at_fault_leaves_the_others() -> None:
    """Each change stands for itself: what is wrong is named, the rest is taken."""
    broken = changed("hubspot_deal_won.json", **{"1__occurredAt": "yesterday"})
    understood = taken(
        "hubspot", broken, events={"deal.dealstage=closedwon": "a", "contact.loan_status=declined": "b"}
    )
    assert len(understood.candidates) == 1
    assert [refused.problems[0].field for refused in understood.refused] == ["occurredAt"]


def test_changes_that_nobody_asked_for_are_named() -> None:
    """The reason lists the topics, so that a person can copy one into the table."""
    understood = taken("hubspot", fixture("hubspot_deal_won.json"))
    assert "deal.dealstage=closedwon" in (understood.ignored or "")


def test_an_amount_without_a_currency_says_where_to_add_it() -> None:
    """HubSpot sends none with a change; a fixed value is found wanting before a delivery comes."""
    body = changed("hubspot_deal_won.json", **{"0__propertyName": "amount", "0__propertyValue": "10"})
    (problem,) = refusals("hubspot", body, events={"deal.amount": "purchase"})
    assert problem == "currency: is missing. Send it, or add currency to the source's table"
    wrong = Options("it", {"values": {"purchase": "1"}})
    assert [problem.field for problem in HOOKS["hubspot"].check(wrong)] == ["currency"]
