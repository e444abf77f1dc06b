"""What each sender's payload means: fixtures as the vendors document them, mapped to events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from producers.hooks.hook import Delivery, Mapped, MappingError, Options
from producers.hooks.registry import HOOKS
from schemas.event import read_event

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "hooks"
NOW = datetime(2026, 11, 22, tzinfo=UTC)
XANDR = "nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE."
PAYMENT = "stripe:pi_3PqRstLkdIwHu7ix0aBcDeFg"


def payload(name: str, **changed: Any) -> Any:
    """A fixture; ``changed`` by dotted path with ``__`` for the dots."""
    read = json.loads((FIXTURES / f"{name}.json").read_text("utf-8"), parse_float=Decimal)
    for path, value in changed.items():
        *parents, last = path.split("__")
        place = read
        for parent in parents:
            place = place[parent]
        place[last] = value
    return read


def mapped(
    slug: str, given: Any, headers: Mapping[str, str] | None = None, options: Mapping[str, Any] | None = None
) -> Mapped:
    """What a hook makes of a payload; every event must be one that intake would take."""
    delivery = Delivery("POST", "https://hooks.example/hooks/shop", dict(headers or {}), b"{}", NOW)
    table = Options("shop", dict(options or {}))
    assert list(HOOKS[slug].check(table)) == []
    found = HOOKS[slug].map(given, delivery, table)
    for event in found.events:
        read_event({**event, "version": 1, "source": "shop"}, NOW)
    return found


def stripe(name: str, options: Mapping[str, Any] | None = None, **changed: Any) -> Mapped:
    return mapped("stripe", payload(f"stripe_{name}", **changed), options=options)


def shopify(topic: str, options: Mapping[str, Any] | None = None, **changed: Any) -> Mapped:
    given = payload(f"shopify_{topic.replace('/', '_')}", **changed)
    return mapped("shopify", given, {"x-shopify-topic": topic}, options)


def woocommerce(topic: str, options: Mapping[str, Any] | None = None, **changed: Any) -> Mapped:
    return mapped(
        "woocommerce", payload(f"woocommerce_{topic}", **changed), {"x-wc-webhook-topic": topic}, options
    )


class TestStripe:
    """Stripe."""

    def test_a_paid_checkout_is_a_conversion(self) -> None:
        """Its amount is in the currency itself, its order the shop's own, its click ids from the metadata."""
        assert stripe("checkout.session.completed", {"params": ["plan"]}).events == [
            {
                "type": "conversion",
                "event_id": PAYMENT,
                "name": "purchase",
                "occurred_at": "2026-09-28T14:15:05+00:00",
                "order_id": "order-1001",
                "value": "49.90",
                "currency": "EUR",
                "click_ids": {"xandr": XANDR},
                "params": {"plan": "pro"},
            }
        ]

    def test_a_payment_is_one_conversion_whatever_tells_of_it(self) -> None:
        """Session, intent and charge of a payment give the same event id."""
        ids = {
            event["event_id"]
            for topic in ("checkout.session.completed", "payment_intent.succeeded", "charge.succeeded")
            for event in stripe(topic, {"conversion_on": topic}).events
        }
        assert ids == {PAYMENT}

    def test_only_the_chosen_event_converts(self) -> None:
        """The others of the same payment are passed over with the reason."""
        assert stripe("charge.succeeded").ignored == "the event charge.succeeded is not read"

    def test_an_unpaid_checkout_waits_for_its_money(self) -> None:
        """A bank debit completes the checkout days before it is paid."""
        unpaid = stripe("checkout.session.completed", data__object__payment_status="unpaid")
        assert (unpaid.events, bool(unpaid.ignored)) == ((), True)
        later = stripe("checkout.session.completed", type="checkout.session.async_payment_succeeded")
        assert later.events[0]["event_id"] == PAYMENT

    def test_a_checkout_that_only_keeps_a_card_means_nothing(self) -> None:
        """Nobody paid."""
        assert stripe("checkout.session.completed", data__object__mode="setup").ignored

    def test_an_authorization_waits_for_its_capture(self) -> None:
        """A charge that is not captured moves no money."""
        options = {"conversion_on": "charge.succeeded"}
        assert stripe("charge.succeeded", options, data__object__captured=False).ignored
        assert stripe("charge.succeeded", options, type="charge.captured").events

    @pytest.mark.parametrize(
        ("currency", "minor", "amount"),
        [
            ("jpy", 500, "500"),
            ("kwd", 5124, "5.124"),
            ("mga", 500, "500"),
            ("isk", 500, "5.00"),
            ("ugx", 700, "7.00"),
        ],
    )
    def test_minor_units_are_as_stripe_counts_them(self, currency: str, minor: int, amount: str) -> None:
        """Without decimals, with three, and where Stripe departs from ISO 4217."""
        (event,) = stripe(
            "checkout.session.completed", data__object__currency=currency, data__object__amount_total=minor
        ).events
        assert event["value"] == amount

    def test_a_refund_states_the_total(self) -> None:
        """amount_refunded is cumulative: the earlier 5.00 is part of the 15.00."""
        assert stripe("charge.refunded").events == [
            {
                "type": "refund",
                "event_id": "evt_3PqRstLkdIwHu7ix0rEfUnDd",
                "occurred_at": "2026-09-29T14:15:05+00:00",
                "conversion_event_id": PAYMENT,
                "amount": "15.00",
                "amount_is": "cumulative",
                "currency": "EUR",
            }
        ]

    def test_a_refund_goes_by_the_order_where_charges_have_it(self) -> None:
        """For conversions that come from elsewhere."""
        (event,) = stripe("charge.refunded", {"order_id": "order_id"}).events
        assert (event["order_id"], "conversion_event_id" in event) == ("1001", False)

    @pytest.mark.parametrize(
        ("name", "status", "outcome"),
        [
            ("created", "needs_response", "opened"),
            ("closed", "won", "won"),
            ("closed", "lost", "lost"),
            ("created", "warning_needs_response", None),
            ("closed", "warning_closed", None),
        ],
    )
    def test_disputes_take_back_and_give_again(self, name: str, status: str, outcome: str | None) -> None:
        """An inquiry is no dispute yet: no money moves."""
        found = stripe(f"charge.dispute.{name}", data__object__status=status)
        assert [event["outcome"] for event in found.events] == ([outcome] if outcome else [])
        assert bool(found.ignored) == (outcome is None)

    def test_a_missing_field_is_named(self) -> None:
        """Nothing is guessed."""
        with pytest.raises(MappingError) as caught:
            stripe("charge.refunded", data__object__amount_refunded=None)
        assert caught.value.field == "data.object.amount_refunded"


