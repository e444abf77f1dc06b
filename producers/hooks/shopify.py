"""Shopify: paid, refunded, cancelled and disputed orders. https://shopify.dev/docs/api/webhooks"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from producers.hooks.attribution import OPTIONS as ATTRIBUTION
from producers.hooks.attribution import attributes, check, one_of, pairs_of, query_of, text_only, texts_of
from producers.hooks.fields import amount, at, objects, required, text
from producers.hooks.hook import Delivery, Envelope, Hook, Mapped, MappingError, Options
from producers.hooks.verifying import Hmac
from schemas.money import plain
from schemas.problem import Problem

_CONVERSION_TOPICS: Final = ("orders/paid", "orders/create", "orders/fulfilled")
_OUTCOMES: Final = {
    "needs_response": "opened",
    "under_review": "opened",
    "accepted": "lost",
    "lost": "lost",
    "won": "won",
}


def _map(payload: Any, delivery: Delivery, options: Options) -> Mapped:
    topic = delivery.header("x-shopify-topic")
    if at(payload, "test") is True and options.values.get("test") is not True:
        return Mapped(ignored="it is a test order; the option test = true takes them")
    if topic == options.text("conversion_on", "orders/paid"):
        return Mapped([_conversion(payload, options)])
    match topic:
        case None:
            raise MappingError("x-shopify-topic", "is missing", "Send the delivery with Shopify's headers")
        case "refunds/create":
            return _refund(payload)
        case "orders/cancelled":
            return Mapped([_cancel(payload)])
        case "disputes/create" | "disputes/update":
            return _dispute(payload)
        case _:
            return Mapped(ignored=f"the topic {topic} is not read")


def _conversion(payload: Any, options: Options) -> Envelope:
    """``order_id`` is the order's ``id``, as refunds have no other; ``name`` (such as #1001) is only shown to people."""
    order_id = required(payload, "id")
    # An attribute of the order was put there on purpose; the landing page is what the browser came by.
    left = {
        **texts_of({"customer": at(payload, "customer.id")}),
        **query_of(at(payload, "landing_site")),
        **pairs_of(payload, "note_attributes", "name"),
    }
    return {
        "type": "conversion",
        "event_id": f"shopify:order:{order_id}",
        "name": options.text("event", "purchase"),
        "occurred_at": text(payload, "processed_at") or required(payload, "created_at"),
        "order_id": order_id,
        "value": amount(at(payload, "total_price"), "total_price"),
        "currency": required(payload, "currency"),
        **attributes(left, options),
    }


def _refund(payload: Any) -> Mapped:
    """What its transactions give back. A refund can also only put goods back on the shelf."""
    given_back = [
        each
        for each in objects(payload, "transactions")
        if each.get("kind") == "refund" and each.get("status") in ("success", "pending")
    ]
    sums = [_shop_money(each) for each in given_back]
    total = sum((value for value, _ in sums), Decimal(0))
    if not total:
        return Mapped(ignored="this refund gives no money back")
    currencies = {currency for _, currency in sums}
    if len(currencies) > 1:
        raise MappingError("transactions", "are in several currencies", "Settle them by hand")
    refund: Envelope = {
        "type": "refund",
        "event_id": f"shopify:refund:{required(payload, 'id')}",
        "occurred_at": text(payload, "processed_at") or required(payload, "created_at"),
        "order_id": required(payload, "order_id"),
        "amount": plain(total),
        "amount_is": "delta",
        "currency": currencies.pop(),
    }
    note = text(payload, "note")
    return Mapped([refund | ({"reason": note[:500]} if note else {})])


def _shop_money(transaction: Mapping[str, Any]) -> tuple[Decimal, str]:
    """In the shop's currency, as the order's total is; the buyer may have paid in another."""
    if at(transaction, "amount_set.shop_money") is not None:
        path, currency = "amount_set.shop_money.amount", "amount_set.shop_money.currency_code"
    else:
        path, currency = "amount", "currency"
    return Decimal(amount(at(transaction, path), f"transactions.{path}")), required(transaction, currency)


def _cancel(payload: Any) -> Envelope:
    order_id = required(payload, "id")
    reason = text(payload, "cancel_reason")
    return {
        "type": "cancel",
        "event_id": f"shopify:cancel:{order_id}",
        "occurred_at": required(payload, "cancelled_at"),
        "order_id": order_id,
    } | ({"reason": reason[:500]} if reason else {})


def _dispute(payload: Any) -> Mapped:
    if at(payload, "type") == "inquiry":
        return Mapped(ignored="an inquiry takes no money back")
    status = required(payload, "status")
    outcome = _OUTCOMES.get(status)
    if outcome is None:
        return Mapped(ignored=f"a dispute that is {status} says nothing of its outcome")
    ended = text(payload, "finalized_on") if outcome != "opened" else None
    return Mapped(
        [
            {
                "type": "chargeback",
                "event_id": f"shopify:dispute:{required(payload, 'id')}:{outcome}",
                "occurred_at": ended if ended and "T" in ended else required(payload, "initiated_at"),
                "order_id": required(payload, "order_id"),
                "outcome": outcome,
                "amount": amount(at(payload, "amount"), "amount"),
                "currency": required(payload, "currency"),
            }
        ]
    )


def _dedupe(_: Any, delivery: Delivery) -> str | None:
    """The delivery's id. The event's alone will not do: one event is told under several topics."""
    webhook = delivery.header("x-shopify-webhook-id")
    event, topic = delivery.header("x-shopify-event-id"), delivery.header("x-shopify-topic")
    return webhook or (f"{event}:{topic}" if event else None)


def _check(options: Options) -> Sequence[Problem]:
    problems = [
        *one_of(options, "conversion_on", _CONVERSION_TOPICS),
        *text_only(options, "event"),
        *check(options),
    ]
    if not isinstance(options.values.get("test", False), bool):
        problems.append(Problem("option", "test", "is neither true nor false", "Write true or false"))
    return problems


HOOK = Hook(
    slug="shopify",
    title="Shopify",
    docs="https://shopify.dev/docs/apps/build/webhooks/subscribe/https",
    payload="json",
    verifier=Hmac("x-shopify-hmac-sha256", encoding="base64"),
    map=_map,
    dedupe=_dedupe,
    options={
        "event": "what a paid order is called; purchase",
        "conversion_on": f"the topic that makes a conversion: {', '.join(_CONVERSION_TOPICS)}; the first",
        "test": "true takes test orders too",
        **ATTRIBUTION,
    },
    check=_check,
)
