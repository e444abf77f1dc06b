"""WooCommerce: orders as they change. https://developer.woocommerce.com/docs/apis/rest-api/v3/webhooks/

There is no topic for refunds: ``order.updated`` lists all refunds of the order, each time. So each refund is an event
under its own id, and those that are known are duplicates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final

from producers.hooks.attribution import OPTIONS as ATTRIBUTION
from producers.hooks.attribution import attributes, check, pairs_of, query_of, text_only, texts_of
from producers.hooks.fields import amount, at, objects, required, text
from producers.hooks.hook import Delivery, Envelope, Hook, Mapped, MappingError, Options
from producers.hooks.verifying import Hmac
from schemas.money import plain
from schemas.problem import Problem

_TOPICS: Final = ("order.created", "order.updated", "order.restored")
_PAID: Final = ("processing", "completed")
_LANDING: Final = "_wc_order_attribution_session_entry"
"""Where WooCommerce's own order attribution keeps the landing page."""


def _map(payload: Any, delivery: Delivery, options: Options) -> Mapped:
    topic = delivery.header("x-wc-webhook-topic")
    if topic is None:
        raise MappingError("x-wc-webhook-topic", "is missing", "Send the delivery with WooCommerce's headers")
    if topic not in _TOPICS:
        return Mapped(ignored=f"the topic {topic} is not read")
    status, order_id = required(payload, "status"), required(payload, "id")
    events: list[Envelope] = []
    if status in options.texts("conversion_status", _PAID):
        events.append(_conversion(payload, order_id, options))
    refunds = [refund for each in objects(payload, "refunds") if (refund := _refund(payload, order_id, each))]
    events += refunds
    if status == "refunded" and not refunds:
        events.append(_signal(payload, order_id, "refund", f"woocommerce:refunded:{order_id}"))
    if status == "cancelled":
        events.append(_signal(payload, order_id, "cancel", f"woocommerce:cancel:{order_id}"))
    return Mapped(events, ignored=None if events else f"an order that is {status} means nothing yet")


def _conversion(payload: Any, order_id: str, options: Options) -> Envelope:
    meta = pairs_of(payload, "meta_data", "key")
    customer = at(payload, "customer_id") or None  # 0 is a guest
    left = texts_of({"customer": customer}) | query_of(meta.get(_LANDING)) | meta
    paid = "date_paid_gmt" if text(payload, "date_paid_gmt") else "date_created_gmt"
    return {
        "type": "conversion",
        "event_id": f"woocommerce:order:{order_id}",
        "name": options.text("event", "purchase"),
        "occurred_at": _utc(payload, paid),
        "order_id": order_id,
        "value": amount(at(payload, "total"), "total"),
        "currency": required(payload, "currency"),
        **attributes(left, options),
    }


def _refund(payload: Any, order_id: str, refund: Mapping[str, Any]) -> Envelope | None:
    """One of the order's refunds, whose total is negative; None if it gave no money back."""
    given_back = abs(Decimal(amount(refund.get("total"), "refunds.total")))
    if not given_back:
        return None
    event_id = f"woocommerce:refund:{required(refund, 'id')}"
    reason = text(refund, "reason")
    return (
        _signal(payload, order_id, "refund", event_id)
        | {"amount": plain(given_back), "amount_is": "delta", "currency": required(payload, "currency")}
        | ({"reason": reason[:500]} if reason else {})
    )


def _signal(payload: Any, order_id: str, kind: str, event_id: str) -> Envelope:
    """A signal as of the order's last change: a refund among an order's has no date of its own."""
    return {
        "type": kind,
        "event_id": event_id,
        "occurred_at": _utc(payload, "date_modified_gmt"),
        "order_id": order_id,
    }


def _utc(payload: Any, path: str) -> str:
    """A time that is UTC and does not say so."""
    return f"{required(payload, path).removesuffix('Z')}Z"


def _dedupe(_: Any, delivery: Delivery) -> str | None:
    """The delivery's id with its body: WooCommerce makes the id of webhook and second, so two orders may share one."""
    id_ = delivery.header("x-wc-webhook-delivery-id")
    return id_ and f"{id_}:{sha256(delivery.body).hexdigest()}"


def _is_ping(delivery: Delivery) -> bool:
    """What is sent when a webhook is saved: a form with the webhook's number, not signed."""
    signed = delivery.header("x-wc-webhook-signature") is not None
    return not signed and re.fullmatch(rb"webhook_id=\d{1,18}", delivery.body) is not None


def _check(options: Options) -> Sequence[Problem]:
    statuses = options.values.get("conversion_status", [])
    problems = [*text_only(options, "event"), *check(options)]
    if not isinstance(statuses, list) or not all(isinstance(each, str) for each in statuses):
        remedy = 'Write it like ["processing", "completed"]'
        problems.append(Problem("option", "conversion_status", "is no list of texts", remedy))
    return problems


HOOK = Hook(
    slug="woocommerce",
    title="WooCommerce",
    docs="https://developer.woocommerce.com/docs/apis/rest-api/v3/webhooks/",
    payload="json",
    verifier=Hmac("x-wc-webhook-signature", encoding="base64"),
    map=_map,
    dedupe=_dedupe,
    options={
        "event": "what a paid order is called; purchase",
        "conversion_status": f"statuses that make a conversion; {' and '.join(_PAID)}",
        **ATTRIBUTION,
    },
    check=_check,
    ping=_is_ping,
)