class TestShopify:
    """Shopify."""

    def test_a_paid_order_is_a_conversion(self) -> None:
        """Click ids from the landing page, the partner from the order's attributes."""
        options = {"click_ids": {"xandr": "clid"}, "partner_id": "partner"}
        assert shopify("orders/paid", options).events == [
            {
                "type": "conversion",
                "event_id": "shopify:order:820982911946154508",
                "name": "purchase",
                "occurred_at": "2026-09-28T08:11:44-05:00",
                "order_id": "820982911946154508",
                "value": "388.00",
                "currency": "USD",
                "click_ids": {"xandr": XANDR},
                "partner_id": "p-77",
            }
        ]

    def test_a_refund_is_what_its_transactions_gave_back(self) -> None:
        """The two that succeeded, and not the one that failed."""
        assert shopify("refunds/create").events == [
            {
                "type": "refund",
                "event_id": "shopify:refund:890088186047892319",
                "occurred_at": "2026-10-01T12:44:45-05:00",
                "order_id": "820982911946154508",
                "amount": "202.98",
                "amount_is": "delta",
                "currency": "USD",
                "reason": "wrong size",
            }
        ]

    def test_a_refund_without_money_means_nothing(self) -> None:
        """Goods can go back on the shelf and no more."""
        assert shopify("refunds/create", transactions=[]).ignored == "this refund gives no money back"

    def test_a_refund_counts_in_the_shops_currency(self) -> None:
        """The buyer may have paid in another; the order's total is in the shop's."""
        money = {
            "shop_money": {"amount": "10.99", "currency_code": "USD"},
            "presentment_money": {"amount": "9", "currency_code": "EUR"},
        }
        paid = {"kind": "refund", "status": "success", "amount": "9", "currency": "EUR", "amount_set": money}
        (event,) = shopify("refunds/create", transactions=[paid]).events
        assert (event["amount"], event["currency"]) == ("10.99", "USD")

    def test_a_cancelled_order_is_cancelled(self) -> None:
        """With its reason."""
        (event,) = shopify("orders/cancelled").events
        assert (event["type"], event["order_id"], event["reason"]) == (
            "cancel",
            "820982911946154508",
            "customer",
        )

    @pytest.mark.parametrize(
        ("status", "outcome"), [("under_review", "opened"), ("accepted", "lost"), ("won", "won")]
    )
    def test_a_dispute_has_an_outcome(self, status: str, outcome: str) -> None:
        """Each outcome is an event of its own."""
        (event,) = shopify("disputes/create", status=status).events
        assert (event["outcome"], event["event_id"]) == (
            outcome,
            f"shopify:dispute:285332461850802050:{outcome}",
        )

    def test_test_orders_are_passed_over(self) -> None:
        """Unless they are asked for."""
        assert "test" in (shopify("orders/paid", test=True).ignored or "")
        assert shopify("orders/paid", {"test": True}, test=True).events

    def test_one_event_under_two_topics_is_two_deliveries(self) -> None:
        """The event's id is shared between topics, so it alone repeats nothing."""
        ids = {
            HOOKS["shopify"].dedupe({}, Delivery("POST", "", headers, b"", NOW))
            for headers in (
                {"x-shopify-event-id": "e1", "x-shopify-topic": "orders/paid"},
                {"x-shopify-event-id": "e1", "x-shopify-topic": "orders/updated"},
                {"x-shopify-event-id": "e1", "x-shopify-webhook-id": "w1"},
            )
        }
        assert ids == {"e1:orders/paid", "e1:orders/updated", "w1"}


