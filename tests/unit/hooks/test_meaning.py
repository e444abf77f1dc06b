"""What the tables of a source say, for every sender that reads them: names, signals, whose it is, and money."""

from __future__ import annotations

import json

import pytest

from producers.hooks import meaning
from producers.hooks.hook import MappingError, Options
from producers.hooks.registry import HOOKS
from tests.unit.hooks.eight import changed, event, fixture, taken

CALL = "segment_order_completed.json"


def test_the_table_comes_before_the_defaults() -> None:
    """It may rename a topic, make a signal of it, or take it away, whichever table it says it in."""
    assert event("segment", fixture(CALL), events={"Order Completed": "sale"})["name"] == "sale"
    assert event("segment", fixture(CALL), signals={"Order Completed": "cancel"})["type"] == "cancel"
    assert taken("segment", fixture(CALL), events={"Order Completed": ""}).ignored is not None


def test_the_most_specific_topic_counts() -> None:
    """A value of a property is more than the property."""
    options = Options("it", {"events": {"a=1": "one", "a": "any"}})
    assert meaning.meaning(options, ["a=1", "a"]) == meaning.Meaning("a=1", "conversion", name="one")
    assert meaning.meaning(options, ["a=2", "a"]) == meaning.Meaning("a", "conversion", name="any")
    assert meaning.meaning(options, ["b"]) is None


@pytest.mark.parametrize("word", sorted(meaning.SIGNALS))
def test_every_signal_can_be_meant(word: str) -> None:
    """Each is valid as it comes out of a mapper."""
    found = event("segment", fixture(CALL), signals={"Order Completed": word})
    kind, _, outcome = word.partition(".")
    assert (found["type"], found.get("outcome", "")) == (kind, outcome)


def test_click_ids_stand_by_name_without_a_table() -> None:
    """``click_id_NETWORK`` in what an account added; a table in its place names other places."""
    body = changed(CALL, properties__click_id_xandr="3f9c1b2a7d", properties__click_id_ezmob="")
    assert event("segment", body)["click_ids"] == {"xandr": "3f9c1b2a7d"}
    named = event("segment", body, click_ids={"pushground": "properties.sspdata", "xandr": "properties.none"})
    assert list(named["click_ids"]) == ["pushground"]


def test_attributes_of_an_app_user_are_read_without_their_instants() -> None:
    """RevenueCat keeps each with when it was set."""
    body = json.loads(fixture("revenuecat_initial_purchase.json"))
    body["event"]["subscriber_attributes"]["click_id_xandr"] = {"value": "3f9c1b2a7d", "updated_at_ms": 1}
    assert event("revenuecat", json.dumps(body).encode())["click_ids"] == {"xandr": "3f9c1b2a7d"}


def test_a_partner_and_params_go_with_a_conversion() -> None:
    """Params are named by the last name of their path."""
    found = event(
        "segment", fixture(CALL), partner_id="userId", params=["properties.affiliation", "properties.none"]
    )
    assert (found["partner_id"], found["params"]) == ("019mr8mf4r", {"affiliation": "Shop"})


def test_keys_to_the_register_of_clicks_stand_where_the_sender_or_the_table_says() -> None:
    """So that an order without a click id can still be matched with a click."""
    call = {"userId": "u-77", "anonymousId": "{anonymous}", "traits": {"lead": 5}}
    keys = {"customer_id": "userId", "device_id": "anonymousId"}
    assert meaning.whose(call, Options("it"), keys=keys) == {"customer_id": "u-77"}
    named = Options("it", {"lead_id": "traits.lead", "customer_id": "traits.none"})
    assert meaning.whose(call, named, keys=keys) == {"lead_id": "5"}


@pytest.mark.parametrize(
    ("value", "currency", "told"),
    [
        (49.9, "EUR", "49.90"),
        (0.1 + 0.2, "EUR", "0.30"),
        ("49.995", "EUR", "50.00"),
        (-7, "JPY", "-7"),
        ("0", "KWD", "0.000"),
    ],
)
def test_money_has_the_places_of_its_currency(value: object, currency: str, told: str) -> None:
    """A float is what a person would write, not what a processor holds."""
    assert meaning.money(value, currency, "value") == told


@pytest.mark.parametrize("value", [True, None, [], "", "4,99", "NaN", float("inf"), "1e999", "9" * 16])
def test_what_is_no_amount_is_refused_with_its_field(value: object) -> None:
    """Whatever it is."""
    with pytest.raises(MappingError, match=r"^total: "):
        meaning.money(value, "EUR", "total")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("2026-11-22T11:00:00+01:00", "2026-11-22T10:00:00+00:00"),
        ("2026-11-22 10:00:00.123", "2026-11-22T10:00:00.123000+00:00"),
        ("2026-11-22T10:00:00Z", "2026-11-22T10:00:00+00:00"),
    ],
)
def test_instants_are_utc(written: str, told: str) -> None:
    """With an offset or without."""
    assert meaning.instant(written, "timestamp") == told


@pytest.mark.parametrize(
    ("slug", "options", "field"),
    [
        ("segment", {"events": ["Order Completed"]}, "events"),
        ("segment", {"signals": {"Order Completed": "void"}}, "signals.Order Completed"),
        ("segment", {"currency": "euro"}, "currency"),
        ("segment", {"value": 5}, "value"),
        ("branch", {"click_ids": "clid"}, "click_ids"),
        ("adjust", {"allow": ["10.0.0"]}, "allow"),
        ("salesforce", {"organization": 15}, "organization"),
        ("chargebee", {"order_id": "transaction"}, "order_id"),
        ("hubspot", {"values": "49.90"}, "values"),
        ("hubspot", {"values": {"purchase": "much"}, "currency": "EUR"}, "values.purchase"),
    ],
)
def test_options_that_cannot_be_meant_are_told_by_their_key(
    slug: str, options: dict[str, object], field: str
) -> None:
    """Before any delivery comes."""
    assert [problem.field for problem in HOOKS[slug].check(Options("it", options))] == [field]
