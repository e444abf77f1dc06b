"""Adjust: a GET whose parameters the account chooses."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from producers.hooks.hook import Delivery
from tests.unit.hooks.eight import delivery, event, fixture, refusals, taken, verified

CALLBACK = dict(parse_qsl(fixture("adjust_event.txt").decode().strip()))
TOKENS: dict[str, Any] = {"events": {"bkrfgq": "purchase"}}


def callback(method: str = "GET", **values: str | None) -> Delivery:
    parameters = {name: value for name, value in {**CALLBACK, **values}.items() if value is not None}
    return delivery(url=f"https://door.example.com/hooks/it?{urlencode(parameters)}", method=method)


def test_the_key_in_the_url_makes_it_genuine() -> None:
    """Adjust signs nothing; the parameter may have another name."""
    assert verified("adjust", callback(), "sesame") is None
    assert "key is wrong" in (verified("adjust", callback(key="other"), "sesame") or "")
    assert verified("adjust", callback(key=None, token="sesame"), "sesame", key="token") is None


def test_an_event_is_named_by_its_token_or_its_name() -> None:
    """Tokens never change, names can; the token comes first."""
    found = event("adjust", callback(), **TOKENS, click_ids={"pushground": "subid"})
    assert found == {
        "type": "conversion",
        "event_id": "adjust:k3jh4g5k3j",
        "name": "purchase",
        "order_id": "A-1001",
        "occurred_at": "2026-09-21T14:13:20Z",
        "value": "49.90",
        "currency": "EUR",
        "click_ids": {"pushground": "3f9c1b2a7d"},
    }
    assert event("adjust", callback(), events={"purchase_100_coins": "coins"})["name"] == "coins"
    assert "bkrfgq is not mapped" in (taken("adjust", callback()).ignored or "")


def test_an_install_is_taken_and_a_session_is_not() -> None:
    """A global callback sends every kind of activity."""
    assert event("adjust", callback(activity_kind="install", event=None))["name"] == "install"
    assert "session is not mapped" in (taken("adjust", callback(activity_kind="session")).ignored or "")


def test_a_repeated_callback_is_known_with_and_without_a_nonce() -> None:
    """Without one, all it says tells; the key does not, so rotating it changes nothing."""
    assert taken("adjust", callback()).dedupe_id == "k3jh4g5k3j"
    bare = [callback(nonce=None), callback(nonce=None, key="rotated"), callback(nonce=None, order_id="A-2")]
    ids = [event("adjust", each, **TOKENS)["event_id"] for each in bare]
    assert ids[0] == ids[1] != ids[2]


def test_placeholders_without_data_are_as_if_not_there() -> None:
    """Adjust drops them or leaves them as they are written."""
    found = event("adjust", callback(order_id="{order_id}", revenue_float="", nonce="{nonce}"), **TOKENS)
    assert not {"order_id", "value"} & set(found)
    assert "{" not in found["event_id"]


def test_a_click_id_that_was_not_filled_in_is_refused() -> None:
    """It would be sent to the network as it is."""
    (problem,) = refusals("adjust", callback(subid="{subid}"), **TOKENS, click_ids={"pushground": "subid"})
    assert "unreplaced macro" in problem


def test_negative_revenue_is_a_refund_and_none_is_no_value() -> None:
    """Events without revenue are sent with 0."""
    assert event("adjust", callback(revenue_float="-49.9"), **TOKENS)["amount"] == "49.90"
    assert "value" not in event("adjust", callback(revenue_float="0.0"), **TOKENS)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"created_at": None}, "created_at: is missing. Write created_at={created_at} in the callback's URL"),
        (
            {"activity_kind": None},
            "activity_kind: is missing. Write activity_kind={activity_kind} in the URL",
        ),
        ({"revenue_float": None, "revenue": "4990"}, "revenue: is in cents"),
        ({"currency": None}, "currency: is missing"),
        ({"created_at": "today"}, "created_at: is no unix time"),
    ],
)
def test_what_is_missing_says_what_to_write_into_the_template(
    values: dict[str, str | None], words: str
) -> None:
    """The URL is the account's own, so the remedy is in its terms."""
    assert words in refusals("adjust", callback(**values), **TOKENS)[0]
