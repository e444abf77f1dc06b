"""AppsFlyer: JSON inside JSON, no signature, no id, and nothing is sent twice."""

from __future__ import annotations

import json

import pytest

from producers.hooks.hook import Options
from producers.hooks.registry import HOOKS
from tests.unit.hooks.eight import changed, delivery, event, fixture, refusals, taken, verified

PURCHASE = "appsflyer_purchase.json"


def test_it_is_known_by_its_key_its_address_or_both() -> None:
    """With both, both must be right; with neither nobody is let in."""
    sent = delivery(b"{}", url="https://door.example.com/hooks/it?key=sesame", peer="203.0.113.7")
    assert verified("appsflyer", sent, "old", "sesame") is None
    assert verified("appsflyer", sent, allow=["203.0.113.0/24"]) is None
    assert verified("appsflyer", sent, "sesame", allow=["203.0.113.0/24"]) is None
    assert "not in the source's allow list" in (
        verified("appsflyer", sent, "sesame", allow=["198.51.100.1"]) or ""
    )
    assert "is wrong" in (verified("appsflyer", sent, "other", allow=["203.0.113.7"]) or "")
    assert "neither" in (verified("appsflyer", sent) or "")
    assert "is missing" in (verified("appsflyer", delivery(b"{}"), "sesame") or "")


def test_a_purchase_is_read_from_both_layers() -> None:
    """The revenue from the message, the order id from the JSON text inside it, the instant as UTC."""
    found = event("appsflyer", fixture(PURCHASE), click_ids={"pushground": "af_sub5"})
    assert found.pop("event_id").startswith("appsflyer:")
    assert found == {
        "type": "conversion",
        "name": "purchase",
        "order_id": "A-1001",
        "occurred_at": "2026-09-21T14:13:20.123000Z",
        "value": "49.90",
        "currency": "EUR",
        "click_ids": {"pushground": "3f9c1b2a7d"},
    }


def test_the_inner_revenue_counts_where_the_outer_is_missing() -> None:
    """Accounts choose which fields are pushed."""
    found = event("appsflyer", changed(PURCHASE, event_revenue=None, event_revenue_currency=None))
    assert (found["value"], found["currency"]) == ("49.90", "EUR")


@pytest.mark.parametrize("inner", ["", None])
def test_an_install_has_no_value_and_no_order(inner: str | None) -> None:
    """Its event_value is empty."""
    body = changed(PURCHASE, event_name="install", event_value=inner, event_revenue=None)
    found = event("appsflyer", body)
    assert found["name"] == "install"
    assert not {"value", "currency", "order_id"} & set(found)


@pytest.mark.parametrize("name", ["af_purchase", "cancel_purchase"])
def test_negative_revenue_is_money_given_back(name: str) -> None:
    """AppsFlyer's way to take a purchase back is one of negative revenue."""
    found = event("appsflyer", changed(PURCHASE, event_name=name, event_revenue="-49.9"))
    assert (found["type"], found["amount"], found["order_id"]) == ("refund", "49.90", "A-1001")


def test_the_same_bytes_are_the_same_event_and_others_are_not() -> None:
    """There is no id to know it by."""
    once, other = fixture(PURCHASE), changed(PURCHASE, event_time="2026-09-21 14:13:20.124")
    assert taken("appsflyer", once).dedupe_id == taken("appsflyer", once).dedupe_id
    assert event("appsflyer", once)["event_id"] != event("appsflyer", other)["event_id"]


def test_unknown_events_are_ignored_by_name() -> None:
    """Apps push many."""
    body = changed(PURCHASE, event_name="af_level_achieved")
    assert "af_level_achieved is not mapped" in (taken("appsflyer", body).ignored or "")
    assert event("appsflyer", body, events={"af_level_achieved": "level"})["name"] == "level"


def test_what_cannot_be_read_is_named() -> None:
    """Broken inner JSON, a time that is none, a body that is no object."""
    assert "event_value: is no JSON text" in refusals("appsflyer", changed(PURCHASE, event_value="{"))[0]
    assert (
        "event_time: 'soon' is no instant" in refusals("appsflyer", changed(PURCHASE, event_time="soon"))[0]
    )
    assert "body: is no object" in refusals("appsflyer", json.dumps([1]).encode())[0]


def test_a_wrong_allow_list_is_told_before_a_delivery_comes() -> None:
    """Each entry at fault is named."""
    wrong = Options("it", {"allow": ["10.0.0", "10.0.0.1"]})
    assert [str(problem) for problem in HOOKS["appsflyer"].check(wrong)] == [
        'allow: is no list of addresses and networks. Write it like allow = ["203.0.113.0/24"]'
    ]