class TestWooCommerce:
    """WooCommerce."""

    def test_an_order_comes_with_its_refunds(self) -> None:
        """Each refund under its own id, so that the next update repeats them without harm."""
        conversion, first, second = woocommerce("order.updated", {"click_ids": {"xandr": "clid"}}).events
        assert conversion == {
            "type": "conversion",
            "event_id": "woocommerce:order:727",
            "name": "purchase",
            "occurred_at": "2026-09-22T16:28:08Z",
            "order_id": "727",
            "value": "29.35",
            "currency": "USD",
            "click_ids": {"xandr": XANDR},
        }
        assert [(each["event_id"], each["amount"], each["amount_is"]) for each in (first, second)] == [
            ("woocommerce:refund:726", "10.00", "delta"),
            ("woocommerce:refund:724", "1.00", "delta"),
        ]
        assert second["reason"] == "damaged"

    def test_an_unpaid_order_means_nothing_yet(self) -> None:
        """It is told again when it is paid."""
        assert woocommerce("order.created").ignored == "an order that is pending means nothing yet"

    def test_a_cancelled_order_is_cancelled(self) -> None:
        """And no conversion."""
        events = woocommerce("order.updated", status="cancelled", refunds=[]).events
        assert [event["type"] for event in events] == ["cancel"]

    def test_an_order_that_is_refunded_without_refunds_is_refunded_in_full(self) -> None:
        """Somebody set the status by hand."""
        (event,) = woocommerce("order.updated", status="refunded", refunds=[]).events
        assert (event["type"], "amount" in event) == ("refund", False)

    def test_a_ping_is_told_by_its_shape(self) -> None:
        """A signed delivery is never one."""
        ping = HOOKS["woocommerce"].ping
        assert ping(Delivery("POST", "", {}, b"webhook_id=12", NOW))
        assert not ping(Delivery("POST", "", {"x-wc-webhook-signature": "x"}, b"webhook_id=12", NOW))
        assert not ping(Delivery("POST", "", {}, b'{"id": 12}', NOW))

    def test_two_orders_in_one_second_are_two_deliveries(self) -> None:
        """The delivery's id is made of webhook and second alone."""
        headers = {"x-wc-webhook-delivery-id": "d1"}
        bodies = [b'{"id": 1}', b'{"id": 2}', b'{"id": 1}']
        ids = [HOOKS["woocommerce"].dedupe({}, Delivery("POST", "", headers, body, NOW)) for body in bodies]
        assert (len(set(ids)), ids[0] == ids[2]) == (2, True)


