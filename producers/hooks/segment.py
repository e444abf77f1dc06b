"""Segment webhooks: track calls of its e-commerce specification."""

from __future__ import annotations

from typing import Any, Final

from producers.hooks import meaning
from producers.hooks.fields import at, required, text
from producers.hooks.hook import Delivery, Hook, Mapped, MappingError, Options
from producers.hooks.verifying import SegmentSignature

_EVENTS: Final = {"Order Completed": "purchase"}
_SIGNALS: Final = {"Order Refunded": "refund", "Order Cancelled": "cancel"}
_AMOUNTS: Final = ("properties.revenue", "properties.total", "properties.value")


def map_delivery(payload: Any, _: Delivery, options: Options) -> Mapped:
    """Topics are the names of track calls. A refund without an amount is of the whole order."""
    call = _call(payload)
    if text(call, "type") != "track":
        return meaning.ignored(f"it is no track call but {text(call, 'type') or 'something without a type'}")
    topic = required(call, "event")
    meant = meaning.meaning(options, [topic], _EVENTS, _SIGNALS)
    if meant is None:
        return meaning.unasked(topic)
    path = options.text("order_id", "properties.order_id")
    order_id = text(call, path)
    if order_id is None and meant.kind != "conversion":
        raise MappingError(path, f"is missing from {topic}", "Send the order_id of the order with it")
    value, currency = _amount(call, meant, options)
    return Mapped(
        [
            meaning.event(
                meant,
                f"segment:{required(call, 'messageId')}",
                meaning.instant(required(call, "timestamp"), "timestamp"),
                order_id,
                value=value,
                currency=currency,
                **meaning.whose(
                    call,
                    options,
                    [at(call, "properties")],
                    {"customer_id": "userId", "device_id": "anonymousId"},
                ),
                reason=text(call, "properties.reason"),
            )
        ]
    )


def _call(payload: Any) -> Any:
    """The call itself; a batch is a list, of which only one of one is genuine (see its signature)."""
    return payload[0] if isinstance(payload, list) and len(payload) == 1 else payload


def _amount(call: Any, meant: meaning.Meaning, options: Options) -> tuple[str | None, str | None]:
    key = "value" if meant.kind == "conversion" else "refund_amount"
    paths = (options.text(key, ""),) if options.text(key, "") else _AMOUNTS
    path = next((path for path in paths if meaning.stands(call, path)), None)
    if path is None or meant.kind not in ("conversion", "refund", "chargeback"):
        return None, None
    currency = meaning.currency_of(call, ["properties.currency"], options)
    value = meaning.money(at(call, path), currency, path)
    if meant.kind == "conversion" and value.startswith("-"):
        raise MappingError(path, "is negative", "Send what was taken back as Order Refunded")
    return value, currency


def dedupe(payload: Any, _: Delivery) -> str:
    return required(_call(payload), "messageId")


HOOK = Hook(
    slug="segment",
    title="Segment",
    docs="https://segment.com/docs/connections/destinations/catalog/webhooks/",
    payload="json",
    verifier=SegmentSignature(),
    map=map_delivery,
    dedupe=dedupe,
    options=meaning.TABLES
    | {
        "order_id": "where the order id stands; properties.order_id otherwise",
        "value": "where an order's value stands; properties.revenue, total or value otherwise",
        "refund_amount": "where the amount of one refund stands; properties.revenue, total or value otherwise",
    },
    check=lambda options: meaning.check(options, "order_id", "value", "refund_amount"),
)
