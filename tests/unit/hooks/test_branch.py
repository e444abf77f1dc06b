"""Branch: its default JSON, or a GET that names the same fields."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

import pytest

from producers.hooks.hook import Delivery
from tests.unit.hooks.eight import changed, delivery, event, fixture, refusals, taken, verified

PURCHASE = "branch_purchase.json"
PARAMETERS = dict(parse_qsl(fixture("branch-get_purchase.txt").decode().strip()))
CLICKS = {"click_ids": {"xandr": "last_attributed_touch_data.sspdata"}}


def called(**values: str) -> Delivery:
    query = urlencode({**PARAMETERS, **values})
    return delivery(url=f"https://door.example.com/hooks/it?{query}", method="GET")


def test_the_key_in_the_url_makes_it_genuine() -> None:
    """Of both ways."""
    assert verified("branch-get", called(), "sesame") is None
    assert (
        verified("branch", delivery(b"{}", url="https://door.example.com/hooks/it?key=no"), "sesame")
        is not None
    )


def test_both_ways_say_the_same() -> None:
    """An event's id is a number of 64 bits, which no float touches."""
    posted, got = event("branch", fixture(PURCHASE), **CLICKS), event("branch-get", called(), **CLICKS)
    assert posted == got
    assert posted == {
        "type": "conversion",
        "event_id": "branch:508211337654312345",
        "name": "purchase",
        "order_id": "A-1001",
        "occurred_at": "2026-09-21T14:13:20.123000Z",
        "value": "49.90",
        "currency": "EUR",
        "click_ids": {"xandr": "3f9c1b2a7d"},
    }


def test_parameters_that_came_empty_are_not_there() -> None:
    """As Branch's macros end in (…)!, which leaves nothing where there is nothing."""
    found = event("branch-get", called(**{"event_data.revenue": "", "event_data.transaction_id": ""}))
    assert not {"value", "order_id"} & set(found)


def test_negative_revenue_is_money_given_back() -> None:
    """An order is named by its transaction id."""
    found = event("branch", changed(PURCHASE, event_data__revenue=-10))
    assert (found["type"], found["amount"], found["order_id"]) == ("refund", "10.00", "A-1001")


def test_a_repetition_has_the_same_id() -> None:
    """It is the event's own."""
    assert taken("branch", fixture(PURCHASE)).dedupe_id == taken("branch-get", called()).dedupe_id


def test_other_events_are_taken_where_the_table_says_so() -> None:
    """An OPEN is none by itself."""
    assert "OPEN is not mapped" in (taken("branch", changed(PURCHASE, name="OPEN")).ignored or "")
    assert event("branch", changed(PURCHASE, name="OPEN"), events={"OPEN": "open"})["name"] == "open"


@pytest.mark.parametrize("field", ["id", "name", "timestamp"])
def test_what_is_missing_is_named(field: str) -> None:
    """Each field that is needed."""
    assert refusals("branch", changed(PURCHASE, **{field: None}))[0].startswith(f"{field}: is ")
