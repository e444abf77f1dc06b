"""Segment: track calls of its e-commerce specification, signed with SHA-1."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from producers.hooks.hook import Delivery
from tests.unit.hooks.eight import changed, delivery, event, fixture, refusals, taken, verified

COMPLETED = "segment_order_completed.json"
REFUNDED = "segment_order_refunded.json"


def signed(body: bytes, of: bytes | None = None) -> Delivery:
    """As Segment's page says: createHmac('sha1', secret).update(body).digest('hex')."""
    signature = hmac.new(b"shared", body if of is None else of, hashlib.sha1).hexdigest()
    return delivery(body, headers={"x-signature": signature})


def test_a_signed_call_is_genuine() -> None:
    """Under any of the secrets; a changed one is not."""
    body = fixture(COMPLETED).strip()
    assert verified("segment", signed(body), "old", "shared") is None
    assert "does not match" in (verified("segment", signed(body), "old") or "")
    forged = delivery(body.replace(b"25.0", b"99.0"), headers=signed(body).headers)
    assert "does not match" in (verified("segment", forged, "shared") or "")
    assert "no x-signature" in (verified("segment", delivery(body), "shared") or "")


def test_of_a_batch_nobody_vouches_for_more_than_the_first() -> None:
    """Segment signs the first call of a batch: a list of one is as good as the call, a longer one is refused."""
    call = fixture(COMPLETED).strip()
    assert verified("segment", signed(b"[" + call + b"]", of=call), "shared") is None
    smuggled = signed(b"[" + call + b"," + fixture(REFUNDED).strip() + b"]", of=call)
    assert "batch" in (verified("segment", smuggled, "shared") or "")
    assert event("segment", b"[" + call + b"]")["name"] == "purchase"


def test_a_completed_order_is_a_conversion_of_its_revenue() -> None:
    """Revenue is without shipping and tax; total would be with."""
    found = event("segment", fixture(COMPLETED), click_ids={"xandr": "properties.sspdata"})
    assert found == {
        "type": "conversion",
        "event_id": "segment:ajs-next-1790000000000-8f8b1d1e-0c8e-4f7e",
        "name": "purchase",
        "order_id": "50314b8e9bcf000000000000",
        "occurred_at": "2026-09-21T14:13:20.276000Z",
        "value": "25.00",
        "currency": "USD",
        "click_ids": {"xandr": "nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE."},
    }
    assert event("segment", fixture(COMPLETED), value="properties.total")["value"] == "27.50"


@pytest.mark.parametrize(
    ("written", "currency", "value"),
    [
        (b"49.9", b"USD", "49.90"),
        (b"49.900000000000006", b"EUR", "49.90"),
        (b'"39.95"', b"USD", "39.95"),
        (b"4990", b"JPY", "4990"),
        (b"4.9905", b"KWD", "4.991"),
        (b"0.285", b"EUR", "0.29"),
    ],
)
def test_numbers_of_javascript_become_amounts(written: bytes, currency: bytes, value: str) -> None:
    """What a float adds in the sixteenth digit does not come through."""
    body = fixture(COMPLETED).replace(b'"revenue":25.0', b'"revenue":' + written)
    assert event("segment", body.replace(b'"USD"', b'"' + currency + b'"'))["value"] == value


def test_a_refund_is_its_amount_or_all_of_the_order() -> None:
    """A refund without an amount is of everything."""
    found = event("segment", fixture(REFUNDED))
    assert (found["type"], found["amount"], found["amount_is"]) == ("refund", "10.00", "delta")
    assert "amount" not in event("segment", changed(REFUNDED, properties__total=None))


def test_a_cancelled_order_is_a_cancel() -> None:
    """Its revenue is no matter."""
    found = event("segment", changed(COMPLETED, event="Order Cancelled"))
    assert (found["type"], found["order_id"]) == ("cancel", "50314b8e9bcf000000000000")
    assert "amount" not in found


def test_other_calls_are_ignored_and_other_names_taken_where_the_table_says_so() -> None:
    """The defaults can be taken away as well."""
    assert "no track call but page" in (taken("segment", changed(COMPLETED, type="page")).ignored or "")
    assert "Signed Up is not mapped" in (
        taken("segment", changed(COMPLETED, event="Signed Up")).ignored or ""
    )
    assert (
        event("segment", changed(COMPLETED, event="Signed Up"), events={"Signed Up": "lead"})["name"]
        == "lead"
    )
    assert taken("segment", fixture(COMPLETED), events={"Order Completed": ""}).ignored is not None


def test_what_is_missing_is_named() -> None:
    """A refund has to name its order, an amount its currency, a call its id."""
    assert (
        "properties.order_id: is missing"
        in refusals("segment", changed(REFUNDED, properties__order_id=None))[0]
    )
    assert (
        "properties.currency: is missing"
        in refusals("segment", changed(COMPLETED, properties__currency=None))[0]
    )
    assert (
        event("segment", changed(COMPLETED, properties__currency=None), currency="CHF")["currency"] == "CHF"
    )
    assert "messageId: is missing" in refusals("segment", changed(COMPLETED, messageId=None))[0]