RULES: dict[str, Any] = {
    "dedupe": "id",
    "rules": [
        {
            "when": "event == 'deal.won'",
            "type": "conversion",
            "constants": {"name": "purchase"},
            "map": {
                "event_id": "id",
                "order_id": "deal.number",
                "value": "deal.total",
                "currency": "deal.currency",
                "occurred_at": "deal.closed",
                "click_ids": {"xandr": "deal.clid", "outbrain": "deal.obid"},
                "params": {"plan": "deal.plan"},
            },
        },
        {
            "when": "refunds",
            "each": "refunds[].{id: id, cents: cents, order: '4711'}",
            "type": "refund",
            "minor": True,
            "constants": {"currency": "EUR"},
            "map": {"event_id": "id", "order_id": "order", "amount": "cents"},
        },
    ],
}


class TestRules:
    """The rules of ``generic`` and ``standard-webhooks``."""

    def test_rules_make_events_of_any_json(self) -> None:
        """Numbers keep their digits, instants are read from seconds, and what is not there is left out."""
        conversion, first, second = mapped("generic", payload("generic_deal"), options=RULES).events
        assert conversion == {
            "type": "conversion",
            "name": "purchase",
            "event_id": "act-9001",
            "order_id": "4711",
            "value": "1999.90",
            "currency": "EUR",
            "occurred_at": "2026-09-28T14:15:00+00:00",
            "click_ids": {"xandr": XANDR},
            "params": {"plan": "pro"},
        }
        assert [(each["event_id"], each["amount"]) for each in (first, second)] == [
            ("r-1", "25.00"),
            ("r-2", "7.00"),
        ]

    def test_a_payload_that_no_rule_is_for_means_nothing(self) -> None:
        """With the reason."""
        other = payload("generic_deal", event="deal.lost", refunds=[])
        assert mapped("generic", other, options=RULES).ignored == "no rule's condition is true of it"

    def test_milliseconds_are_told_from_seconds(self) -> None:
        """By their size."""
        table = {"type": "cancel", "map": {"event_id": "id", "order_id": "id", "occurred_at": "sent_at"}}
        (event,) = mapped("generic", payload("generic_deal"), options=table).events
        assert event["occurred_at"] == "2026-09-28T14:15:05.123000+00:00"

    def test_one_part_that_cannot_be_mapped_stops_no_other(self) -> None:
        """It is named; the others are events."""
        broken = payload(
            "generic_deal", refunds=[{"id": "r-1", "cents": "many"}, {"id": "r-2", "cents": 700}]
        )
        found = mapped("generic", broken, options=RULES)
        assert [event["event_id"] for event in found.events] == ["act-9001", "r-2"]
        assert [error.field for error in found.unmapped] == ["rules.1.map.amount"]

    @pytest.mark.parametrize(
        ("table", "key"),
        [
            ({}, "map"),
            ({"map": {"event_id": "id"}}, "type"),
            ({"type": "cancel", "map": {"order_id": "id"}}, "map.event_id"),
            ({"type": "cancel", "map": {"event_id": "id", "value": "x"}}, "map.value"),
            ({"type": "cancel", "map": {"event_id": "id["}}, "map.event_id"),
            ({"type": "conversion", "map": {"event_id": "id"}}, "map.name"),
            ({"rules": [{"type": "cancel", "map": {"event_id": "id"}, "if": "x"}]}, "rules.0.if"),
            ({"rules": []}, "rules"),
            ({"auth": "magic", "type": "cancel", "map": {"event_id": "id"}}, "auth"),
            ({"allow": ["x"], "type": "cancel", "map": {"event_id": "id"}}, "allow"),
        ],
    )
    def test_a_fault_in_a_rule_is_named_before_anything_is_sent(
        self, table: dict[str, Any], key: str
    ) -> None:
        """By its key."""
        assert [problem.field for problem in HOOKS["generic"].check(Options("crm", table))] == [key]

    def test_a_standard_webhook_may_carry_our_envelope(self) -> None:
        """As its data."""
        (event,) = mapped("standard-webhooks", payload("standard-webhooks_conversion")).events
        assert event["event_id"] == "order-1001"
